#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the `fastattn` command, whose path is in FASTATTN_COMMAND."""

import json
import os
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import Case, ComputingCase, call, devices  # noqa: E402
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
        plan = self.plan("--shape", "B1,H1,S300,D32", "--window-left", "80", "--window-right", "40", *blocks)
        self.check_cells(plan, 300, 300, lambda i, j: i - 80 < j < i + 40)

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
        if not any(device["backend"] == "openmp" for device in devices()):
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
        if any(device["backend"] == "null" for device in devices()):
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
        if not any(device["backend"] == "null" for device in devices()):
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

    def test_rows_without_keys(self):
        self.q = noise(1, 2, 4, 9, 8)
        self.arguments = self.inputs(self.q, self.k, self.v)
        self.check("--causal", "bottom-right", visible=lambda b, h, i, j: j <= i - 2)

    def test_scores(self):
        self.check("--scale", "0.5", scale=0.5)
        self.check("--scale=-0.5", scale=-0.5)
        self.check("--softcap", "2", softcap=2)
        slopes, sinks = [0.5, 0.25, 0.125, 0.0625], [0.5, -1.0, 2.0, 0.0]
        self.check("--alibi", write_npy(self.path("a.npy"), Tensor((4,), slopes)), slopes=slopes)
        self.check("--sinks", write_npy(self.path("s.npy"), Tensor((4,), sinks, "f16")), sinks=sinks)

    def test_bias_and_keep(self):
        bias, per_key = noise(5, 4, 5, 7), noise(6, 7, dtype="f16")
        self.check("--bias", write_npy(self.path("b.npy"), bias), bias=lambda b, h, i, j: bias[h, i, j])
        self.check("--bias", write_npy(self.path("b.npy"), per_key), bias=lambda b, h, i, j: per_key[(j,)])
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
            ("sinks", noise(4, 2, 1), ("sinks has 2 dimensions, expected 1",)),
            ("expect", noise(4, 1, 2, 5, 8), ("(1, 2, 5, 8)", "(1, 2, 5, 6)")),
        ):
            with self.subTest(mentions):
                path = write_npy(self.path("x.npy"), tensor)
                self.refuse(1, *self.arguments, f"--{option}", path, mentions=mentions)

    def test_types(self):
        whole = Tensor((1, 2, 5, 8), [1] * 80, "i64")
        self.refuse(1, *self.replaced("q", whole), mentions=("q has type i64",))
        for option, dtype, size in (("keep", "f32", 7), ("bias", "bool", 7), ("alibi", "i64", 2)):
            path = write_npy(self.path("x.npy"), Tensor((size,), [1] * size, dtype))
            self.refuse(1, *self.arguments, f"--{option}", path, mentions=(f"{option} has type ",))

    def test_values(self):
        self.refuse(1, *self.arguments, "--window-left", "-3", mentions=("window_left", "-3"))
        self.refuse(1, *self.arguments, "--prefix=-1", mentions=("prefix", "-1"))

    def test_one_file_for_two_outputs(self):
        other = f"{self.outputs}/./o.npy"
        self.refuse(1, *self.arguments, "--lse", other, mentions=("--out is", "--lse is", other, "two files"))

    def test_outputs(self):
        good, folder = self.outputs / "o.npy", self.path("folder")
        folder.mkdir()
        for bad in (folder, "/dev/null", self.path("nowhere/x.npy"), self.path("link.npy")):
            if bad == self.path("link.npy"):
                bad.symlink_to("k.npy")
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
        self.refuse(2, *self.arguments, "--scale", "0", mentions=("--scale is 0",))
        self.refuse(2, *self.arguments, "--scale", "1e300", mentions=("--scale is 1e+300",))
        self.refuse(2, *self.arguments, "--softcap", "-1", mentions=("--softcap is -1",))
        self.refuse(2, *self.arguments, "--splits=x", mentions=("--splits is 'x'",))
        self.refuse(2, *self.arguments, "--tolerance", "1", mentions=("--tolerance", "--expect"))
        self.usage("run", *self.arguments, mentions=("--out is missing",))


if __name__ == "__main__":
    unittest.main()
