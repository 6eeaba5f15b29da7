#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn run` with bad input: what it says, and that it writes nothing."""

import os
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import BEFORE, DATA, RunCase, call, can_run  # noqa: E402
from tensors import Tensor, noise, npy_bytes, write_npy, write_safetensors  # noqa: E402


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
