# SPDX-License-Identifier: Apache-2.0
"""Arrays of every library that is here: read without a copy, results of the same kind."""

import array
import unittest

import fastattn
import numpy as np
from test_values import problem

try:
    import torch
except ImportError:
    torch = None
try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None
try:
    import ml_dtypes
except ImportError:
    ml_dtypes = None


class Foreign:
    """Nothing but __dlpack__, of a version before max_version."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Arrays(unittest.TestCase):
    def setUp(self):
        self.three = problem()
        self.want = fastattn.attention(*self.three, mask="causal")

    def test_dlpack(self):
        got = fastattn.attention(*map(Foreign, self.three), mask="causal")
        self.assertIsInstance(got, np.ndarray)
        np.testing.assert_array_equal(got, self.want)
        with self.assertRaises(fastattn.UnsupportedError):
            frozen = self.three[0].copy()
            frozen.flags.writeable = False  # which DLPack without a version cannot say
            fastattn.attention(Foreign(frozen), *self.three[1:])

        class Broken:
            def __dlpack__(self, **_):
                return 5

        with self.assertRaisesRegex(TypeError, "q.__dlpack__"):
            fastattn.attention(Broken(), *self.three[1:])

    def test_lists(self):
        """Lists of key blocks, of NumPy, of PyTorch, and with nothing but __dlpack__."""
        mask = np.arange(12).reshape(3, 4) % 3 > 0
        want = fastattn.attention(*self.three, lists=fastattn.BlockLists(3, 4, mask))
        rows = np.cumsum([0, *mask.sum(axis=-1)]).astype(np.int32), np.nonzero(mask)[1].astype(np.int32)
        for make in (Foreign, *([torch.from_numpy] if torch else [])):
            for lists in (fastattn.BlockLists(3, 4, make(mask)),
                          fastattn.BlockLists(3, 4, indptr=make(rows[0]), indices=make(rows[1]))):
                np.testing.assert_array_equal(fastattn.attention(*self.three, lists=lists), want)
        self.assertTrue((abs(want - fastattn.attention(*self.three)) > 1e-3).any())

    def test_capsules(self):
        """A capsule of DLPack is used once, and each one is released."""
        q = self.three[0]

        class Once:
            def __init__(self):
                self.capsule = q.__dlpack__()

            def __dlpack__(self, **_):
                return self.capsule

        once = Once()
        fastattn.attention(once, *self.three[1:])
        with self.assertRaises(TypeError):
            fastattn.attention(once, *self.three[1:])

    def test_buffers(self):
        q = array.array("f", self.three[0][0, 0].ravel())
        view = memoryview(q).cast("B").cast("f", (9, 16))
        got = fastattn.attention(view, self.three[1][0, 0], self.three[2][0, 0])
        self.assertIsInstance(got, np.ndarray)
        np.testing.assert_array_equal(got, fastattn.attention(*(x[0, 0] for x in self.three)))

    @unittest.skipIf(ml_dtypes is None, "without ml_dtypes")
    def test_bfloat16_of_numpy(self):
        three = [x.astype(ml_dtypes.bfloat16) for x in self.three]
        got = fastattn.attention(*three, mask="causal")
        self.assertEqual(got.dtype, ml_dtypes.bfloat16)
        np.testing.assert_allclose(got.astype(np.float32), self.want, atol=0.05)

    @unittest.skipIf(torch is None, "without PyTorch")
    def test_torch(self):
        three = [torch.from_numpy(x) for x in self.three]
        got, lse = fastattn.attention(*three, mask="causal", return_lse=True)
        self.assertIs(type(got), torch.Tensor)
        self.assertEqual(lse.dtype, torch.float32)
        np.testing.assert_array_equal(got.numpy(), self.want)
        out = torch.empty_like(three[0])
        self.assertIs(fastattn.attention(*three, mask="causal", out=out), out)
        np.testing.assert_array_equal(out.numpy(), self.want)
        mixed = fastattn.attention(three[0], *self.three[1:], mask="causal")
        np.testing.assert_array_equal(mixed.numpy(), self.want)
        for dtype in (torch.bfloat16, torch.float16):
            got = fastattn.attention(*(x.to(dtype) for x in three), mask="causal")
            self.assertEqual(got.dtype, dtype)
            np.testing.assert_allclose(got.float().numpy(), self.want, atol=0.05)
        codes = [x.to(torch.float8_e4m3fn) for x in three[1:]]
        got = fastattn.attention(three[0], *codes)
        near = fastattn.attention(three[0], *(x.float() for x in codes))
        np.testing.assert_allclose(got.numpy(), near.numpy(), atol=1e-5)

    @unittest.skipIf(torch is None, "without PyTorch")
    def test_torch_as_sdpa(self):
        q, k, v = (torch.from_numpy(x) for x in self.three)
        sdpa = torch.nn.functional.scaled_dot_product_attention
        keep = torch.rand(2, 1, 9, 13, generator=torch.Generator().manual_seed(1)) > 0.3
        keep[..., 0] = True
        for arguments in ({"is_causal": True}, {"attn_mask": keep}, {"attn_mask": keep.float()}, {"scale": 0.3}):
            got = fastattn.attention(q, k, v, enable_gqa=True, **arguments)
            torch.testing.assert_close(got, sdpa(q, k, v, enable_gqa=True, **arguments))

    @unittest.skipIf(torch is None, "without PyTorch")
    def test_torch_gradients(self):
        q, k, v = (torch.from_numpy(x) for x in self.three)
        leaf = k.clone().requires_grad_()
        with self.assertRaisesRegex(fastattn.UnsupportedError, "k.requires_grad is True"):
            fastattn.attention(q, leaf, v)
        with torch.no_grad():
            fastattn.attention(q, leaf, v)
        fastattn.attention(q, leaf.detach(), v)
        fastattn.attention(q, torch.nn.Parameter(k, requires_grad=False), v)

    @unittest.skipIf(torch is None, "without PyTorch")
    def test_torch_without_memory(self):
        q, k, v = (torch.from_numpy(x) for x in self.three)
        for bad in (q.to("meta"), q.to_sparse(), torch._neg_view(q), torch.ones(q.shape, dtype=torch.complex64)):
            with self.assertRaisesRegex(fastattn.Error, "^q"):
                fastattn.attention(bad, k, v)
        from torch._subclasses import FakeTensorMode
        with FakeTensorMode() as mode:
            fake = mode.from_tensor(q)
        with self.assertRaises((fastattn.Error, TypeError, RuntimeError)):
            fastattn.attention(fake, k, v)

    @unittest.skipIf(jax is None, "without JAX")
    def test_jax(self):
        with jax.default_device(jax.devices("cpu")[0]):  # a GPU's arrays are refused
            three = [jnp.asarray(x) for x in self.three]
        got, lse = fastattn.attention(*three, mask="causal", return_lse=True)
        self.assertIsInstance(got, jax.Array)
        self.assertEqual(lse.shape, (2, 4, 9))
        np.testing.assert_array_equal(np.asarray(got), self.want)
        half = fastattn.attention(*(x.astype(jnp.bfloat16) for x in three), mask="causal")
        self.assertEqual(half.dtype, jnp.bfloat16)
        merged, _ = fastattn.merge([got, got], [lse, lse])
        np.testing.assert_allclose(np.asarray(merged), self.want, rtol=1e-6, atol=1e-6)
        with self.assertRaisesRegex(fastattn.InvalidError, "out is read-only"):
            fastattn.attention(*three, out=three[0])


if __name__ == "__main__":
    unittest.main()
