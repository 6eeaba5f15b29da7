# SPDX-License-Identifier: Apache-2.0
"""fastattn.Cache: appends, lengths, pages and formats."""

import unittest

import fastattn
import numpy as np
from test_values import draw, problem

try:
    import torch
except ImportError:
    torch = None

# How far a number may move in each format, of the largest in its block or row; 4 bits and 2 of codes from min to max.
STEP = {"f32": 0, "f16": 2.0**-11, "bf16": 2.0**-8, "e4m3": 2.0**-4, "e5m2": 2.0**-3, "q8_0": 1 / 200, "q4_0": 1 / 7,
        "q4_1": 1 / 7, "q5_0": 1 / 15, "q5_1": 1 / 15, "iq4_nl": 1 / 4, "i8": 1 / 200, "i4": 1 / 13, "u8": 1 / 200,
        "u4": 1 / 14, "e2m1": 1 / 5}


class Caches(unittest.TestCase):
    def test_formats(self):
        q, k, v = problem(dim=32, keys=13)
        for format, step in STEP.items():
            for page_size in (None, 4):
                with self.subTest(format=format, page_size=page_size):
                    cache = fastattn.Cache(2, 2, 32, max_length=16, page_size=page_size, format=format)
                    cache.append(k[:, :, :6], v[:, :, :6])
                    cache.append(k[:, :, 6:], v[:, :, 6:], lens=[7, 3])
                    self.assertEqual(cache.lengths, (13, 9))
                    got = cache.attend(q)
                    want = fastattn.attention(q, k, v, mask="causal", lens_kv=[13, 9])
                    # Weights move with the scores, values by themselves.
                    moved = step * abs(k).max() * abs(q).sum(axis=-1).max() * 32**-0.5
                    near = (np.expm1(2 * min(moved, 30)) + step) * abs(v).max()
                    np.testing.assert_array_less(abs(got - want), near + 1e-5)
                    self.assertGreater(cache.nbytes, 0)

    def test_one_key_at_a_time(self):
        q, k, v = problem(rows=13, keys=13)
        cache = fastattn.Cache(2, 2, 16, max_length=13, page_size=3, format="f32")
        before = fastattn.plan_cache_info()["misses"]
        for j in range(13):
            at = slice(j, j + 1)
            cache.append(k[:, :, at], v[:, :, at])
            got = cache.attend(q[:, :, at])
            want = fastattn.attention(q[:, :, at], k[:, :, :j + 1], v[:, :, :j + 1])
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
        # One plan for the cache, and one for each length that it was compared with.
        self.assertLessEqual(fastattn.plan_cache_info()["misses"] - before, 1 + 13)

    def test_one_number_for_all(self):
        _, k, v = problem()
        for one in (3, np.int64(3), np.uint8(3), np.array(3)) + ((torch.tensor(3),) if torch else ()):
            cache = fastattn.Cache(2, 2, 16, max_length=np.int32(20), page_size=np.array(4))
            cache.append(k, v, lens=one)
            cache.truncate(np.int64(0), np.array(1))
            self.assertEqual((cache.lengths, type(cache.lengths[0])), ((1, 3), int))

    def test_layout(self):
        q, k, v = problem()
        plain, turned = (fastattn.Cache(2, 2, 16, max_length=13, page_size=5) for _ in range(2))
        plain.append(k, v)
        turned.append(k.swapaxes(1, 2), v.swapaxes(1, 2), layout="BSHD")
        want, want_lse = plain.attend(q, return_lse=True, window=(4, None))
        got, lse = turned.attend(q.swapaxes(1, 2), layout="BSHD", return_lse=True, window=(4, None))
        np.testing.assert_array_equal(got.swapaxes(1, 2), want)
        np.testing.assert_array_equal(lse, want_lse)
        out = np.empty((2, 9, 4, 16), np.float32)
        turned.attend(q.swapaxes(1, 2), layout="BSHD", out=out, window=(4, None))
        np.testing.assert_array_equal(out, got)

    def test_rotary(self):
        q, k, v = problem(rows=13, dim=16)
        angle = np.arange(13)[:, None] * 100.0 ** (-np.arange(8) / 8)
        def turn(x, interleaved):
            a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :8], x[..., 8:])
            first, second = a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)
            if interleaved:
                return np.stack([first, second], -1).reshape(x.shape)
            return np.concatenate([first, second], -1)
        for form in ("halves", "interleaved"):
            cache = fastattn.Cache(2, 2, 16, max_length=13, format="f32", rotary={"form": form, "base": 100})
            parts = [cache.append(k[:, :, at], v[:, :, at], q=q[:, :, at]) for at in (slice(0, 5), slice(5, 13))]
            rotated = np.concatenate(parts, 2)
            np.testing.assert_allclose(rotated, turn(q, form == "interleaved"), atol=1e-5)
            want = fastattn.attention(rotated, turn(k, form == "interleaved").astype(np.float32), v, mask="causal")
            np.testing.assert_allclose(cache.attend(rotated), want, atol=1e-5)

    def test_pages(self):
        _, k, v = problem(keys=6)
        cache = fastattn.Cache(2, 2, 16, max_length=12, page_size=4, pages=5)
        cache.append(k, v)
        self.assertEqual(cache.free_pages, 1)
        with self.assertRaisesRegex(fastattn.InvalidError, "2 pages are needed, and 1 are free"):
            cache.append(k, v)
        self.assertEqual((cache.lengths, cache.free_pages), ((6, 6), 1))
        cache.append(k, v, lens=[6, 0])
        with self.assertRaisesRegex(fastattn.InvalidError, "max_length is 12"):
            cache.append(k, v, lens=[1, 0])
        cache.truncate(0, 5)
        self.assertEqual((cache.lengths, cache.free_pages), ((5, 6), 1))
        cache.truncate(0, 0)
        self.assertEqual(cache.free_pages, 3)
        cache.append(k, v, lens=[6, 6])
        q = draw((2, 4, 1, 16))
        two = fastattn.Cache(1, 2, 16, max_length=6)
        two.append(k[:1], v[:1])
        np.testing.assert_allclose(cache.attend(q)[:1], two.attend(q[:1]), rtol=1e-5, atol=1e-6)

    def test_errors(self):
        q, k, v = problem()
        make = lambda **more: fastattn.Cache(**{"sequences": 2, "heads_kv": 2, "dim": 16, "max_length": 20} | more)
        bad = fastattn.InvalidError
        for name in ("sequences", "heads_kv", "dim", "max_length", "page_size", "dim_v", "group"):
            for wrong in (-1, 0, 2**31):
                with self.assertRaisesRegex(bad, f"{name} is {wrong}, expected 1 to"):
                    make(**{name: wrong})
            with self.assertRaisesRegex(TypeError, f"{name} is of type <class 'float'>"):
                make(**{name: 4.0})
        with self.assertRaisesRegex(bad, "pages is 3, expected None"):
            make(pages=3)
        for name in ("format", "v_format"):
            with self.assertRaisesRegex(TypeError, f"{name} is of type <class 'int'>"):
                make(**{name: 1})
        with self.assertRaisesRegex(bad, "v_format is ''"):
            make(v_format="")
        for rotary, text in ((3, "rotary is of type"), ("halves", "rotary is of type"), ({"bas": 1}, "no entry 'bas'"),
                             ({"form": 3}, r"rotary\['form'\] is of type"), ({"dims": 8.0}, r"rotary\['dims'\] is"),
                             ({"base": "1"}, r"rotary\['base'\] is of type")):
            with self.assertRaisesRegex(TypeError, text):
                make(rotary=rotary)
        with self.assertRaisesRegex(bad, r"rotary\['dims'\] is .* 32 bits"):
            make(rotary={"dims": 2**40})
        with self.assertRaisesRegex(bad, "pages is 0"):
            make(page_size=4, pages=0)
        with self.assertRaisesRegex(bad, "format is 'q9'"):
            make(format="q9")
        with self.assertRaisesRegex(bad, "multiple of 32"):
            make(format="q8_0").append(k, v)
        with self.assertRaisesRegex(bad, "group is 5"):
            make(format="i8", group=5).append(k, v)
        cache = make()
        for text, use in [("comes first", lambda: cache.attend(q)), ("k has the shape", lambda: cache.append(k[0], v)),
                          ("no rotary", lambda: cache.append(k, v, q=q)), ("lens has 1", lambda: cache.append(k, v, lens=[1])),
                          (r"lens\[1\] is 14", lambda: cache.append(k, v, lens=[1, 14])),
                          ("layout", lambda: cache.append(k, v, layout="x")),
                          ("k.shape", lambda: cache.append(k[..., :8], v)), ("v", lambda: cache.append(k, v[:, :1])),
                          ("sequence is 2", lambda: cache.truncate(2, 0)), ("length is 1", lambda: cache.truncate(0, 1))]:
            with self.assertRaisesRegex(bad, text):
                use()
        self.assertEqual(cache.lengths, (0, 0))
        for name, use in [("lens", lambda: cache.append(k, v, lens=1.0)), (r"lens\[0\]", lambda: cache.append(k, v, lens=[1.5, 1])),
                          ("lens", lambda: cache.append(k, v, lens="11")), ("length", lambda: cache.truncate(0, 0.5)),
                          ("sequence", lambda: cache.truncate("0", 0)), ("k", lambda: cache.append(3, v, layout="BSHD"))]:
            with self.assertRaisesRegex(TypeError, f"{name} is of type"):
                use()
        self.assertEqual(cache.lengths, (0, 0))
        cache.append(k, v)
        with self.assertRaisesRegex(TypeError, "out is of type"):
            cache.attend(q, layout="BSHD", out=3)
        with self.assertRaisesRegex(bad, "q has the shape"):
            cache.attend(q[0], layout="BSHD")
        cache.close()
        for use in (lambda: cache.append(k, v), lambda: cache.attend(q), lambda: cache.truncate(0, 0)):
            with self.assertRaisesRegex(bad, "the cache was closed"):
                use()
        with self.assertRaisesRegex(bad, "rotary.*form"):
            make(rotary={"form": "round"}).append(k, v)

    @unittest.skipIf(torch is None, "without PyTorch")
    def test_queries_of_another_library(self):
        """Rotated queries are as q is, whatever the cache's memory is."""
        q, k, v = problem(rows=13)
        make = lambda: fastattn.Cache(2, 2, 16, max_length=13, rotary={})
        want = make().append(k, v, q=q)
        got = make().append(k, v, q=torch.from_numpy(q))
        self.assertEqual(type(got), torch.Tensor)
        np.testing.assert_array_equal(got.numpy(), want)
        with self.assertRaisesRegex(fastattn.UnsupportedError, "q.requires_grad"):
            make().append(k, v, q=torch.from_numpy(q).requires_grad_())

    @unittest.skipIf(torch is None, "without PyTorch")
    def test_torch(self):
        q, k, v = (torch.from_numpy(x).bfloat16() for x in problem(dim=32))
        cache = fastattn.Cache(2, 2, 32, max_length=20, page_size=4, format="q8_0")
        cache.append(k, v)
        got = cache.attend(q)
        self.assertEqual(got.dtype, torch.bfloat16)
        want = fastattn.attention(q, k, v, mask="causal")
        np.testing.assert_allclose(got.float().numpy(), want.float().numpy(), atol=0.05)


if __name__ == "__main__":
    unittest.main()
