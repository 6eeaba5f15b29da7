#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn run` on caches: keys in pages, and in formats of caches."""

import struct
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import RunCase, call, serves_formats, serves_pages  # noqa: E402
from tensors import Tensor, attention, noise, write_npy, write_safetensors  # noqa: E402


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

    def test_rows_that_keep_a_part(self):
        """Every second number is 0, and half of them are kept; of both layouts, and of pages."""
        k, v = (Tensor(t.shape, [x * (i % 2) for i, x in enumerate(t.values)]) for t in (self.k, self.v))
        expected = attention(self.q, k, v)[0]
        for kept in ("0.5", "0.5,bitmap_f16:32", "1.0"):
            out, _ = self.run_ok(*self.inputs(self.q, k, v), "--kv-type", f"bitmap_f16:{kept}", "--check")
            self.assert_near(out, expected)
        tensors = {"q": self.q.swapped(), "k": k.swapped(), "v": v.swapped()}
        file = write_safetensors(self.path("t.safetensors"), tensors)
        out, _ = self.run_ok("--file", file, "--layout", "bshd", "--kv-type", "bitmap_f16:0.5", "--check")
        self.assert_near(out.swapped(), expected)
        coarse, _ = self.run_ok(*self.inputs(self.q, k, v), "--kv-type", "bitmap_f16:0.2", "--check")
        self.assertGreater(coarse.difference(expected), 1e-3)
        self.usage("run", *self.inputs(self.q, k, v), "--kv-type", "bitmap_f16", mentions=("expected a part",))
        self.failure(
            "run", *self.inputs(self.q, self.bytes_of(self.k), v), "--kv-type", "bitmap_f16:0.5", "--check",
            mentions=("k has type u8", "do not tell the dims"),
        )

    def test_codes_of_one_bit(self):
        """Two numbers in each 16 dims, or four where codes have two bits: what is fitted is exact."""
        def levels(t, of):
            return Tensor(t.shape, [(i * 7 // 3 % of(i % t.shape[3])) / 4 for i in range(len(t.values))])

        k, v = levels(self.k, lambda dim: 4 if dim % 32 < 16 else 2), levels(self.v, lambda dim: 2)
        out, _ = self.run_ok(*self.inputs(self.q, k, v), "--kv-type", "u2u1:group16,u1:group16", "--check")
        self.assert_near(out, attention(self.q, k, v)[0])

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


if __name__ == "__main__":
    unittest.main()
