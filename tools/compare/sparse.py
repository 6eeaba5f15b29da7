#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times sparse attention beside PyTorch's, through the Python package, on the same tensors and in one run.

    sparse.py                                    a window of 512 of 16K keys, f32, on this CPU
    sparse.py --device cuda --dtype float16      windows, lists of blocks, neighbourhoods and documents

Peers: `sdpa` is scaled_dot_product_attention with a boolean mask of all rows and keys, `math` its kernel of that name,
`flex` FlexAttention, compiled, with a block mask of the same definition. Each output is compared with ours before there
are times. Then all take turns. The table has the median time of each, the median of the turns' ratios (above 1, ours is
quicker), and the greatest difference of an element. `dense` is ours over all keys. Plans, masks and compiled kernels
are made before.

Rows and keys of a neighbourhood come to us in patches of 8 x 8 tokens, and to PyTorch in row-major order;
in `neighbourhood-patches` FlexAttention gets patches too.

Exit status 1: an output differs by more than rounding explains, or ours cannot be computed.
"""

import argparse
import dataclasses
import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

import fastattn

PATCH = 8


@dataclasses.dataclass
class Case:
    """One kind of sparsity, told twice: to PyTorch as a predicate, and to us as arguments of a Plan."""

    name: str
    rows: int
    sees: Callable[..., Any]  # of (batch entry, head, row, key), as FlexAttention has it
    plan: dict[str, Any]
    block: int = 128  # of FlexAttention's block mask
    packed: bool = False
    order: torch.Tensor | None = None  # row n of ours is row order[n] of PyTorch's


# ---- cases ----


def window(options):
    width = options.window
    return Case(
        f"window {width}",
        options.length,
        lambda b, h, row, key: (key <= row) & (row - key < width),
        {"mask": "causal", "window": (width, None)},
    )


def blocks(options, size):
    """A quarter of the blocks of keys, at least one, for each block of rows. The same for all heads."""
    count = -(-options.length // size)
    chosen = torch.rand(count, count).argsort(1) < max(count // 4, 1)
    there = chosen.to(options.device)
    return Case(
        f"blocks of {size}, 25 %",
        options.length,
        lambda b, h, row, key: there[row // size, key // size],
        {"lists": fastattn.BlockLists(size, size, chosen)},
        block=size,
    )


def documents(options):
    """Packed sequences of different lengths: each sees itself."""
    count = min(options.documents, options.length)
    starts = torch.randperm(options.length - 1)[: count - 1].sort().values + 1
    number = torch.zeros(options.length, dtype=torch.int32)
    number[starts] = 1
    number = number.cumsum(0).to(options.device)
    offsets = [0, *starts.tolist(), options.length]
    return Case(
        f"{count} documents",
        options.length,
        lambda b, h, row, key: number[row] == number[key],
        {"cu_seqlens_q": offsets, "cu_seqlens_k": offsets},
        packed=True,
    )


def patches(size):
    """The tokens of a grid, patch by patch."""
    edge = size // PATCH
    return torch.arange(size * size).view(edge, PATCH, edge, PATCH).transpose(1, 2).flatten()


def near(size, width, one, other):
    """NATTEN's window of an axis: the middle one is the token's own, and at the borders it is shifted inwards."""
    first = (one - width // 2).clamp(0, size - width)
    return (first <= other) & (other < first + width)


def neighbourhood(options, in_patches):
    size, width = options.grid, min(options.kernel_size, options.grid)
    there = patches(size).to(options.device)

    def sees(b, h, row, key):
        return near(size, width, row // size, key // size) & near(size, width, row % size, key % size)

    def sees_patches(b, h, row, key):
        return sees(b, h, there[row], there[key])

    return Case(
        f"{width}x{width} of {size}x{size}" + (", patches" if in_patches else ""),
        size * size,
        sees_patches if in_patches else sees,
        {"neighbourhood": fastattn.Neighbourhood((size, size), width, tile=PATCH)},
        order=None if in_patches else there,
    )


CASES = {
    "window": window,
    "blocks-128": functools.partial(blocks, size=128),
    "blocks-64": functools.partial(blocks, size=64),
    "neighbourhood": functools.partial(neighbourhood, in_patches=False),
    "neighbourhood-patches": functools.partial(neighbourhood, in_patches=True),
    "documents": documents,
}


def grid_of(rows, device):
    numbers = torch.arange(rows, dtype=torch.int32, device=device)
    return numbers[:, None], numbers[None]


# ---- who computes ----


def ours(case, tensors, arguments):
    """A plan of ours, and a call that runs it."""
    if case.order is not None:
        tensors = [tensor[:, :, case.order].contiguous() for tensor in tensors]
    if case.packed:
        tensors = [tensor[0] for tensor in tensors]
    plan = fastattn.Plan(*tensors, **arguments)
    return plan, lambda: plan.run(*tensors)


def in_pytorch_s_order(case, result):
    result = result[None] if case.packed else result
    if case.order is None:
        return result
    moved = torch.empty_like(result)
    moved[:, :, case.order] = result
    return moved


def dense_mask(case, device):
    return case.sees(0, 0, *grid_of(case.rows, device))[None, None]


def sdpa(case, tensors, options):
    mask = dense_mask(case, options.device)
    return lambda: scaled_dot_product_attention(*tensors, attn_mask=mask)


def math(case, tensors, options):
    mask = dense_mask(case, options.device)

    def work():
        with sdpa_kernel(SDPBackend.MATH):
            return scaled_dot_product_attention(*tensors, attn_mask=mask)

    return work


def flex(case, tensors, options):
    torch.compiler.reset()  # beyond some functions it would not compile any more, and say nothing
    mask = create_block_mask(case.sees, None, None, case.rows, case.rows, options.device, BLOCK_SIZE=case.block)
    mode = "max-autotune-no-cudagraphs" if options.max_autotune else None
    compiled = torch.compile(flex_attention, dynamic=False, mode=mode)
    tile = None  # the compiler's choice, which has to divide a block
    if case.block < 128 and options.device.type == "cuda":
        tile = {"BLOCK_M": case.block, "BLOCK_N": case.block}
    return lambda: compiled(*tensors, block_mask=mask, kernel_options=tile)


PEERS = {"sdpa": sdpa, "flex": flex, "math": math}


# ---- what is measured ----


def rounding(case, tensors, keys):
    """How far two right outputs may be apart. An output is a mean of v. Either side rounds weights and output to the
    type. Scores and sums are float32, where each side's error is at most that of as many terms."""
    q, k, v = (tensor.float() for tensor in tensors)
    dim = q.shape[3]
    score = dim**0.5 * q.norm(dim=3).max() * k.norm(dim=3).max()
    single = torch.finfo(torch.float32).eps
    return (v.abs().max() * (4 * torch.finfo(tensors[0].dtype).eps + single * (2 * score + keys))).item()


