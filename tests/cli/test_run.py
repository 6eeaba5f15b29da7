#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn run`: options against attention written out in Python."""

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import BEFORE, DATA, RunCase, call, can_run, devices  # noqa: E402
from tensors import Tensor, attention, noise, read_npy, write_npy, write_safetensors  # noqa: E402


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

    def test_first_keys(self):
        first, lens = (3, 6), (7, 6)
        self.check(
            "--first-kv", write_npy(self.path("f.npy"), Tensor((2,), first, "i32")),
            "--lens-kv", write_npy(self.path("l.npy"), Tensor((2,), lens, "i64")), "--causal", "top-left",
            "--prefix", 5, visible=lambda b, h, i, j: first[b] <= j < lens[b] and (j <= i or j < 5),
        )

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


if __name__ == "__main__":
    unittest.main()
