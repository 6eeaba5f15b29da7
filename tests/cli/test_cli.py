#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the `fastattn` command, whose path is in FASTATTN_COMMAND."""

import json
import math
import os
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import COMMAND, Case, ComputingCase, address_space, call, can_run, devices  # noqa: E402
from tensors import Tensor, attention, noise, npy_bytes, read_npy, write_npy, write_safetensors  # noqa: E402

DATA = Path(__file__).resolve().parent.parent / "data"
COMMANDS = ("devices", "run", "plan", "conform", "bench")
BEFORE = b"what was here before"


class Frame(Case):
    def test_help(self):
        self.expect(0, "--help", mentions=("Usage: fastattn", *COMMANDS, "Exit codes"))

    def test_version(self):
        self.assertRegex(self.expect(0, "--version").stdout, r"^fastattn \d+\.\d+\.\d+\n$")

    def test_without_command(self):
        done = call()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("Usage: fastattn", done.stderr)

    def test_unknown_command(self):
        self.usage("rnu", mentions=("'rnu'", *COMMANDS))
        self.usage("--check", mentions=("'--check'",))

    def test_help_of_each_command(self):
        for command in COMMANDS:
            with self.subTest(command):
                self.expect(
                    0,
                    command,
                    "--help",
                    mentions=(f"Usage: fastattn {command}", "Examples:", "Options:", "--help", "Exit codes:"),
                )

    def test_usage_errors_of_each_command(self):
        for command in COMMANDS:
            with self.subTest(command):
                self.usage(command, "--no-such-option", mentions=(command, "--no-such-option"))
                self.usage(command, "stray", mentions=("'stray'",))

    def test_full_standard_output(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full here")
        for arguments in (["--help"], ["--version"], ["devices"], ["devices", "--json"], ["plan", "--help"]):
            with self.subTest(arguments), open("/dev/full", "w", encoding="utf-8") as full:
                done = call(*arguments, stdout=full)
                self.assertEqual(done.returncode, 1, arguments)
                self.assertIn("standard output", done.stderr)


class Devices(Case):
    def test_table_and_json_agree(self):
        table = self.expect(0, "devices").stdout
        listed = devices()
        self.assertTrue(listed)
        for device in listed:
            self.assertIn(f"{device['backend']}:{device['index']}", table)
            self.assertIn(device["name"], table)
            self.assertEqual(device["available"], device["reason"] == "")
            self.assertIn(device["reason"], table)
            self.assertEqual(device["available"], bool(device["kernels"]))
            for kernel in device["kernels"]:
                self.assertIn(kernel, table)

    def test_every_backend_is_listed(self):
        """Also those that were left out of this build, with what they lacked."""
        self.assertEqual(
            {device["backend"] for device in devices()}, {"openmp", "cuda", "opencl", "vulkan", "null"}
        )


class Backends(Case):
    """Names that do not exist, for each command that takes one."""

    ARGUMENTS = {
        "plan": ["--shape", "B1,H1,S16,D16"],
        "run": [*(x for name in "qkv" for x in (f"--{name}", DATA / f"{name}.npy")), "--check"],
        "conform": [],
        "bench": ["--shape", "B1,H1,S16,D16"],
    }

    def test_unknown_backend_lists_what_exists(self):
        names = {device["backend"] for device in devices()}
        for command, arguments in self.ARGUMENTS.items():
            with self.subTest(command):
                self.failure(command, *arguments, "--backend", "no-such", mentions=("no-such", *names))

    def test_missing_device(self):
        first = devices()[0]["backend"]
        for command, arguments in self.ARGUMENTS.items():
            with self.subTest(command):
                self.failure(command, *arguments, "--backend", f"{first}:99", mentions=(f"{first}:99",))

    def test_environment(self):
        self.expect(
            1, "plan", *self.ARGUMENTS["plan"], env={"FASTATTN_BACKEND": "no-such"}, mentions=("no-such",)
        )

    def test_unknown_kernel(self):
        for command in ("plan", "run"):
            with self.subTest(command):
                arguments = [command, *self.ARGUMENTS[command], "--kernel", "no-such-row"]
                self.failure(*arguments, mentions=("no-such-row",))


class Plan(Case):
    def plan(self, *arguments):
        return json.loads(self.expect(0, "plan", *arguments, "--json").stdout)

    def test_text(self):
        done = self.expect(
            0,
            "plan",
            "--shape",
            "B2,H8,S512,D64,HK2",
            "--causal=bottom-right",
            mentions=("B2,H8,S512,D64,HK2", "level 1", "level 2", "work list", "compulsory", "lower bound"),
        )
        for mark in "·/█":
            self.assertIn(mark, done.stdout)

    def test_json(self):
        plan = self.plan("--shape", "B2,H8,S512,D64,HK2", "--dtype", "f16", "--causal", "bottom-right")
        self.assertEqual((plan["sequences"], plan["heads_kv"]), (2, 2))
        self.assertEqual(plan["pairs"], 2 * 8 * 512 * 513 // 2)
        self.assertEqual(plan["flops"], plan["pairs"] * 4 * 64)
        self.assertEqual(plan["bytes_compulsory"], 2 * 2 * 512 * 64 * (8 + 8 + 2 + 2))
        for field in ("block_q", "block_kv", "tile_q", "tile_kv", "tile_d", "splits", "items", "syncs"):
            self.assertGreater(plan[field], 0, field)

    def check_cells(self, plan, rows, keys, sees):
        """The picture against every pair of a row and a key."""
        tiles, group = plan["tiles"], plan["group"]
        block_q, block_kv = plan["block_q"], plan["block_kv"]
        self.assertEqual(tiles["rows"], -(-rows * group // block_q))
        self.assertEqual(tiles["columns"], -(-keys // block_kv))
        marks = []
        for r in range(tiles["rows"]):
            line = ""
            for c in range(tiles["columns"]):
                packed = range(r * block_q, min((r + 1) * block_q, rows * group))
                columns = range(c * block_kv, min((c + 1) * block_kv, keys))
                seen = {sees(i // group, j) for i in packed for j in columns}
                line += "/" if len(seen) == 2 else "█" if True in seen else "·"
            marks.append(line)
        self.assertEqual(tiles["cells"], marks)

    def test_picture(self):
        blocks = ("--block-q", "32", "--block-kv", "32")
        plan = self.plan("--shape", "B1,H2,S200,D32,SK333,HK1", "--causal", "bottom-right", *blocks)
        self.check_cells(plan, 200, 333, lambda i, j: j <= i + 133)
        plan = self.plan("--shape", "B1,H1,S200,D32,SK333", "--causal", "top-left", "--prefix", "70", *blocks)
        self.check_cells(plan, 200, 333, lambda i, j: j <= i or j < 70)
        windows = ("--window-left", "80", "--window-right", "40", *blocks)
        plan = self.plan("--shape", "B1,H1,S300,D32", *windows)
        self.check_cells(plan, 300, 300, lambda i, j: i - 80 < j < i + 40)
        plan = self.plan("--shape", "B1,H1,S200,D32,SK333", "--align", "top-left", *windows)
        self.check_cells(plan, 200, 333, lambda i, j: i - 80 < j < i + 40)

    def test_scaled_picture(self):
        shape = ("--shape", "B1,H1,S4096,D32", "--causal=bottom-right", "--block-q=16", "--block-kv=16")
        tiles = self.plan(*shape)["tiles"]
        self.assertEqual((len(tiles["cells"]), len(tiles["cells"][0])), (32, 64))
        self.assertGreater(tiles["rows"], 32)
        for row, line in enumerate(tiles["cells"]):
            self.assertEqual(line, "█" * 2 * row + "//" + "·" * (62 - 2 * row))
        text = self.expect(0, "plan", *shape, mentions=("several blocks", "3968  ")).stdout
        self.assertEqual(text.splitlines()[-1].split()[-1], tiles["cells"][-1])

    def test_long_sequences_are_sampled(self):
        shape = ("--shape", "B1,H1,S16,D16,SK1048576", "--block-kv", "16")
        self.expect(0, "plan", *shape, mentions=("some of them were looked at", "█" * 64))

    def test_splits(self):
        self.assertEqual(self.plan("--shape", "B1,H1,S1,D64,SK4096", "--splits", "4")["splits"], 4)

    def threads(self, *arguments, env=None):
        return json.loads(self.expect(0, "plan", *arguments, "--json", env=env).stdout)["schedules"]

    def test_threads(self):
        if not can_run("openmp"):
            self.skipTest("built without the openmp backend")
        shape = ("--backend", "openmp", "--shape", "B1,H8,S1024,D64")
        lines = self.threads(*shape, "--threads", "1,2,8-10,64", env={"FASTATTN_THREADS": "no number"})
        self.assertEqual([line["threads"] for line in lines], [1, 2, 8, 9, 10, 64])
        self.assertEqual(lines[0]["speedup"], 1)
        for line in lines:
            self.assertTrue(1 <= line["workers"] <= min(line["threads"], line["items"]), line)
            self.assertTrue(1 <= line["speedup"] <= 1.5 * line["threads"], line)
            self.assertGreaterEqual(line["imbalance"], 1)
            self.assertAlmostEqual(line["speedup"] * line["seconds"], lines[0]["seconds"])
        text = self.expect(0, "plan", *shape, "--threads", "3,5", mentions=("imbalance", "speed-up")).stdout
        self.assertEqual([line.split()[0] for line in text.splitlines()[-2:]], ["3", "5"])
        one = self.threads("--backend", "openmp", "--shape", "B1,H1,S4,D16", "--threads", "64")
        self.assertEqual((one[0]["workers"], one[0]["imbalance"]), (1, 1))
        self.assertEqual(
            self.plan(*shape, "--block-q", "64")["items"],
            self.threads(*shape, "--block-q", "64", "--threads", "1")[0]["items"],
        )

    def test_bad_threads(self):
        shape = ("plan", "--shape", "B1,H1,S16,D16", "--threads")
        for text in ("0", "a", "1-", "-3", "4-2", "1025", "99999999999999999999", "1 2", "1.5", "0x2"):
            self.usage(*shape[:-1], f"--threads={text}", mentions=("--threads", f"part '{text}'"))
        for text in ("1,", ",1", "1,,2"):
            self.usage(*shape, text, mentions=(f"'{text}'", "part ''", "1 to 1024"))
        self.usage(*shape, "1-1024,7", mentions=("at most 1024",))
        if can_run("null"):
            self.failure(*shape, "1,2", "--backend", "null", mentions=("--threads", "null:0", "4 units"))

    def test_usage(self):
        self.usage("plan", mentions=("--shape",))
        for shape, part in (("B1,H8,S0,D128", "S0"), ("B1,H8,S9,D9,X1", "X1"), ("B1,H8,S9", "part D")):
            self.usage("plan", "--shape", shape, mentions=("--shape", part))
        good = ("plan", "--shape", "B1,H1,S16,D16")
        self.usage(*good, "--dtype", "f64", mentions=("--dtype", "'f64'", "f32, f16 or bf16"))
        self.usage(*good, "--causal", "yes", mentions=("--causal", "'yes'", "top-left or bottom-right"))
        self.usage(*good, "--splits", "-1", mentions=("--splits", "-1"))
        self.usage(*good, "--block-q", "4294967296", mentions=("--block-q", "4294967296"))

    def test_refused_problems(self):
        self.failure("plan", "--shape", "B1,H8,S16,D16,HK3", mentions=("8", "3"))
        self.failure("plan", "--shape", "B1,H1,S16,D5000", mentions=("5000",))
        self.failure("plan", "--shape", "B1,H1,S9,D9", "--window-left", "-5", mentions=("window_left", "-5"))
        self.failure("plan", "--shape", "B9000000000000,H9000000,S9000000,D16", mentions=("90000",))


class RunCase(ComputingCase):
    def inputs(self, q, k, v, names="qkv"):
        return [x for n, t in zip(names, (q, k, v)) for x in (f"--{n}", write_npy(self.path(f"{n}.npy"), t))]

    def run_ok(self, *arguments):
        self.expect(0, "run", *arguments, "--out", self.path("o.npy"), "--lse", self.path("lse.npy"))
        self.assertFalse([p for p in self.folder.iterdir() if ".npy." in p.name], "a temporary file was left")
        return read_npy(self.path("o.npy")), read_npy(self.path("lse.npy"))

    def assert_near(self, found, expected, limit=2e-5):
        self.assertLessEqual(found.difference(expected), limit)


class RealTensors(RunCase):
    NPY = [x for name in "qkv" for x in (f"--{name}", DATA / f"{name}.npy")]

    def test_npy(self):
        out = self.path("o.npy")
        done = self.expect(
            0, "run", *self.NPY, "--out", out, "--check", "--expect", DATA / "o.npy",
            mentions=("kernel", " ms,", "check: ", "bound", "expect: ", "tolerance"),
        )
        self.assertEqual(done.stdout.count(": ok, "), 2)
        found = read_npy(out)
        self.assertEqual((found.dtype, found.shape), ("f16", (1, 12, 64, 32)))
        self.assert_near(found, read_npy(DATA / "o.npy"), 2e-3)

    def test_safetensors(self):
        for name, more in (("layer0", []), ("layer5", []), ("batch", ["--keep-name", "keep"])):
            with self.subTest(name):
                file = ["--file", DATA / f"minilm-{name}.safetensors", *more]
                self.expect(0, "run", *file, "--check", "--expect-name", "o", "--out-dtype", "f32")
                self.expect(0, "run", *file, "--expect", "o")

    def test_every_kernel(self):
        expect = ["--check", "--expect", DATA / "o.npy"]
        short = {name: read_npy(DATA / f"{name}.npy") for name in "qkv"}
        for tensor in short.values():
            tensor.dtype = "bf16"
        bf16 = ["--file", write_safetensors(self.path("bf16.safetensors"), short), "--check"]
        for device in devices():
            name = f"{device['backend']}:{device['index']}"
            for kernel in device["kernels"] if device["available"] and device["automatic"] else []:
                with self.subTest(f"{name} {kernel}"):
                    only_bf16 = kernel.startswith(("amx-", "avx512bf16-"))
                    self.expect(
                        0, "run", *(bf16 if only_bf16 else self.NPY + expect), "--kernel", kernel,
                        "--backend", name, mentions=(f"kernel {kernel},", "check: ok"),
                    )

    def test_padding_matters(self):
        """Without its mask, the batch does not agree with the model."""
        file = DATA / "minilm-batch.safetensors"
        self.failure("run", "--file", file, "--expect-name", "o", mentions=("--expect", "batch"))

    def test_tolerance(self):
        expect = [*self.NPY, "--out-dtype=f32", "--expect", DATA / "o.npy"]
        self.expect(0, "run", *expect, "--tolerance", "0.01", mentions=("expect: ok", "tolerance 0.01\n"))
        self.failure("run", *expect, "--tolerance", "1e-12", mentions=("1e-12",))

    def test_small_error_is_found(self):
        expected = read_npy(DATA / "o.npy")
        expected.values[777] += 1e-4
        wrong = write_npy(self.path("wrong.npy"), expected)
        self.failure(
            "run", *self.NPY, "--out-dtype=f32", "--expect", wrong, mentions=("head 0, row 24, dim 9",)
        )

    def test_failed_comparison_writes_nothing(self):
        expected = read_npy(DATA / "o.npy")
        expected.values[5] = float("nan")
        wrong, out = write_npy(self.path("wrong.npy"), expected), self.path("o.npy")
        self.failure("run", *self.NPY, "--expect", wrong, "--out", out, mentions=("dim 5", "nan"))
        self.assertFalse(out.exists())
        out.write_bytes(BEFORE)
        self.failure("run", *self.NPY, "--expect", wrong, "--tolerance", "1", "--out", out)
        self.assertEqual(out.read_bytes(), BEFORE)

    def test_null_backend_fails_the_check(self):
        if not can_run("null"):
            self.skipTest("built without the null backend")
        self.failure("run", *self.NPY, "--backend", "null", "--check", mentions=("--check",))


class Options(RunCase):
    """Each option against attention written out in Python."""

    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = noise(1, 2, 4, 5, 8), noise(2, 2, 2, 7, 8), noise(3, 2, 2, 7, 6)
        self.arguments = self.inputs(self.q, self.k, self.v)

    def check(self, *arguments, **changes):
        out, lse = self.run_ok(*self.arguments, *arguments, "--check")
        expected, expected_lse = attention(self.q, self.k, self.v, **changes)
        self.assert_near(out, expected)
        self.assert_near(lse, expected_lse)

    def test_plain(self):
        self.check()

    def test_masks(self):
        self.check("--causal", "top-left", visible=lambda b, h, i, j: j <= i)
        self.check("--causal", "bottom-right", visible=lambda b, h, i, j: j <= i + 2)
        self.check("--window-left", 2, visible=lambda b, h, i, j: i + 2 - j < 2)
        self.check("--window-right=2", visible=lambda b, h, i, j: j - i - 2 < 2)
        self.check(
            "--causal", "top-left", "--prefix", 3, "--splits", 2, visible=lambda b, h, i, j: j <= i or j < 3
        )

    def test_alignment(self):
        self.check("--window-left=2", "--align=top-left", visible=lambda b, h, i, j: i - j < 2)
        self.check("--window-right=2", "--align", "bottom-right", visible=lambda b, h, i, j: j - i - 2 < 2)
        refused = ("run", *self.arguments, "--check", "--causal", "top-left", "--align", "bottom-right")
        self.failure(*refused, mentions=("alignment is 2 (bottom right)", "top left"))

    def test_lengths(self):
        """Rows behind a length are 0 in the output, and what is expected of them does not matter."""
        lens_q, lens_kv = (4, 2), (7, 3)
        out, lse = self.run_ok(
            *self.arguments, "--lens-q", write_npy(self.path("lq.npy"), Tensor((2,), lens_q, "i32")),
            "--lens-kv", write_npy(self.path("lkv.npy"), Tensor((2,), lens_kv, "i64")), "--check",
        )
        expected, expected_lse = attention(
            self.q, self.k, self.v, visible=lambda b, h, i, j: j < lens_kv[b]
        )
        for b in range(2):
            for h in range(4):
                for i in range(5):
                    used = i < lens_q[b]
                    self.assertAlmostEqual(lse[b, h, i], expected_lse[b, h, i] if used else 0, 4)
                    for d in range(6):
                        self.assertAlmostEqual(out[b, h, i, d], expected[b, h, i, d] if used else 0, 4)
        again = ("run", *self.arguments, "--lens-kv", self.path("lkv.npy"), "--expect")
        write_npy(self.path("e.npy"), expected)
        self.expect(0, *again, self.path("e.npy"))
        expected.values[-1] = 99.0  # of batch entry 1, row 4
        write_npy(self.path("e.npy"), expected)
        self.failure(*again, self.path("e.npy"), mentions=("batch 1", "row 4"))
        self.expect(0, *again, self.path("e.npy"), "--lens-q", self.path("lq.npy"))

    def test_rows_without_keys(self):
        self.q = noise(1, 2, 4, 9, 8)
        self.arguments = self.inputs(self.q, self.k, self.v)
        self.check("--causal", "bottom-right", visible=lambda b, h, i, j: j <= i - 2)

    def test_scores(self):
        self.check("--scale", "0.5", scale=0.5)
        self.check("--scale=-0.5", scale=-0.5)
        self.check("--scale", "0", scale=0)
        self.check("--softcap", "2", softcap=2)
        slopes, sinks = [0.5, 0.25, 0.125, 0.0625], [0.5, -1.0, 2.0, 0.0]
        self.check("--alibi", write_npy(self.path("a.npy"), Tensor((4,), slopes)), slopes=slopes)
        per_batch = noise(7, 2, 4)
        self.check(
            "--alibi", write_npy(self.path("a.npy"), per_batch), "--align", "top-left",
            bias=lambda b, h, i, j: -per_batch[b, h] * abs(i - j),
        )
        self.check("--sinks", write_npy(self.path("s.npy"), Tensor((4,), sinks, "f16")), sinks=sinks)

    def test_bias_and_keep(self):
        bias, per_key = noise(5, 4, 5, 7), noise(6, 7, dtype="f16")
        self.check("--bias", write_npy(self.path("b.npy"), bias), bias=lambda b, h, i, j: bias[h, i, j])
        self.check("--bias", write_npy(self.path("b.npy"), per_key), bias=lambda b, h, i, j: per_key[(j,)])
        factors = [0.5, 0.0, -1.0, 2.0]
        self.check(
            "--bias", write_npy(self.path("b.npy"), bias), "--bias-factors",
            write_npy(self.path("f.npy"), Tensor((4,), factors)),
            bias=lambda b, h, i, j: factors[h] * bias[h, i, j],
        )
        keep = Tensor((2, 1, 1, 7), [1, 1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0], "bool")
        self.check("--keep", write_npy(self.path("m.npy"), keep), visible=lambda b, h, i, j: keep[b, 0, 0, j])

    def test_layout(self):
        expected, lse = attention(self.q, self.k, self.v)
        self.arguments = self.inputs(self.q.swapped(), self.k.swapped(), self.v.swapped())
        write_npy(self.path("e.npy"), expected.swapped())
        more = ("--layout", "bshd", "--check", "--expect", self.path("e.npy"))
        found, found_lse = self.run_ok(*self.arguments, *more)
        self.assert_near(found, expected.swapped())
        self.assert_near(found_lse, lse)

    def test_fewer_axes(self):
        q, k, v = noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6)
        expected, lse = attention(q, k, v)
        found = self.run_ok(*self.inputs(q.reshaped(2, 5, 8), k.reshaped(2, 7, 8), v.reshaped(2, 7, 6)))
        self.assert_near(found[0], expected.reshaped(2, 5, 6))
        self.assert_near(found[1], lse.reshaped(2, 5))
        rows = [x.swapped().reshaped(*x.swapped().shape[1:]) for x in (q, k, v)]
        found = self.run_ok(*self.inputs(*rows), "--layout=bshd")
        self.assert_near(found[0], expected.swapped().reshaped(5, 2, 6))
        q, k, v = noise(1, 5, 8), noise(2, 7, 8), noise(3, 7, 6)
        expected, lse = attention(q.reshaped(1, 1, 5, 8), k.reshaped(1, 1, 7, 8), v.reshaped(1, 1, 7, 6))
        found = self.run_ok(*self.inputs(q, k, v))
        self.assert_near(found[0], expected.reshaped(5, 6))
        self.assert_near(found[1], lse.reshaped(5))

    def test_types(self):
        expected, _ = attention(self.q, self.k, self.v)
        for dtype, option, result in (
            ("f32", [], "f32"), ("f16", [], "f16"), ("bf16", [], "f32"), ("f32", ["--out-dtype=f16"], "f16"),
            ("f16", ["--out-dtype=f32"], "f32"), ("bf16", ["--out-dtype", "f16"], "f16"),
        ):
            with self.subTest(f"{dtype} {option}"):
                inputs = zip("xyz", (self.q, self.k, self.v))
                tensors = {name: Tensor(t.shape, t.values, dtype) for name, t in inputs}
                file = write_safetensors(self.path("t.safetensors"), tensors)
                names = ["--q-name", "x", "--k-name", "y", "--v-name", "z"]
                out, _ = self.run_ok("--file", file, *names, *option, "--check")
                self.assertEqual(out.dtype, result)
                self.assert_near(out, expected, 2e-2 if dtype == "bf16" else 2e-3)

    def test_empty(self):
        empty = Tensor((2, 4, 0, 8), [])
        out, lse = self.run_ok(*self.inputs(empty, self.k, self.v))
        self.assertEqual((out.shape, lse.shape), ((2, 4, 0, 6), (2, 4, 0)))
        no_keys = Tensor((2, 2, 0, 8), []), Tensor((2, 2, 0, 6), [])
        out, lse = self.run_ok(*self.inputs(self.q, *no_keys))
        self.assertEqual(set(out.values), {0.0})
        self.assertEqual(set(lse.values), {float("-inf")})

    def test_verbose(self):
        done = call("run", *self.arguments, "--check", "--verbose")
        self.assertEqual(done.returncode, 0)
        self.assertIn("fastattn: ", done.stderr)


class BadInput(RunCase):
    """Whatever is wrong, an output that exists stays as it was, and nothing else appears beside it."""

    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6)
        self.arguments = self.inputs(self.q, self.k, self.v)
        self.outputs = self.path("out")
        self.outputs.mkdir()
        for name in ("o.npy", "lse.npy"):
            (self.outputs / name).write_bytes(BEFORE)

    def refuse(self, code, *arguments, mentions=()):
        lse = [] if "--lse" in arguments else ["--lse", self.outputs / "lse.npy"]
        done = self.expect(code, "run", "--out", self.outputs / "o.npy", *lse, *arguments, mentions=mentions)
        found = {p.name: p.read_bytes() for p in self.outputs.iterdir()}
        self.assertEqual(found, {"o.npy": BEFORE, "lse.npy": BEFORE})
        return done

    def replaced(self, name, tensor):
        at = self.arguments.index(f"--{name}")
        path = write_npy(self.path(f"other-{name}.npy"), tensor)
        return [*self.arguments[:at], f"--{name}", path, *self.arguments[at + 2 :]]

    def test_truncated_npy(self):
        whole = npy_bytes(self.k)
        for size in (0, 5, 9, 40, 127, 128, len(whole) - 1):
            with self.subTest(size):
                self.path("k.npy").write_bytes(whole[:size])
                self.refuse(1, *self.arguments, mentions=("k: ", "k.npy"))
        self.path("k.npy").write_bytes(whole + b"x")
        self.refuse(1, *self.arguments, mentions=("k.npy", "data"))

    def test_truncated_safetensors(self):
        whole = (DATA / "minilm-batch.safetensors").read_bytes()
        file = self.path("t.safetensors")
        for size in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
            with self.subTest(size):
                file.write_bytes(whole[:size])
                self.refuse(1, "--file", file, "--keep-name", "keep", mentions=("t.safetensors",))

    def test_unreadable(self):
        for name in ("q", "k", "v", "bias", "keep", "alibi", "sinks", "expect"):
            missing = self.path("missing.npy")
            arguments = [*self.arguments, f"--{name}", missing]
            if name in "qkv":
                arguments = self.arguments.copy()
                arguments[arguments.index(f"--{name}") + 1] = missing
            self.refuse(1, *arguments, mentions=(f"{name}: ", "missing.npy", "No such file"))
        self.refuse(1, *self.arguments[:4], "--v", self.folder, mentions=("v: ",))
        self.refuse(1, "--file", self.path("none.safetensors"), mentions=("none.safetensors",))
        if os.geteuid() != 0:
            self.path("v.npy").chmod(0)
            self.refuse(1, *self.arguments, mentions=("v.npy", "denied"))

    def test_unknown_tensor(self):
        file = DATA / "minilm-layer5.safetensors"
        self.refuse(1, "--file", file, "--q-name", "query", mentions=("query",))
        self.refuse(1, "--file", file, "--expect", "context", mentions=("context",))

    def test_shapes(self):
        for name, tensor, mentions in (
            ("k", noise(2, 1, 2, 7, 9), ("k.shape[3]", "9", "8")),
            ("v", noise(3, 1, 2, 6, 6), ("v.shape[2]", "6", "7")),
            ("k", noise(2, 2, 2, 7, 8), ("shape[0]", "2")),
            ("q", noise(1, 1, 3, 5, 8), ("3", "2")),
            ("q", noise(1, 8), ("q has 1 dimensions", "2")),
            ("q", noise(1, 1, 1, 2, 5, 8), ("q has 5 dimensions", "2")),
        ):
            with self.subTest(mentions):
                self.refuse(1, *self.replaced(name, tensor), mentions=mentions)
        for option, tensor, mentions in (
            ("bias", noise(4, 5, 6), ("bias.shape[3]", "6", "7")),
            ("bias", noise(4, 1, 1, 1, 5, 7), ("bias has 5 dimensions",)),
            ("keep", Tensor((2, 1, 1, 7), [1] * 14, "bool"), ("keep.shape[0]", "2")),
            ("alibi", noise(4, 3), ("alibi has 3 elements, expected 2",)),
            ("alibi", noise(4, 3, 2), ("alibi has 3 elements along axis 0, expected 1",)),
            ("lens-q", noise(4, 1), ("lens-q has type f32, expected whole numbers",)),
            ("lens-kv", Tensor((2,), (1, 2), "i32"), ("lens-kv has 2 elements, expected 1",)),
            ("lens-kv", Tensor((1,), (99,), "i64"), ("lens_kv[0] is 99",)),
            ("bias-factors", noise(4, 2), ("bias_factors is given without bias",)),
            ("sinks", noise(4, 2, 1), ("sinks has 2 dimensions, expected 1",)),
            ("expect", noise(4, 1, 2, 5, 8), ("(1, 2, 5, 8)", "(1, 2, 5, 6)")),
        ):
            with self.subTest(mentions):
                path = write_npy(self.path("x.npy"), tensor)
                self.refuse(1, *self.arguments, f"--{option}", path, mentions=mentions)

    def test_types(self):
        whole = Tensor((1, 2, 5, 8), [1] * 80, "i64")
        self.refuse(1, *self.replaced("q", whole), mentions=("q has type integer",))
        for option, dtype, size in (("keep", "f32", 7), ("bias", "bool", 7), ("alibi", "i64", 2)):
            path = write_npy(self.path("x.npy"), Tensor((size,), [1] * size, dtype))
            self.refuse(1, *self.arguments, f"--{option}", path, mentions=(f"{option} has type ",))

    def test_values(self):
        self.refuse(1, *self.arguments, "--window-left", "-3", mentions=("window_left", "-3"))
        self.refuse(1, *self.arguments, "--prefix=-1", mentions=("prefix", "-1"))

    def test_one_file_for_two_outputs(self):
        self.path("soft.npy").symlink_to("out/o.npy")
        self.path("hard.npy").hardlink_to(self.outputs / "o.npy")
        for other in (f"{self.outputs}/./o.npy", self.path("soft.npy"), self.path("hard.npy")):
            mentions = ("--out is", "--lse is", other, "two files")
            self.refuse(1, *self.arguments, "--lse", other, mentions=mentions)
        new, link = self.path("new.npy"), self.path("to-new.npy")
        link.symlink_to("new.npy")
        self.failure("run", *self.arguments, "--out", link, "--lse", new, mentions=("two files",))
        self.assertFalse(new.exists())

    def test_output_that_is_an_input(self):
        before = {name: self.path(f"{name}.npy").read_bytes() for name in "qkv"}
        self.path("soft.npy").symlink_to("k.npy")
        self.path("hard.npy").hardlink_to(self.path("k.npy"))
        file = write_safetensors(self.path("t.safetensors"), {"q": self.q, "k": self.k, "v": self.v})
        whole = Path(file).read_bytes()
        for bad in (self.path("k.npy"), f"{self.folder}/./k.npy", self.path("soft.npy"), self.path("hard.npy")):
            with self.subTest(str(bad)):
                self.failure("run", *self.arguments, "--out", bad, mentions=("--out is", bad, "--k"))
                self.failure(
                    "run", *self.arguments, "--out", self.path("o.npy"), "--lse", bad, mentions=("--lse is", bad, "--k")
                )
        self.failure("run", "--file", file, "--out", file, mentions=("--out is", "--file"))
        for option in ("bias", "keep", "alibi", "bias-factors", "sinks", "lens-q", "lens-kv", "expect"):
            path = write_npy(self.path("x.npy"), noise(4, 2))
            self.failure("run", *self.arguments, f"--{option}", path, "--out", path, mentions=(f"--{option}",))
        with open(self.path("q.npy"), "rb") as q:
            done = call("run", "--q", "-", *self.arguments[2:], "--out", self.path("q.npy"), stdin=q)
        self.assertEqual((done.returncode, "--q" in done.stderr), (1, True), done.stderr)
        self.assertEqual({name: self.path(f"{name}.npy").read_bytes() for name in "qkv"}, before)
        self.assertEqual(Path(file).read_bytes(), whole)
        self.assertFalse(self.path("o.npy").exists())

    def test_outputs(self):
        good, folder = self.outputs / "o.npy", self.path("folder")
        folder.mkdir()
        for bad in (folder, self.path("nowhere/x.npy"), self.path("loop.npy")):
            if bad == self.path("loop.npy"):
                bad.symlink_to("loop.npy")
            with self.subTest(str(bad)):
                self.failure("run", *self.arguments, "--out", good, "--lse", bad, mentions=("--lse", bad))
                self.failure("run", *self.arguments, "--out", bad, mentions=("--out", bad))
                self.assertEqual(good.read_bytes(), BEFORE)
        self.assertEqual(len(list(self.outputs.iterdir())), 2)

    def test_usage(self):
        q, k, v = (self.arguments[i : i + 2] for i in (0, 2, 4))
        self.refuse(2, *q, *v, mentions=("--k is missing",))
        self.refuse(2, *self.arguments, "--q-name", "x", mentions=("--q", "--q-name"))
        self.refuse(2, *q, *k, "--v-name", "x", mentions=("--v-name is 'x'", "--file"))
        self.refuse(2, *self.arguments, "--layout", "bdsh", mentions=("'bdsh'", "bhsd or bshd"))
        self.refuse(2, *self.arguments, "--out-dtype", "bf16", mentions=("'bf16'", "f32 or f16"))
        self.refuse(2, *self.arguments, "--causal", "1", mentions=("--causal is '1'",))
        self.refuse(2, *self.arguments, "--align", "left", mentions=("--align is 'left'",))
        self.refuse(2, *self.arguments, "--scale", "1e300", mentions=("--scale is 1e+300",))
        self.refuse(2, *self.arguments, "--softcap", "-1", mentions=("--softcap is -1",))
        self.refuse(2, *self.arguments, "--splits=x", mentions=("--splits is 'x'",))
        self.refuse(2, *self.arguments, "--tolerance", "1", mentions=("--tolerance", "--expect"))
        self.usage("run", *self.arguments, mentions=("--out is missing",))


class Streams(RunCase):
    """Inputs from pipes, outputs to what is no file."""

    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6)
        self.arguments = self.inputs(self.q, self.k, self.v)
        self.expected, self.expected_lse = attention(self.q, self.k, self.v)

    def feed(self, name, data):
        """A pipe in the folder that a thread writes `data` to."""
        path = self.path(name)
        os.mkfifo(path)

        def write():
            with open(path, "wb") as pipe:
                pipe.write(data)

        thread = threading.Thread(target=write)
        thread.start()
        self.addCleanup(thread.join)
        return path

    def test_npy_from_pipes(self):
        pipes = {name: self.feed(f"pipe-{name}", npy_bytes(t)) for name, t in (("q", self.q), ("k", self.k))}
        with open(self.path("v.npy"), "rb") as v:
            done = call(
                "run", "--q", pipes["q"], "--k", pipes["k"], "--v", "/dev/stdin", "--out", self.path("o.npy"), stdin=v
            )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_near(read_npy(self.path("o.npy")), self.expected)
        script = '"$0" run --q <(cat q.npy) --k <(cat k.npy) --v <(cat v.npy) --out o.npy'
        self.path("o.npy").unlink()
        done = subprocess.run(
            ["bash", "-c", script, COMMAND], cwd=self.folder, capture_output=True, encoding="utf-8", check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_near(read_npy(self.path("o.npy")), self.expected)

    def test_standard_input_is_read_once(self):
        for second in ("--bias", "--lens-kv"):
            self.expect(2, "run", *self.arguments, "--keep", "-", second, "-", "--check",
                        mentions=("'-' and so is", "expected standard input once"))

    def test_safetensors_from_a_pipe(self):
        tensors = {"v": self.v, "q": self.q, "unused": noise(4, 1000), "k": self.k}
        whole = Path(write_safetensors(self.path("t.safetensors"), tensors)).read_bytes()
        self.run_ok("--file", self.feed("pipe", whole), "--check")
        self.assert_near(read_npy(self.path("o.npy")), self.expected)
        cut = self.feed("cut", whole[:-8])
        self.failure("run", "--file", cut, "--out", self.path("o.npy"), mentions=("k: ", "cut", "data_offsets"))

    def test_output_to_standard_output(self):
        for name in ("-", "/dev/stdout"):
            with self.subTest(name), open(self.path("stdout"), "wb") as out:
                done = call("run", *self.arguments, "--check", "--out", name, stdout=out)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("check: ok", done.stderr)
                self.assert_near(read_npy(self.path("stdout")), self.expected)
        done = call("conform", "--backend", "null", "--filter", "*:causal-br/f32*", "--json", "-")
        self.assertEqual(json.loads(done.stdout)["failed"], 0)
        self.assertIn(" passed, ", done.stderr)
        self.failure("run", *self.arguments, "--out", "-", "--lse", "-", mentions=("two files",))

    def test_output_to_a_pipe(self):
        pipe, found = self.path("pipe"), []
        os.mkfifo(pipe)
        thread = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
        thread.start()
        self.expect(0, "run", *self.arguments, "--out", pipe, "--lse", self.path("lse.npy"))
        thread.join()
        self.path("o.npy").write_bytes(found[0])
        self.assert_near(read_npy(self.path("o.npy")), self.expected)
        self.assert_near(read_npy(self.path("lse.npy")), self.expected_lse)
        self.assertTrue(stat.S_ISFIFO(pipe.stat().st_mode))

    def each_writer(self):
        """Command lines of everything that writes a file, up to its name."""
        yield ("run", *self.arguments, "--out")
        yield ("run", *self.arguments, "--check", "--lse")
        conform = ("conform", "--backend", "null", "--filter", "*:causal-br/f32*")
        yield from ((*conform, "--json"), (*conform, "--junit"))
        bench = ("bench", "--shape", "B1,H1,S16,D16", "--min-time", "0.001", "--no-standard")
        yield from ((*bench, "--json"), (*bench, "--plot"))

    def test_devices_stay(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full here")
        before = {name: os.stat(name) for name in ("/dev/full", "/dev/null")}
        link = self.path("link")
        link.symlink_to("/dev/full")
        for arguments in self.each_writer():
            with self.subTest(arguments):
                self.failure(*arguments, "/dev/full", mentions=(arguments[-1], "/dev/full", "No space left"))
                self.failure(*arguments, link, mentions=(arguments[-1], "No space left"))
                self.expect(0, *arguments, "/dev/null")
        for name, status in before.items():
            self.assertEqual((os.stat(name).st_ino, os.stat(name).st_rdev), (status.st_ino, status.st_rdev))
        self.assertTrue(link.is_symlink())

    def test_links_and_modes_stay(self):
        for arguments in self.each_writer():
            with self.subTest(arguments):
                link, target = self.path("link"), self.path("target")
                link.unlink(missing_ok=True)
                link.symlink_to("target")
                target.write_bytes(BEFORE)
                target.chmod(0o640)
                self.expect(0, *arguments, link)
                self.assertTrue(link.is_symlink())
                self.assertNotEqual(target.read_bytes(), BEFORE)
                self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o640)
                self.assertFalse([p for p in self.folder.iterdir() if ".tmp" in p.name])

    def test_a_limit_keeps_the_old_file(self):
        """A limit on the size of files stands in for a full disk."""
        target = self.path("target")
        target.write_bytes(BEFORE)

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        for arguments in self.each_writer():
            with self.subTest(arguments):
                done = call(*arguments, target, preexec_fn=limit)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("File too large", done.stderr)
                self.assertEqual(target.read_bytes(), BEFORE)
                self.assertFalse([p for p in self.folder.iterdir() if ".tmp" in p.name])

    def test_closed_streams(self):
        """What is printed does not go into a file that takes the place of a closed stream."""
        out, options = self.path("o.npy"), (*self.arguments, "--check", "--out", self.path("o.npy"))
        for closed, code in ((">&-", 1), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 1)):
            with self.subTest(closed):
                out.unlink(missing_ok=True)
                line = ["sh", "-c", f'exec "$0" "$@" {closed}', COMMAND, "run", *map(str, options)]
                done = subprocess.run(line, capture_output=True, encoding="utf-8", check=False)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assert_near(read_npy(out), self.expected)
        done = subprocess.run(["sh", "-c", 'exec "$0" run "$@" >&-', COMMAND, *map(str, self.arguments), "--out", "-"],
                              capture_output=True, encoding="utf-8", check=False)
        self.assertEqual((done.returncode, "--out: -: open: " in done.stderr), (1, True), done.stderr)

    def test_reports_in_one_file(self):
        one = self.path("one")
        conform = ("conform", "--backend", "null", "--filter", "*:causal-br/f32*")
        self.failure(*conform, "--json", one, "--junit", one, mentions=("--json", "--junit", "two files"))
        bench = ("bench", "--shape", "B1,H1,S16,D16")
        self.failure(*bench, "--json", one, "--plot", one, mentions=("--json", "--plot", "two files"))
        self.assertFalse(one.exists())


class Signals(RunCase):
    """Nothing is left of a file that was on its way."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def start(self, *arguments):
        return subprocess.Popen(
            [COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in self.SIGNALS],
        )

    def hidden(self):
        return [p.name for p in self.path("out").iterdir() if p.name not in ("o.npy", "lse.npy", "pipe")]

    def setUp(self):
        super().setUp()
        self.arguments = self.inputs(noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6))
        self.path("out").mkdir()
        self.out, self.lse = self.path("out") / "o.npy", self.path("out") / "lse.npy"

    def test_while_a_file_is_there(self):
        """The second output is a pipe that nobody reads, so that the first waits under its temporary name."""
        pipe = self.path("out") / "pipe"
        os.mkfifo(pipe)
        self.out.write_bytes(BEFORE)
        for number in self.SIGNALS:
            with self.subTest(number):
                process = self.start("run", *self.arguments, "--out", self.out, "--lse", pipe)
                end = time.monotonic() + 60
                while not any(p.stat().st_size for p in self.path("out").glob(".*.tmp")):
                    self.assertIsNone(process.poll())
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.002)
                process.send_signal(number)
                self.assertEqual(process.wait(60), -number)
                self.assertEqual(self.hidden(), [])
                self.assertEqual(self.out.read_bytes(), BEFORE)

    def test_at_random_moments(self):
        start = time.monotonic()
        self.expect(0, "run", *self.arguments, "--out", self.out, "--lse", self.lse)
        usual, rng = time.monotonic() - start, random.Random(1)
        for round in range(24):
            self.out.unlink(missing_ok=True)
            self.lse.unlink(missing_ok=True)
            process = self.start("run", *self.arguments, "--out", self.out, "--lse", self.lse)
            time.sleep(1.2 * usual * rng.random())
            process.send_signal(self.SIGNALS[round % 3])
            code = process.wait(60)
            self.assertIn(code, (0, -self.SIGNALS[round % 3]))
            self.assertEqual(self.hidden(), [])
            self.assertEqual(self.out.exists(), self.lse.exists())
            if code == 0:
                self.assertTrue(self.out.exists())


class Friendliness(RunCase):
    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6)

    def test_f64_is_converted_with_a_note(self):
        expected, _ = attention(self.q, self.k, self.v)
        for tensor in (self.q, self.k, self.v):
            tensor.dtype = "f64"
        arguments = self.inputs(self.q, self.k, self.v)
        slopes = write_npy(self.path("a.npy"), Tensor((2,), [0.0, 0.0], "f64"))
        done = call("run", *arguments, "--alibi", slopes, "--out", self.path("o.npy"), "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        notes = done.stderr.splitlines()
        self.assertEqual(len(notes), 4, notes)
        for name, note in zip(("alibi", "q", "k", "v"), notes):
            self.assertTrue(note.startswith(f"fastattn run: note: {name}: ") and "holds f64" in note, note)
        found = read_npy(self.path("o.npy"))
        self.assertEqual(found.dtype, "f32")
        self.assert_near(found, expected)

    def test_f64_beyond_f32(self):
        arguments = self.inputs(self.q, self.k, self.v)
        bias = write_npy(self.path("b.npy"), Tensor((7,), [0.0, -1e300, 0.0, -1e300, 1.0, -math.inf, 0.0], "f64"))
        done = call("run", *arguments, "--bias", bias, "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("note: bias: ", done.stderr)
        self.assertIn("2 finite numbers became infinite", done.stderr)

    def test_other_types_are_refused(self):
        arguments = self.inputs(self.q, self.k, self.v)
        whole = npy_bytes(self.q)
        for descr in (b">f4", b"<c8", b"|O", b"<f16", b"<U4", b"<i2", b"<u8"):
            with self.subTest(descr):
                header = whole[10:].split(b"\n", 1)[0].replace(b"<f4", descr)
                data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
                self.path("q.npy").write_bytes(data + whole[whole.index(b"\n") + 1 :])
                self.failure("run", *arguments, "--check", mentions=("q.npy: descr: ", descr.decode(), "'<f8'"))

    EVIL = "\x1b]0;t\x07\x1b[2J\u202e\u2066\u009b31m\u200b\x7f\n\r"

    def assert_plain(self, text, *arguments):
        for line in text.split("\n"):
            bad = [
                c for c in line if c < " " or "\x7f" <= c < "\xa0" or c in "\u200b\u202e\u2066" or "\ud800" <= c < "\ue000"
            ]
            self.assertEqual(bad, [], arguments)

    def test_nothing_foreign_reaches_the_terminal(self):
        """Names of files, tensors, options, commands, devices: none gives commands to a terminal."""
        evil = self.EVIL
        folder = self.path(f"folder{evil}")
        folder.mkdir()
        good = self.inputs(self.q, self.k, self.v)
        file = write_safetensors(folder / f"t{evil}", {evil: self.q, f"k{evil}": self.k})
        broken = folder / f"broken{evil}.npy"
        broken.write_bytes(npy_bytes(self.q)[:-1])
        dtype = folder / "dtype"
        text = json.dumps({"q": {"dtype": evil, "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {evil: evil}})
        dtype.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(4))
        raw = os.fsencode(folder) + b"/\xff\x9b.npy"
        for arguments in (
            ("run", "--file", file, "--check"),
            ("run", "--file", file, "--q-name", f"no{evil}", "--check"),
            ("run", "--file", dtype, "--check"),
            ("run", "--q", broken, *good[2:], "--check"),
            ("run", "--q", os.fsdecode(raw), *good[2:], "--check"),
            ("run", *good, "--out", folder / f"none{evil}" / "o.npy"),
            ("run", *good, "--out", broken, "--lse", broken),
            ("run", *good, "--backend", evil, "--check"),
            ("run", *good, "--kernel", evil, "--check"),
            ("plan", "--shape", evil),
            ("plan", "--shape", "B1,H1,S1,D1", "--threads", evil),
            ("conform", "--backend", "null", "--filter", evil),
            ("conform", "--backend", "null", "--kernel", evil),
            ("conform", "--backend", "null", "--filter", "*:causal-br/f32*", "--json", folder / f"none{evil}" / "x"),
            ("bench", "--suite", evil),
            ("bench", f"--{evil}"),
            (evil,),
            (f"--{evil}",),
        ):
            done = call(*arguments)
            self.assertNotEqual(done.returncode, 0, arguments)
            self.assert_plain(done.stdout + done.stderr, *arguments)

    def test_what_a_run_needs_is_compared_with_memory(self):
        """A file that says it holds much, and a limit on the address space."""
        rows = 1 << 22
        sparse = self.path("big.npy")
        head = npy_bytes(Tensor((1, 1, 0, 64), [])).replace(b"(1, 1, 0, 64)", b"(1, 1, %d, 64)" % rows, 1)
        head = head[:8] + struct.pack("<H", len(head) - 10) + head[10:]
        with open(sparse, "wb") as file:
            file.write(head)
            file.truncate(len(head) + rows * 64 * 4)
        q = write_npy(self.path("small.npy"), noise(1, 1, 1, 1, 64))
        arguments = ("run", "--q", q, "--k", sparse, "--v", sparse, "--out", self.path("o.npy"))
        env = {"FASTATTN_THREADS": "1", "OMP_NUM_THREADS": "1"}

        limit = address_space(1536 << 20)
        if not limit or not any(device["backend"] == "openmp" for device in devices()):
            self.skipTest("addresses cannot be limited, or built without the openmp backend")
        done = call(*arguments, "--backend", "openmp", env=env, preexec_fn=limit)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"needs about 20\d\d\.\d MiB, and \d+\.\d MiB are available \(RLIMIT_AS\)")
        self.assertIn("--ignore-memory", done.stderr)
        done = call(*arguments, "--backend", "openmp", "--ignore-memory", env=env, preexec_fn=limit)
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("needs about", done.stderr)
        self.assertFalse(self.path("o.npy").exists())


if __name__ == "__main__":
    unittest.main()
