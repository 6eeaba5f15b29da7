#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Breaks the kernels on purpose, one way at a time, and expects conformance, or a test of tests/gpu, to fail each time.

Usage: tests/scripts/mutations.py [--backends NAME,NAME...] [--built FOLDER] [MUTATION...]

Run it from the repository root; it works in a temporary copy. The backends are openmp, opencl and vulkan; openmp is the
default. On the others only mutations of core/portable run. A build of this source in FOLDER spares one without a
mutation.
"""
import argparse
import itertools
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

TILE = "backends/openmp/simd_tile.c"
ROWS = "backends/openmp/simd_rows.c"
CHUNK = "backends/openmp/simd_chunk.c"
PANEL = "backends/openmp/simd_panel.c"
BF16 = "backends/openmp/simd/tile_bf16.h"

# name: file, text as it stands, text that breaks it
MUTATIONS = {
    "dropped rescale": ("backends/openmp/simd/micro.h", "v_fma(v_load(at), rescale[n], acc[d][n])", "v_add(v_load(at), acc[d][n])"),
    "sum not rescaled": (TILE, "v_mul(v_load(sums + n * VL), rescale[n])", "v_load(sums + n * VL)"),
    "no guard for hidden values": (TILE, "block.cleaned = (masked || run->keep) && !rows_finite", "block.cleaned = false && !rows_finite"),
    "values in keys that have scales": (TILE, "V_IN_K) && !(features & FA_FEATURE_SCALES)", "V_IN_K)"),
    "hidden values left in keys": (TILE, "in_k && !block.cleaned && KEYS_AS_VALUES", "in_k && KEYS_AS_VALUES"),
    "v in k begins elsewhere": ("core/attention/run.c", "binding->offset[FA_V] = binding->offset[FA_K];", ""),
    "partial tile taken for full": (TILE, "tile == FA_CLASS_PARTIAL || block->cut, begin", "block->cut, begin"),
    "sink forgotten": (PANEL, "p->sinks && item->part_row < 0", "0 && p->sinks && item->part_row < 0"),
    "softcap without its factor": ("backends/openmp/simd/panel.h", "v_mul(v_tanh(y), v_set1(s->cap))", "v_tanh(y)"),
    "few rows: output not rescaled": (ROWS, "v_fma(v_load(s->o + d), factor, v_load(s->part + d))", "v_add(v_load(s->o + d), v_load(s->part + d))"),
    "few rows: last keys dropped": ("backends/openmp/simd/micro_rows.h", "for (; j < keys; j++)\n        score_parts", "for (; 0;)\n        score_parts"),
    "few rows: last row of a chunk dropped": (CHUNK, "for (; i < c->count; i++)\n        add_row", "for (; 0;)\n        add_row"),
    "few rows: half a block dropped": (CHUNK, "const bool whole = (b + 1) * BLOCK <= c->dim;", "const bool whole = (b + 1) * BLOCK < c->dim;"),
    "few rows: scaling of the next row": (CHUNK, "v_set1(c->scale[b * FEW + i])", "v_set1(c->scale[b * FEW + (i ^ 1)])"),
    "bf16: odd key weighed as the even one": (BF16, "v_pair(even, odd)", "v_pair(even, even)"),
    "bf16: last odd row of V dropped": (BF16, "even + 1 < rows", "even + 2 < rows"),
    "bf16: last dims of q dropped": (BF16, "load_32(from, dim - 2 * pair)", "load_32(from, dim - 2 * pair - 1)"),
    "AMX: one tile of four lost": ("backends/openmp/simd/pairs_amx.h", "_tile_dpbf16ps(3, 5, 7);", ";"),
    "AMX: product not added": ("backends/openmp/simd/pairs_amx.h", "        _tile_loadd(0, c, line);", "        _tile_zero(0);"),
    "merge without weights": ("core/attention/merge.c", "fa_part_weight(part, max, p->unit) * closed.factor", "closed.factor"),
    "codes of the other half": ("core/portable/codes.h", "((e & 16) != 0 ? 4u : 0u)", "((e & 16) != 0 ? 0u : 4u)"),
    "fifth bits of the next elements": ("core/portable/codes.h", ">> FA_UINT(e));", ">> (FA_UINT(e) ^ 4u));"),
    "exp2 one term short": ("backends/openmp/simd/vec_math.h", "p = v_fma(p, f, v_set1(9.618082557e-03f));", ""),
}


PORTABLE = "core/portable/"
# Likewise, and the groups of cases, or the test, that must notice. False: openmp has its own way of doing it.
PORTABLE_MUTATIONS = {
    "mask one key late": (PORTABLE + "mask.h", "m.diagonal + i + m.right;", "m.diagonal + i + m.right + 1;", "causal-br/f32*", True),
    "interval of the next row": (PORTABLE + "row.h", "r.end = fa_mask_end(mask, r.position);", "r.end = fa_mask_end(mask, r.position + 1);", "causal-br/f32*", True),
    "prefix not seen": (PORTABLE + "row.h", "key < mask.prefix ||", "", "causal-tl-prefix7/*", False),
    "every other block passed over": (PORTABLE + "walk.h", "key += keys;", "key += 2 * keys;", "long-*window*", True),
    "sink without its weight": (PORTABLE + "softmax.h", "s.sum * kept + fa_weight(sink, base, FA_LOG2E)", "s.sum * kept", "sinks/*", True),
    "parts without their sums": (PORTABLE + "softmax.h", "part.sum * fa_weight(part.max, max, unit)", "fa_weight(part.max, max, unit)", "splits3*", True),
    "states without their weights": (PORTABLE + "merge.h", "fa_part_weight(part, m.max, FA_LOG2E) * m.closed.factor", "m.closed.factor", "merge/f32*", True),
    "slope of the other sign": (PORTABLE + "score.h", "x - slope * FA_ABS", "x + slope * FA_ABS", "alibi/*", False),
    "bias without its factor": (PORTABLE + "work.h", "bias *= FA_FLOAT_AT(w, FA_PARAM(w, factors_at) + r.head);", ";", "bias-factors-11qk*", False),
    "block hidden by its first row": (PORTABLE + "keep.h", "hidden && n < rows * words", "hidden && n < words", "keep-runs*", True),
    "bits beyond a block looked at": (PORTABLE + "keep.h", "key_end - 1 + shift;", "key_end - 3 + shift;", "keep-runs*", True),
    "keep turned round": (PORTABLE + "keep.h", "FA_EXTRA_AT(w, keep, r, key)) != 0", "FA_EXTRA_AT(w, keep, r, key)) == 0", "keep-11qk/f32*", False),
    "lists of the first rows alone": (PORTABLE + "lists.h", "n < lists * blocks", "n < 1", "list-7x5*", True),
    "lists never cut": (PORTABLE + "lists.h", "cuts = lacks != 0u;", "cuts = false;", "list-7x5*", True),
    "a list's next block passed over": (PORTABLE + "lists.h", "found > last", "found >= last", "list-64x64*/f32*", True),
    "k-means: the last of the nearest": (PORTABLE + "cluster.h", "distance < least", "distance <= least", "test_clusters", True),
    "k-means: empty clusters at 0": (PORTABLE + "cluster.h", "if (count > 0 && d + i < end)", "if (d + i < end)", "test_clusters", True),
    "lists from the device: the last block lost": (PORTABLE + "relist.h", "n < last", "n + 1 < last", "test_lists", True),
    "a key that a list has twice counts twice": (PORTABLE + "key_list.h", "t, list, i))) == number)", "t, list, i))) == -number)", "test_key_lists", True),
    "pages of the first list's head": (PORTABLE + "key_list.h", "head * FA_KEY_LIST_IS(t, head_step)", "0 * head", "test_key_lists", True),
    "a row behind the last gathered": (PORTABLE + "gather.h", "listed < FA_GATHER_IS(t, limit)", "listed <= FA_GATHER_IS(t, limit)", "test_permute", True),
    "half a word of a row lost": (PORTABLE + "gather.h", "<< 16;", "<< 15;", "test_permute", True),
    "numbers of no bucket in the first": (PORTABLE + "sort.h", "key > last ? last : key", "key > last ? 0 : key", "test_permute", True),
    "signs taken for a bucket": (PORTABLE + "hash.h", "rank ^= rank >> FA_UINT(shift);", ";", "test_permute", True),
    "gates: of equal scores the last": (PORTABLE + "select.h", "better || key > next;", "better || key >= next;", "test_select", True),
    "choices: rows that others have": (PORTABLE + "select.h", "n < count; n += items)\n        fa_select_take_few", "n < count; n += items + 1)\n        fa_select_take_few", "test_select", True),
    "choices: a digit too low": (PORTABLE + "select.h", "if (!fa_select_less(s, p.rest))", "if (fa_select_less(p.rest, s))", "test_select", True),
    "scores: dims beyond the last": (PORTABLE + "row_scores.h", "d < FA_ROW_SCORES_IS(t, dim); d += FA_TILE_DIMS", "d + FA_TILE_DIMS < FA_ROW_SCORES_IS(t, dim); d += FA_TILE_DIMS", "test_select", True),
    "neighbourhoods never cut": (PORTABLE + "near.h", "cuts = !fa_near_holds(", "cuts = false && !fa_near_holds(", "neighbour-2d/f32*", True),
    "the last of a neighbourhood lost": (PORTABLE + "near.h", "((end | guards) - last)", "((end | guards) - last - 1u)", "neighbour-1d-causal-dilation2/*", True),
    "neighbourhoods over the keys behind": (PORTABLE + "near.h", "number >= FA_PARAM(w, near_tokens)", "number > FA_PARAM(w, near_tokens)", "neighbour-1d-dilation3-extra/*", True),
    "bf16 cut off": (PORTABLE + "format.h", "(bits + 0x7fffu + (bits >> 16 & 1u)) >> 16", "bits >> 16", "causal-br/*bf16*", True),
    "one page more than the pool has": (PORTABLE + "scales.h", "page >= 0 && page < pages", "page >= 0 && page <= pages", "lost-pages24/f16/*", False),
    "status of the next entry": (PORTABLE + "pages.h", "return e + 1;", "return e + 2;", "lost-pages24/f16/*", False),
    "page of the next key": (PORTABLE + "keys.h", "? number >> shift", "? (number + 1) >> shift", "pages16/f32*", False),
    "first key forgotten": (PORTABLE + "keys.h", "FA_PAGE_SEQUENCE(w, first) + key, size", "key, size", "first-pages12*", False),
    "items begin with the first key": (PORTABLE + "item.h", "w.key_begin = key_begin;", "w.key_begin = 0;", "splits3*", False),
    "scale of the next key": (PORTABLE + "keys.h", "+ found.within;", "+ found.within + 1;", "scales-token/*", False),
    "tiles: the mask of the next key": (PORTABLE + "tile.h", "+ 4 * x + n % 4;", "+ 4 * x + n % 4 + 1;", "causal-br/f32*", False),
    "tiles: weights of other keys": (PORTABLE + "tile.h", "+ lane * 4 + group % 4;", "+ lane * 4 + 3 - group % 4;", "causal-br/f32*", False),
    "tiles: hidden values as they are": (PORTABLE + "tile.h", "visible ? value : FA_FINITE_PART(value)", "value", "hidden-inf-keep-b11k/*", False),
    "tiles: keys staged over rows of q": (PORTABLE + "stage.h", "STAGE_ROWS, LINE_P(FA_DEPTH))", "STAGE_ROWS, LINE_P(FA_DEPTH / 2))", "causal-br/f32*", False),
    "parts of lengths on the device begin early": (PORTABLE + "fill.h", "FA_MIN(part, rest);", "0;", "lengths-device*", True),
    "values of all segments by one factor": (PORTABLE + "merge.h", "FA_INDEX(part) * FA_WIDE(FA_MERGE_IS(t, factor_part_stride))", "FA_INDEX(0 * part) * FA_WIDE(FA_MERGE_IS(t, factor_part_stride))", "test_segments", True),
    "mixes: the last run of a list alone": (PORTABLE + "mix.h", "total[i] += part[i];", "total[i] = part[i];", "test_mix", True),
    "mean of a key is its sum": (PORTABLE + "saliency.h", "sum / FA_FLOAT(seen)", "sum", "test_saliency", True),
    "a run's rows taken for its keys": (PORTABLE + "saliency.h", "s.rows = FA_SALIENCY_WORD(t, n, FA_SEQUENCE_ROWS_WORD);", "s.rows = FA_SALIENCY_WORD(t, n, FA_SEQUENCE_COUNT_WORD);", "test_saliency", True),
    "slopes of the first sequence": (PORTABLE + "shift.h", "+ sequence * FA_SHIFT_IS(t, slope_stride)", "+ 0 * sequence", "test_cascades", True),
    "probes that do not see a key count": (PORTABLE + "saliency.h", "if (!fa_work_shows(w, r, key))\n                continue;", "", "test_saliency", True),
    "codes cut off": (PORTABLE + "encode.h", "FA_FLOAT(whole) >= 0.5f ? 1 : 0", "FA_FLOAT(whole) >= 0.5f ? 0 : 0", "test_append", True),
    "range of a group without its least": (PORTABLE + "encode.h", "r.least = x < r.least ? x : r.least;", "", "test_append_scales", True),
    "rows turned back": (PORTABLE + "rotary.h", "(first ? -other : other)", "(first ? other : -other)", "test_append", False),
    "codes of another centre": (PORTABLE + "decode.h", "(1024.0f + ", "(1023.0f + ", "format/*q4_0*", False),
    "blocks without their offsets": (PORTABLE + "blocks.h", "? FA_SCALED4(x, s.scale, s.offset) :", "? x * s.scale :", "format/*q4_1*", False),
    "blocks: codes beside their centre": (PORTABLE + "blocks.h", "            FA_BYTE_ZERO(type);", "            0.0f;", "format/*q8_0*", False),
    "pieces: elements of the other word": (PORTABLE + "pieces.h", "halves ? i & 1 : i,", "halves ? i & 1 : i ^ 1,", "format/*q8_0*", False),
    "pieces: scale of the word beside it": (PORTABLE + "pieces.h", ": x.FA_P5 >> shift", ": x.FA_P5 >> (16u - shift)", "format/*q8_0*", False),
    "pruned rows: bits of this word alone": (PORTABLE + "bitmap.h", "w < e >> 5", "w < 0", "format-bitmap*/f32*", True),
    "pruned rows: the first dim in the highest bit": (PORTABLE + "bitmap.h", "word >> FA_UINT((e & 31) + i)", "word >> FA_UINT(31 - (e & 31) - i)", "format-bitmap*/f32*", True),
    "pruned rows: more than there is room for": (PORTABLE + "bitmap.h", "at < bytes", "at < bytes + 8", "format-bitmap*/f32*", True),
    "pruned rows: one word less of bits": (PORTABLE + "format.h", "(((dims) + 31) / 32 * 4)", "((dims) / 32 * 4)", "format-bitmap*splits3-causal-br/f32*", True),
    "pruned rows: those alike are dropped": (PORTABLE + "prune.h", "prune_key > prune_least || prune_alike", "prune_key > prune_least", "test_append", True),
    "pruned rows: one kept too few": (PORTABLE + "prune.h", "prune_room > 0", "prune_room > 1", "test_append", True),
    "pruned rows: magnitudes with their signs": (PORTABLE + "prune.h", "bits & 0x7fffffffu", "bits", "test_append", True),
    "latent rows: scale of other dims": (PORTABLE + "decode.h", "/ FA_MLA_GROUP);", "/ FA_MLA_GROUP ^ 1);", "format-latent-row/f32*", True),
}
# A build takes a third of the time, and the cases run are few.
QUICK = ["-Dexamples=disabled", "-Ddocs=disabled", "-Dpython=disabled", "-Doptimization=0"]
COMMAND = "tools/fastattn"
PARTS = {"openmp": "*-[tr]*", "opencl": "tile16", "vulkan": "tile16"}  # kernels that are looked at


def run(command, cwd):
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False)


def is_test(group):
    return group.startswith("test_")


def program(group):
    """What judges: a test of tests/gpu, or the command."""
    return f"tests/unit/{group}" if is_test(group) else COMMAND


def build(tree, targets):
    built = run(["ninja", "-C", "build", *sorted(set(targets))], tree)
    if built.returncode != 0:
        sys.exit("does not build:\n" + built.stdout[-2000:])


def judged(built, backend, group):
    """The status and the last line of what judges, of a build."""
    command = [f"{built}/{program(group)}"]
    if is_test(group):
        command += [backend] + (["few"] if backend != "openmp" and "append" in group else [])
    else:
        command += ["conform", "--backend", backend, "--filter", f"{PARTS[backend]}:{group}"]
    result = run(command, built)
    if is_test(group):
        told = next((line for line in result.stdout.splitlines() if "Checks:" in line), "no checks")
        return result.returncode, f"{group}: {told}"
    if result.returncode not in (0, 1) or "cases on" not in result.stdout:
        sys.exit(f"{' '.join(command)}: {result.stderr or result.stdout}")
    return result.returncode, result.stdout.strip().splitlines()[-1]


def left_out(folder, names):
    """What a copy of the tree does without: build folders, which lie at its top."""
    return [name for name in names if name == ".git" or folder == "." and name.startswith("build")]


def chosen(names, backends):
    """(name, backend, file, text, broken text, groups) of each trial."""
    everything = {name: (*m, "*", True) for name, m in MUTATIONS.items()} | PORTABLE_MUTATIONS
    for name in names:
        if name not in everything:
            sys.exit(f"{name!r} is none of: " + ", ".join(everything))
    for name, (path, old, new, group, on_openmp) in everything.items():
        if old not in pathlib.Path(path).read_text(encoding="utf-8"):
            sys.exit(f"{name}: {path} has no {old!r}")
        for backend in backends:
            if (not names or name in names) and (on_openmp if backend == "openmp" else name in PORTABLE_MUTATIONS):
                yield name, backend, path, old, new, group


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--backends", default="openmp", type=lambda text: text.split(","))
    parser.add_argument("--built", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("names", nargs="*")
    wanted = parser.parse_args()
    for backend in wanted.backends:
        if backend not in PARTS:
            sys.exit(f"--backends: {backend!r} is none of: " + ", ".join(PARTS))
    trials = list(chosen(wanted.names, wanted.backends))
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder) / "tree"
        shutil.copytree(".", tree, ignore=left_out)
        options = [f"-D{name}={'enabled' if name in wanted.backends else 'disabled'}" for name in ("cuda", "opencl", "vulkan")]
        if all(name in PORTABLE_MUTATIONS for name in wanted.names) and wanted.names:
            options.append("-Disas=avx2,neon")  # all include the headers in the same way
        tests = "enabled" if any(is_test(trial[5]) for trial in trials) else "disabled"
        if run(["meson", "setup", "build", *QUICK, f"-Dtests={tests}", *options], tree).returncode != 0:
            sys.exit("meson setup failed")
        built = wanted.built or tree / "build"
        if not wanted.built:
            build(tree, [COMMAND] + [program(trial[5]) for trial in trials])
        devices = run([f"{built}/{COMMAND}", "devices"], built).stdout
        for backend in wanted.backends:
            if not re.search(rf"^{backend}:0 +yes", devices, re.M):
                print(f"{backend}: left out, no device is here", flush=True)
                trials = [trial for trial in trials if trial[1] != backend]
        for backend, group in sorted({(trial[1], trial[5]) for trial in trials}):
            status, line = judged(built, backend, group)
            print(f"unchanged, {backend}: {line}", flush=True)
            if status != 0 or line.startswith("0 passed"):
                sys.exit(f"{backend}, {group}: does not pass without a mutation")
        for name, same in itertools.groupby(trials, key=lambda trial: trial[0]):
            same = list(same)
            path, old, new = same[0][2:5]
            text = (tree / path).read_text(encoding="utf-8")
            (tree / path).write_text(text.replace(old, new, 1), encoding="utf-8")
            for _, backend, *_, group in same:  # one build for all of them
                build(tree, [program(group)])
                status, line = judged(tree / "build", backend, group)
                survivors += status == 0
                print(f"{name}, {backend}: {line}{'  SURVIVED' if status == 0 else ''}", flush=True)
            (tree / path).write_text(text, encoding="utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
