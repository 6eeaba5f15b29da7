# SPDX-License-Identifier: Apache-2.0
"""tools/compare/sparse.py, on sizes that say nothing about time. Skipped (exit 77) without torch or fastattn."""

import contextlib
import importlib.util
import io
import sys
import unittest
from pathlib import Path
from unittest import mock

try:
    import torch

    import fastattn  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

PROGRAM = Path(__file__).parents[2] / "tools" / "compare" / "sparse.py"
spec = importlib.util.spec_from_file_location("compare_sparse", PROGRAM)
sparse = sys.modules["compare_sparse"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sparse)

TINY = "--length 300 --window 70 --grid 16 --kernel-size 5 --documents 4 --heads 2 --dims 8 --turns 2 --min-time 0"


def run(options):
    """The status and what was printed."""
    with mock.patch.object(sys, "argv", [str(PROGRAM), *TINY.split(), *options.split()]):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            try:
                status = sparse.main()
            except SystemExit as stop:
                status = stop.code
    return status, out.getvalue()


class TestSparse(unittest.TestCase):
    def test_each_case_agrees(self):
        status, text = run(f"--cases {','.join(sparse.CASES)} --peers sdpa,math")
        self.assertEqual(status, 0, text)
        lines = text.splitlines()
        self.assertEqual(len(lines), 2 + len(sparse.CASES), text)
        for line in lines[2:]:
            numbers = line[26:].split()[:-2]  # without the kernel and its block
            self.assertEqual(len(numbers), 11, line)
            self.assertLess(max(float(numbers[7]), float(numbers[10])), 1e-5, line)

    def test_what_is_seen(self):
        _, text = run("--cases blocks-64,neighbourhood --peers sdpa")
        blocks, grid = (float(line[26:].split()[2]) for line in text.splitlines()[2:])
        self.assertTrue(15 < blocks < 25, blocks)  # one of five, the last of which has 44 keys
        self.assertAlmostEqual(grid, 100 * 25 / 256, 1)

    def test_another_mask_is_found(self):
        for name, wrong in (("window", {"mask": "causal", "window": (69, None)}), ("documents", {"mask": "causal"})):
            case = sparse.CASES[name]

            def changed(options, case=case, wrong=wrong):
                made = case(options)
                made.plan, made.packed = wrong, False
                return made

            with mock.patch.dict(sparse.CASES, {name: changed}):
                status, text = run(f"--cases {name} --peers sdpa")
            self.assertEqual(status, 1, text)
            self.assertIn("sdpa: differs by", text)

    def test_a_peer_that_fails_is_told(self):
        def fails(*_):
            raise RuntimeError("no such kernel\nmore")

        with mock.patch.dict(sparse.PEERS, {"flex": fails}):
            status, text = run("--cases window --peers flex,math")
        self.assertEqual(status, 0, text)
        self.assertIn("flex: RuntimeError: no such kernel\n", text)
        self.assertNotIn("more", text)

    def test_absent_cuda(self):
        with mock.patch.object(torch.cuda, "is_available", lambda: False):
            status, text = run("--device cuda --dtype float16 --cases documents")
        self.assertEqual(status, 0, text)
        self.assertIn("finds no CUDA device", text)
        self.assertIn("torch.float32", text)
        self.assertIn("\nwindow 70 ", text)

    def test_wrong_options(self):
        for options, message in (("--grid 12", "--grid is 12"), ("--cases none", "'none' is none of window")):
            status, text = run(options)
            self.assertEqual(status, 2)
            self.assertIn(message, text)
