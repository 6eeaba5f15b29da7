#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What two levels of tiles gain on tensor cores: the kernels as they are, in turn with two changes made on purpose.

    cuda_tiling.py build FOLDER [--archs 90] [--nvcc NVCC]     builds `fastattn` three times; needs no GPU
    cuda_tiling.py run FOLDER [--turns 3] [--min-time 0.2]     times them, and prints medians and ratios

"one tile a block" makes level-1 blocks no larger than a level-2 tile of scores; "rescaled at once" gives each tile with a
greater score a new base, instead of when it exceeds the old one by 2^8. Both compute the same.
"""
import argparse
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE, BASE = "backends/cuda/kernels.inc", "shaders/cuda/base.h"
KERNELS = ("ampere64-wide", "ampere128", "turing64", "turing128")
SHAPES = {"ampere64-wide": (64, 2048, 8192), "ampere128": (128, 2048, 8192), "turing64": (64, 8192), "turing128": (128, 8192)}
LINE = re.compile(r'^([A-Z_]+\("([\w-]+)", \d+, \d+, \d+, )(\d+), (\d+)(.*)$')


def replace(tree, path, old, new):
    text = (tree / path).read_text(encoding="utf-8")
    if old not in text:
        sys.exit(f"{path} has no {old!r}")
    (tree / path).write_text(text.replace(old, new, 1), encoding="utf-8")


def only_kernels(tree, one_tile):
    """Leaves the kernels that are timed and what they need, so that little is compiled."""
    kept = []
    for line in (tree / TABLE).read_text(encoding="utf-8").splitlines():
        found = LINE.match(line)
        if found and found[2] in KERNELS:
            kept.append(f"{found[1]}{found[4] if one_tile else found[3]}, {found[4]}{found[5]}")
        elif not re.match(r"^[A-Z_]+\(", line) or line.startswith("MERGE("):
            kept.append(line)
    (tree / TABLE).write_text("\n".join(kept) + "\n", encoding="utf-8")


def rescale_at_once(tree):
    replace(tree, BASE, "FA_BASE_HEADROOM 8.0f", "FA_BASE_HEADROOM 0.0f")


# name: what is changed beyond the choice of kernels, and whether blocks are of one tile
VARIANTS = {
    "as it is": (lambda tree: None, False),
    "one tile a block": (lambda tree: None, True),
    "rescaled at once": (rescale_at_once, False),
}


def build(options):
    for name, (change, one_tile) in VARIANTS.items():
        tree = options.folder / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(ROOT, tree, ignore=lambda folder, names: [
            name for name in names if pathlib.Path(folder) == ROOT and (name.startswith("build") or name.startswith("."))])
        only_kernels(tree, one_tile)
        change(tree)
        setup = ["meson", "setup", "build", f"-Dnvcc_archs={options.archs}", "-Dtests=disabled", "-Dopencl=disabled",
                 "-Dvulkan=disabled", *([f"-Dnvcc={options.nvcc}"] if options.nvcc else [])]
        for command in (setup, ["ninja", "-C", "build", "tools/fastattn"]):
            subprocess.run(command, cwd=tree, check=True, stdout=subprocess.DEVNULL)
        shutil.copy(tree / "build/tools/fastattn", options.folder / name.replace(" ", "-"))
        shutil.rmtree(tree)


def milliseconds(options, name, kernel, shape, causal):
    """The median that one process prints."""
    command = [options.folder.resolve() / name.replace(" ", "-"), "bench", "--backend", "cuda", "--no-standard", "--kernel", kernel,
               "--shape", shape, "--dtype", "f16", "--min-time", str(options.min_time), *(["--causal"] if causal else [])]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("f16")]
    if done.returncode != 0 or len(lines) != 1:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return float(lines[0][6])


def run(options):
    print(f"{'kernel':14} {'shape':18} {'mask':6} " + " ".join(f"{name + ', ms':>22} {'ratio':>6}" for name in VARIANTS))
    for kernel in KERNELS:
        dim, *lengths = SHAPES[kernel]
        for length in lengths:
            for causal in (False, True):
                shape = f"B2,H16,S{length},D{dim}"
                times = {name: [] for name in VARIANTS}
                for _ in range(options.turns):
                    for name in VARIANTS:
                        times[name].append(milliseconds(options, name, kernel, shape, causal))
                medians = [statistics.median(times[name]) for name in VARIANTS]
                print(f"{kernel:14} {shape:18} {'causal' if causal else 'full':6} " +
                      " ".join(f"{ms:22.4f} {ms / medians[0]:6.2f}" for ms in medians), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["build", "run"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--archs", default="90")
    parser.add_argument("--nvcc")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--min-time", type=float, default=0.2)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    (build if options.what == "build" else run)(options)


if __name__ == "__main__":
    main()
