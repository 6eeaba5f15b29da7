# SPDX-License-Identifier: Apache-2.0
"""fastattn.torch.sdpa(): nested, beside other patches, in threads, compiled. Part of test_torch, which knows what is missing."""

import functools
import os
import threading
import unittest
import unittest.mock

import torch
import torch.nn.functional as F

import fastattn.torch

DEVICE = torch.device(os.environ.get("FASTATTN_TEST_DEVICE", "cpu"))
PYTORCH = F.scaled_dot_product_attention
ours = fastattn.torch.scaled_dot_product_attention


class TestReplacement(unittest.TestCase):
    def setUp(self):
        self.double = torch.ones(1, 1, 2, 8, dtype=torch.float64)  # PyTorch serves it, and fastattn says that it does not

    def tearDown(self):
        self.assertIs(F.scaled_dot_product_attention, PYTORCH)

    def is_ours(self, function=None):
        try:
            (function or F.scaled_dot_product_attention)(self.double, self.double, self.double)
        except NotImplementedError:
            return True
        return False

    def test_nested(self):
        self.assertFalse(self.is_ours())
        with fastattn.torch.sdpa():
            self.assertTrue(self.is_ours())
            with fastattn.torch.sdpa():
                self.assertTrue(self.is_ours())
            self.assertTrue(self.is_ours())
            self.assertEqual(F.scaled_dot_product_attention.__name__, PYTORCH.__name__)

    def test_exception(self):
        with self.assertRaisesRegex(ValueError, "mine"), fastattn.torch.sdpa():
            raise ValueError("mine")

    def test_one_object_again(self):
        manager = fastattn.torch.sdpa()
        for _ in range(2):
            with manager, manager:
                self.assertTrue(self.is_ours())
            self.assertIs(F.scaled_dot_product_attention, PYTORCH)

    def test_decorator(self):
        self.assertTrue(fastattn.torch.sdpa()(self.is_ours)())

    def test_patch_from_before(self):
        """It is back behind, and not called within."""
        with unittest.mock.patch.object(F, "scaled_dot_product_attention", lambda *_: "other") as other:
            with fastattn.torch.sdpa():
                self.assertTrue(self.is_ours())
            self.assertIs(F.scaled_dot_product_attention, other)

    def test_patch_within(self):
        calls = []

        def wrap():
            kept = F.scaled_dot_product_attention

            @functools.wraps(kept)
            def other(*args):
                calls.append(1)
                return kept(*args)

            return unittest.mock.patch.object(F, "scaled_dot_product_attention", other)

        with fastattn.torch.sdpa():
            with wrap():
                self.assertTrue(self.is_ours())
                with fastattn.torch.sdpa():
                    self.assertTrue(self.is_ours())
                self.assertTrue(self.is_ours())
                self.assertEqual(len(calls), 2)
            self.assertTrue(self.is_ours())

    def test_patch_that_leaves_later(self):
        """It keeps its place when sdpa() leaves, and what it has kept and puts back is PyTorch's in all but name."""
        manager = fastattn.torch.sdpa()
        manager.__enter__()
        kept = F.scaled_dot_product_attention
        F.scaled_dot_product_attention = other = lambda *args: kept(*args)
        manager.__exit__(None, None, None)
        self.assertIs(F.scaled_dot_product_attention, other)
        self.assertFalse(self.is_ours())
        F.scaled_dot_product_attention = kept
        self.assertFalse(self.is_ours())
        with fastattn.torch.sdpa():
            self.assertTrue(self.is_ours())
            self.assertTrue(self.is_ours(F.scaled_dot_product_attention))

    def test_compiled(self):
        def compute(x):
            return F.scaled_dot_product_attention(x, x, x) + 1

        x = torch.randn(1, 2, 3, 8, device=DEVICE)
        with torch.no_grad(), fastattn.torch.sdpa():
            compiled = torch.compile(compute, fullgraph=True, backend="eager")
            self.assertTrue(torch.equal(compiled(x), ours(x, x, x) + 1))

    def test_threads(self):
        """One that leaves later keeps the function for as long as it is within."""
        inside, leave = threading.Event(), threading.Event()
        seen = []

        def other():
            with fastattn.torch.sdpa():
                inside.set()
                leave.wait(10)
                seen.append(self.is_ours())

        thread = threading.Thread(target=other)
        with fastattn.torch.sdpa():
            thread.start()
            inside.wait(10)
        leave.set()
        thread.join()
        self.assertEqual(seen, [True])

    def test_modules(self):
        """What PyTorch's own layers compute stays the same, and it is fastattn that computes it."""
        layer = torch.nn.MultiheadAttention(32, 4, batch_first=True).to(DEVICE).eval()
        x = torch.randn(2, 7, 32, device=DEVICE)
        calls = []
        run = fastattn.torch._attention
        with torch.no_grad():
            expected = layer(x, x, x, need_weights=False)[0]
            layer.train()  # the fused path of eval() calls no function
            try:
                fastattn.torch._attention = lambda *args, **options: calls.append(1) or run(*args, **options)
                with fastattn.torch.sdpa():
                    found = layer(x, x, x, need_weights=False)[0]
            finally:
                fastattn.torch._attention = run
        self.assertEqual(len(calls), 1)
        self.assertTrue(torch.allclose(found, expected, atol=1e-5))