def seconds(device, work, least):
    """The time of one run, out of as many as take `least` seconds."""
    runs = 1
    while True:
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(runs):
                work()
            end.record()
            end.synchronize()
            total = 1e-3 * begin.elapsed_time(end)
        else:
            start = time.perf_counter()
            for _ in range(runs):
                work()
            total = time.perf_counter() - start
        if total >= least:
            return total / runs
        runs = max(runs + 1, int(1.2 * runs * least / max(total, 1e-6)))


def captured(work):
    """The same as a CUDA graph, so that what the host does for a run is not in the time. `work` has to outlive it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def take_turns(device, works, options):
    """Each one's times, turn by turn. Every other turn goes backwards."""
    times = {name: [] for name in works}
    for turn in range(options.turns):
        for name in list(works)[:: -1 if turn % 2 else 1]:
            times[name].append(seconds(device, works[name], options.min_time))
    return times


def prepared(name, case, tensors, options, result):
    """A peer's call and its difference from ours; None and the reason where there is none."""
    try:
        work = PEERS[name](case, tensors, options)
        return work, (work().float() - result.float()).abs().max().item()
    except torch.OutOfMemoryError:
        return None, "no memory"
    except Exception as error:  # of a compiler's, the first line has the cause
        return None, f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def measure(case, dim, options):
    """Prints a line of the table. False: a difference is too large."""
    torch.manual_seed(1)
    tensors = [torch.randn(1, options.heads, case.rows, dim, device=options.device).to(options.dtype) for _ in range(3)]
    seen = dense_mask(case, options.device).sum(3)
    allowed = rounding(case, tensors, seen.max())
    plan, work = ours(case, tensors, case.plan)
    result = in_pytorch_s_order(case, work())
    works, differences, notes = {"ours": work}, {}, []
    for name in options.peers:
        work, found = prepared(name, case, tensors, options, result)
        if work is None:
            notes.append(f"  {name}: {found}")
            continue
        works[name], differences[name] = work, found
        if not found <= allowed:
            notes.append(f"  {name}: differs by {found:.2g}, where rounding explains {allowed:.2g}")
    _, works["dense"] = ours(dataclasses.replace(case, packed=False, order=None), tensors, {})
    works["dense"]()
    runs = {name: captured(work) for name, work in works.items()} if options.graphs else works
    times = take_turns(options.device, runs, options)
    cells = [f"{case.name:<26}{case.rows:>6}{dim:>5}{100 * seen.float().mean().item() / case.rows:>7.2f}"]
    cells += [f"{1e3 * statistics.median(times[name]):>11.3f}" for name in ("ours", "dense")]
    for name in options.peers:
        if name not in differences:
            cells.append(f"{'-':>11}{'-':>8}{'-':>10}")
            continue
        ratio = statistics.median(theirs / our for theirs, our in zip(times[name], times["ours"]))
        cells.append(f"{1e3 * statistics.median(times[name]):>11.3f}{ratio:>8.2f}{differences[name]:>10.2g}")
    print("".join(cells) + f"  {plan.info['kernel']} {plan.info['block_q']}x{plan.info['block_kv']}")
    print("".join(f"{note}\n" for note in notes), end="", flush=True)
    return all(found <= allowed for found in differences.values())


