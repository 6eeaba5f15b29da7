#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn run`: options against attention written out in Python, and bad input."""

import os
import struct
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import BEFORE, DATA, RunCase, call, can_run, devices, serves_formats, serves_pages  # noqa: E402
from tensors import Tensor, attention, noise, npy_bytes, read_npy, write_npy, write_safetensors  # noqa: E402


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


class Pages(RunCase):
    """Keys in pages of 4 against the same keys in rows."""

    TABLE = Tensor((2, 2), (4, 0, 3, 1), "i32")
    LENGTHS = (7, 4)

    def setUp(self):
        super().setUp()
        if not serves_pages():
            self.skipTest("no device that computes with pages")
        self.q, self.k, self.v = noise(1, 2, 4, 3, 8), noise(2, 5, 2, 4, 8), noise(3, 5, 2, 4, 6)
        self.lens = ("--lens-kv", write_npy(self.path("n.npy"), Tensor((2,), self.LENGTHS, "i32")))

    def rows(self, pool, table):
        """The keys of each sequence, side by side."""
        _, heads, size, dim = pool.shape
        sequences, pages = len(self.LENGTHS), table.shape[-1]
        at = lambda n, j: table.values[(n if table.shape[0] > 1 else 0) * pages + j // size]
        return Tensor((sequences, heads, pages * size, dim), [
            pool[at(n, j), h, j % size, e]
            for n in range(sequences) for h in range(heads) for j in range(pages * size) for e in range(dim)
        ])

    def check(self, arguments, table=TABLE, lens=LENGTHS, first=(0, 0)):
        """Computed, and equal to attention without pages; returns the output."""
        out, lse = self.run_ok(*arguments, "--check")
        expected, expected_lse = attention(
            self.q, self.rows(self.k, table), self.rows(self.v, table),
            visible=lambda b, h, i, j: first[b] <= j < lens[b],
        )
        self.assert_near(out, expected)
        self.assert_near(lse, expected_lse)
        return out

    def table(self, table=TABLE):
        return ("--page-table", write_npy(self.path("t.npy"), table))

    def test_table(self):
        files = self.inputs(self.q, self.k, self.v)
        out = self.check([*files, *self.table(), *self.lens])
        write_npy(self.path("e.npy"), out)
        self.expect(0, "run", *files, *self.table(), *self.lens, "--expect", self.path("e.npy"))
        out.values[-1] += 1
        write_npy(self.path("e.npy"), out)
        self.failure("run", *files, *self.table(), *self.lens, "--expect", self.path("e.npy"), mentions=("batch 1",))
        self.check([*files, *self.table()], lens=(8, 8))
        self.check([*files, *self.table(self.TABLE.reshaped(2, 1, 1, 2)), *self.lens])
        shared = Tensor((1, 2), (2, 3), "i32")
        self.check([*files, *self.table(shared), *self.lens], table=shared)

    def test_entries_that_are_not_read(self):
        files = self.inputs(self.q, self.k, self.v)
        self.check([*files, *self.table(Tensor((2, 2), (4, 0, 3, -1), "i32")), *self.lens])
        first = write_npy(self.path("f.npy"), Tensor((2,), (5, 1), "i64"))
        table = Tensor((2, 2), (99, 0, 3, 5), "i32")
        self.check([*files, *self.table(table), *self.lens, "--first-kv", first], first=(5, 1))

    def test_numbers_of_64_bits(self):
        arguments = [*self.inputs(self.q, self.k, self.v), *self.lens, "--check"]
        done = call("run", *arguments, *self.table(Tensor((2, 2), self.TABLE.values, "i64")))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("check: ok", done.stdout)
        self.assertIn("note: page-table: " + str(self.path("t.npy")), done.stderr)

    def test_tensors_of_one_file(self):
        """With the axes of pools elsewhere: page, key, head, dim."""
        tensors = {name: t.swapped() for name, t in (("q", self.q), ("k", self.k), ("v", self.v))}
        file = write_safetensors(self.path("t.safetensors"), {**tensors, "pages": self.TABLE})
        out, _ = self.run_ok(
            "--file", file, "--page-table-name", "pages", "--layout", "bshd", *self.lens, "--check"
        )
        files = self.inputs(self.q, self.k, self.v)
        self.assert_near(out, self.check([*files, *self.table(), *self.lens]).swapped())


class Formats(RunCase):
    """k and v in formats of caches, from numbers and from bytes."""

    def setUp(self):
        super().setUp()
        if not serves_formats():
            self.skipTest("no device that computes with formats of caches")
        self.q = noise(1, 2, 4, 3, 32)
        self.k, self.v = self.exact(2, 2, 2, 7, 32), self.exact(3, 2, 2, 7, 64)
        self.expected = attention(self.q, self.k, self.v)

    def exact(self, seed, *shape):
        """Numbers that q8_0 holds: the largest of each block is 127 of its steps, which are 1/64."""
        t = noise(seed, *shape)
        t.values = [(127 if i % 32 == 0 else min(max(64 * x, -126), 126)) / 64 for i, x in enumerate(t.values)]
        return t

    def bytes_of(self, t):
        """Blocks of a scale, which is an f16, and 32 codes."""
        data = b"".join(
            struct.pack("<e32b", 1 / 64, *(int(64 * x) for x in t.values[i : i + 32]))
            for i in range(0, len(t.values), 32)
        )
        return Tensor((*t.shape[:3], t.shape[3] // 32 * 34), data, "u8")

    def check(self, *arguments, swapped=False):
        out, lse = self.run_ok(*arguments, "--check")
        self.assert_near(out.swapped() if swapped else out, self.expected[0])
        return out

    def test_numbers(self):
        files = self.inputs(self.q, self.k, self.v)
        self.check(*files, "--kv-type", "q8_0")
        self.check(*files, "--kv-type", "f32,q8_0")
        coarse, _ = self.run_ok(*files, "--kv-type", "q8_0,q4_0", "--check")
        self.assertGreater(coarse.difference(self.expected[0]), 1e-3)
        self.failure(
            "run", *files, "--kv-type", "e5m2,q4_0", "--expect",
            write_npy(self.path("e.npy"), self.expected[0]), mentions=("--expect",),
        )

    def test_bytes(self):
        k, v = self.bytes_of(self.k), self.bytes_of(self.v)
        self.check(*self.inputs(self.q, k, v), "--kv-type", "q8_0")
        self.check(*self.inputs(self.q, k, self.v), "--kv-type", "q8_0,f32")
        file = write_safetensors(
            self.path("t.safetensors"), {"q": self.q.swapped(), "k": k.swapped(), "v": v.swapped()}
        )
        self.check("--file", file, "--layout", "bshd", "--kv-type", "q8_0", swapped=True)

    def test_scales(self):
        """A step of 1/64 is the scale of each 32 dims."""
        files = self.inputs(self.q, self.k, self.v)
        self.check(*files, "--kv-type", "i8:group32")
        self.check(*files, "--kv-type", "f32,i8:group32")
        coarse, _ = self.run_ok(*files, "--kv-type", "u4:token,e4m3:head", "--check")
        self.assertGreater(coarse.difference(self.expected[0]), 1e-3)
        code = Tensor(self.k.shape, bytes(int(64 * x) & 255 for x in self.k.values), "u8")
        groups = (*self.k.shape[:3], self.k.shape[3] // 32)
        scale = Tensor(groups, [1 / 64] * (len(self.k.values) // 32), "f16")
        of_k = write_npy(self.path("s.npy"), scale)
        self.check(*self.inputs(self.q, code, self.v), "--kv-type", "i8,f32", "--k-scale", of_k)
        tensors = {"q": self.q.swapped(), "k": code.swapped(), "v": self.v.swapped(), "k_scale": scale.swapped()}
        file = write_safetensors(self.path("t.safetensors"), tensors)
        self.check(
            "--file", file, "--layout", "bshd", "--kv-type", "i8,f32", "--k-scale-name", "k_scale", swapped=True
        )
        first = Tensor((*groups[:3], 1), [1 / 64] * (len(scale.values) // groups[3]), "f16")
        latent = (*self.inputs(self.q, code, code)[:4], "--v-in-k", "32", "--check", "--kv-type")
        self.run_ok(*latent, "i8", "--k-scale", of_k, "--v-scale", write_npy(self.path("v.npy"), first))
        self.usage("run", *latent, "i8:token", mentions=("expected no scales with --v-in-k",))
        one = write_npy(self.path("one.npy"), Tensor((), [1], "u8"))
        for k, options, why in (
            (code, ("e2m1,f32", "--k-scale", one), "k-scale"),
            (self.k, ("i8,f32", "--k-scale", of_k), "--k-scale is given, expected k of bytes"),
            (code, ("i8:token,f32",), "--kv-type has a colon"),
            (code, ("i8,f32",), "k_scale is absent"),
        ):
            files = self.inputs(self.q, k, self.v)
            self.failure("run", *files, "--kv-type", *options, "--check", mentions=(why,))

    def test_pages(self):
        """Pools of 7 keys, which both sequences find the other way round."""
        table = write_npy(self.path("t.npy"), Tensor((2, 1), (1, 0), "i32"))
        files = self.inputs(self.q, self.bytes_of(self.k), self.v)
        out, _ = self.run_ok(*files, "--kv-type", "q8_0", "--page-table", table, "--check")
        half = len(self.k.values) // 2, len(self.v.values) // 2
        turned = [Tensor(t.shape, t.values[n:] + t.values[:n]) for t, n in zip((self.k, self.v), half)]
        self.assert_near(out, attention(self.q, *turned)[0])


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
        for name in ("q", "k", "v", "bias", "keep", "alibi", "sinks", "page-table", "first-kv", "expect"):
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
            ("first-kv", noise(4, 1), ("first-kv has type f32, expected whole numbers",)),
            ("first-kv", Tensor((1,), (8,), "i64"), ("first_kv[0] is 8, expected 0 to the sequence's 7 keys",)),
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

    def test_formats(self):
        raw = Tensor((1, 2, 7, 33), [1] * 14 * 33, "u8")
        self.refuse(2, *self.arguments, "--kv-type", "q9", mentions=("--kv-type", "q9", "q8_0"))
        self.refuse(1, *self.replaced("k", raw), mentions=("k has type ", "expected f32, f16 or bf16"))
        self.refuse(
            1, *self.replaced("k", raw), "--kv-type", "q8_0",
            mentions=("k has rows of 33 bytes, expected a multiple of the 34 of a block of q8_0",),
        )
        self.refuse(1, *self.arguments, "--kv-type", "f32,q4_0", mentions=("v.shape[3] is 6",))
        whole = Tensor((1, 2, 7, 8), [1] * 112, "i64")
        self.refuse(1, *self.replaced("k", whole), "--kv-type", "q8_0", mentions=("k has type integer", "--kv-type"))

    def test_pages(self):
        """Tables that are wrong; the null backend reads none, so that it is the command that finds them."""
        if not can_run("null"):
            self.skipTest("built without the null backend")
        pool = self.inputs(self.q, noise(2, 3, 2, 4, 8), noise(3, 3, 2, 4, 6))
        lens = ("--lens-kv", write_npy(self.path("n.npy"), Tensor((1,), (7,), "i32")))
        path = self.path("t.npy")
        for table, mentions in (
            (noise(4, 1, 2), (path, "has type f32, expected whole numbers")),
            (Tensor((2,), (0, 1), "i32"), (path, "has 1 dimensions, expected 2")),
            (Tensor((1, 2, 1, 2), (0, 1, 2, 0), "i32"), (path, "has 2 and 1 elements along axes 1 and 2")),
            (Tensor((2, 2), (0, 1, 2, 0), "i32"), ("page_table.shape[0] is 2, expected 1",)),
            (Tensor((1, 1), (0,), "i32"), ("lens_kv[0] is 7", "the keys of all its pages, 4")),
            (Tensor((1, 2), (2, 3), "i32"), (path, "(sequence 0, page 1) is 3, expected 0 to 2")),
            (Tensor((1, 2), (-1, 0), "i64"), (path, "(sequence 0, page 0) is -1, expected 0 to 2")),
            (Tensor((1, 3), (0, 1, 1 << 32), "i64"), (path, "(sequence 0, page 2) is 4294967296",)),
        ):
            with self.subTest(mentions):
                write_npy(path, table)
                arguments = (*pool, "--page-table", path, *lens, "--backend", "null")
                done = call("run", *arguments, "--out", self.outputs / "o.npy")
                self.assertEqual(done.returncode, 1, done.stderr)
                for part in mentions:
                    self.assertIn(str(part), done.stderr)
                self.assertEqual((self.outputs / "o.npy").read_bytes(), BEFORE)
        good = write_npy(path, Tensor((1, 2), (2, 0), "i32"))
        self.expect(0, "run", *pool, "--page-table", good, *lens, "--backend", "null", "--out", self.path("o.npy"))
        self.refuse(2, *pool, "--page-table-name", "t", mentions=("--page-table-name is 't'", "--file"))
        self.refuse(2, *self.arguments[2:], "--q", "-", "--page-table", "-", mentions=("--page-table is '-'", "--q"))

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
        for option in ("bias", "keep", "alibi", "bias-factors", "sinks", "lens-q", "lens-kv", "first-kv", "page-table", "expect"):
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


if __name__ == "__main__":
    unittest.main()
