#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks the kernels on purpose, one way at a time, and expects conformance to fail each time.

Usage: tests/scripts/mutations.py [NAME...]     (from the repository root; works in a temporary copy)
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

TILE = "backends/openmp/simd_tile.c"
ROWS = "backends/openmp/simd_rows.c"
PANEL = "backends/openmp/simd_panel.c"
BF16 = "backends/openmp/simd/tile_bf16.h"

# name: file, text as it stands, text that breaks it
MUTATIONS = {
    "dropped rescale": ("backends/openmp/simd/micro.h", "v_fma(v_load(at), rescale[n], acc[d][n])", "v_add(v_load(at), acc[d][n])"),
    "sum not rescaled": (TILE, "v_mul(v_load(sums + n * VL), rescale[n])", "v_load(sums + n * VL)"),
    "no guard for hidden values": (TILE, "block.cleaned = hides && !rows_finite", "block.cleaned = false && !rows_finite"),
    "mask one key late": ("core/portable/mask.h", "m.diagonal + i + m.right;", "m.diagonal + i + m.right + 1;"),
    "partial tile taken for full": (TILE, "panel, block, tile == FA_CLASS_PARTIAL, begin", "panel, block, false, begin"),
    "sink forgotten": (PANEL, "p->sinks && item->part_row < 0", "0 && p->sinks && item->part_row < 0"),
    "softcap without its factor": ("backends/openmp/simd/panel.h", "v_mul(v_tanh(y), v_set1(s->cap))", "v_tanh(y)"),
    "few rows: output not rescaled": (ROWS, "v_fma(v_load(s->o + d), factor, v_load(s->part + d))", "v_add(v_load(s->o + d), v_load(s->part + d))"),
    "few rows: last keys dropped": (ROWS, "for (; j < keys; j++)\n        score_parts", "for (; 0;)\n        score_parts"),
    "bf16: odd key weighed as the even one": (BF16, "v_pair(even, odd)", "v_pair(even, even)"),
    "bf16: last odd row of V dropped": (BF16, "even + 1 < rows", "even + 2 < rows"),
    "bf16: last dims of q dropped": (BF16, "load_32(from, dim - 2 * pair)", "load_32(from, dim - 2 * pair - 1)"),
    "AMX: one tile of four lost": ("backends/openmp/simd/pairs_amx.h", "_tile_dpbf16ps(3, 5, 7);", ";"),
    "AMX: product not added": ("backends/openmp/simd/pairs_amx.h", "        _tile_loadd(0, c, line);", "        _tile_zero(0);"),
    "merge without weights": ("core/attention/merge.c", "fa_part_weight(part, max, p->unit) * closed.factor", "closed.factor"),
    "parts without their sums": ("core/portable/softmax.h", "part.sum * fa_weight(part.max, max, unit)", "fa_weight(part.max, max, unit)"),
    "exp2 one term short": ("backends/openmp/simd/vec_math.h", "p = v_fma(p, f, v_set1(9.618082557e-03f));", ""),
}


def run(command, cwd):
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)


def conformance(tree):
    """The last line of conformance on a fresh build of `tree`."""
    built = run(["ninja", "-C", "build"], tree)
    if built.returncode != 0:
        sys.exit("does not build:\n" + built.stdout[-2000:])
    result = run(["build/tools/fastattn", "conform", "--backend", "openmp", "--filter", "*-[tr]*:*"], tree)
    return result.returncode, (result.stdout.strip() or "no output").splitlines()[-1]


def check_texts():
    for name, (path, old, _) in MUTATIONS.items():
        if old not in pathlib.Path(path).read_text():
            sys.exit(f"{name}: {path} has no {old!r}")


def main():
    check_texts()
    wanted = sys.argv[1:] or list(MUTATIONS)
    unknown = [name for name in wanted if name not in MUTATIONS]
    if unknown:
        sys.exit(f"{unknown[0]!r} is none of: " + ", ".join(MUTATIONS))
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        shutil.copytree(".", tree, ignore=shutil.ignore_patterns("build*", ".git"))
        others = [f"-D{backend}=disabled" for backend in ("cuda", "opencl", "vulkan")]
        if run(["meson", "setup", "build", "-Dtests=disabled", *others], tree).returncode != 0:
            sys.exit("meson setup failed")
        status, line = conformance(tree)
        print(f"unchanged: {line}", flush=True)
        if status != 0:
            sys.exit("conformance fails without a mutation")
        for name in wanted:
            path, old, new = MUTATIONS[name]
            text = (tree / path).read_text()
            (tree / path).write_text(text.replace(old, new, 1))
            status, line = conformance(tree)
            (tree / path).write_text(text)
            survivors += status == 0
            print(f"{name}: {line}{'  SURVIVED' if status == 0 else ''}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