def introduce(options):
    on = torch.cuda.get_device_name() if options.device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    threads = os.environ.get("FASTATTN_THREADS", "")
    print(
        f"fastattn {fastattn.__version__}{threads and f', {threads} threads'}; PyTorch {torch.__version__}, {on}; "
        f"{options.dtype}, 1 x {options.heads} heads, {options.turns} turns, milliseconds"
    )
    peers = "".join(f"{name:>11}{'ratio':>8}{'differ':>10}" for name in options.peers)
    print(f"{'case':<26}{'rows':>6}{'dim':>5}{'seen %':>7}{'ours':>11}{'dense':>11}{peers}  kernel", flush=True)


def names_of(known):
    def read(text):
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return read


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--dtype", type=lambda name: getattr(torch, name), help="default float32, on cuda float16")
    parser.add_argument("--cases", type=names_of(CASES), help=f"of {','.join(CASES)}; default window, on cuda all")
    parser.add_argument("--peers", type=names_of(PEERS), help="default sdpa, on cuda flex,math")
    parser.add_argument("--dims", type=lambda text: [int(dim) for dim in text.split(",")], default=[64, 128])
    parser.add_argument("--heads", type=int, help="default 2, on cuda 16")
    parser.add_argument("--length", type=int, default=16384, help="rows, and keys, but of a grid")
    parser.add_argument("--window", type=int, help="keys, the row's own with them; default 512, on cuda 1024")
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--grid", type=int, default=64, help=f"tokens of either axis, a multiple of {PATCH}")
    parser.add_argument("--kernel-size", type=int, default=13, help="tokens of a neighbourhood's axis")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds of a turn")
    parser.add_argument("--graphs", action="store_true", help="CUDA graphs are timed: without the host's part of a run")
    parser.add_argument("--max-autotune", action="store_true", help="FlexAttention's kernels are tuned where they run")
    options = parser.parse_args()
    if options.grid < 1 or options.grid % PATCH:
        parser.error(f"--grid is {options.grid}, expected a multiple of {PATCH}")
    if options.device.type == "cuda" and not torch.cuda.is_available():
        print(f"PyTorch {torch.__version__} finds no CUDA device: this is the CPU's case")
        options.device, options.dtype, options.cases, options.peers = torch.device("cpu"), None, None, None
    if options.device.type != "cuda":
        options.graphs = False
    cuda = options.device.type == "cuda"
    options.dtype = options.dtype or (torch.float16 if cuda else torch.float32)
    options.cases = options.cases or (list(CASES) if cuda else ["window"])
    options.peers = options.peers or (["flex", "math"] if cuda else ["sdpa"])
    options.heads = options.heads or (16 if cuda else 2)
    options.window = options.window or (1024 if cuda else 512)
    return options


def main():
    options = arguments()
    introduce(options)
    good = True
    with torch.no_grad():
        for name in options.cases:
            torch.manual_seed(0)
            case = CASES[name](options)
            for dim in options.dims:
                try:
                    good &= measure(case, dim, options)
                except (fastattn.Error, RuntimeError) as error:  # PyTorch's are RuntimeErrors
                    print(f"{case.name}, dim {dim}: {type(error).__name__}: {error}", flush=True)
                    good = False
                if options.device.type == "cuda":
                    torch.cuda.empty_cache()
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
