# SPDX-License-Identifier: Apache-2.0
"""The planners of fastattn.sparse against their definitions, block by block."""

import unittest

import fastattn
import numpy as np
import oracle
from fastattn import sparse
from test_values import draw, problem, seen_by

CAUSAL = (None, "none", "causal", "causal_top_left")


def mask_of(lists):
    """What the lists have, (heads, row blocks, key blocks), or with an axis of sequences before."""
    mask = np.zeros((lists.sequences * lists.heads * lists.row_blocks, lists.key_blocks), bool)
    for n, (begin, end) in enumerate(zip(lists.indptr, lists.indptr[1:])):
        mask[n, lists.indices[begin:end]] = True
    shape = (lists.sequences, lists.heads, lists.row_blocks, lists.key_blocks)
    return mask.reshape(shape if lists.sequences > 1 else shape[1:])


def places(rows, keys, mask):
    return oracle.positions(rows, keys, mask, None, 0)


def visible(rows, keys, mask):
    return oracle.visible(rows, keys, mask, None, 0, 0, places(rows, keys, mask))


def any_of(pairs, block_rows, block_keys):
    """Which blocks have a pair of a row and a key, of an array (..., rows, keys)."""
    at = [range(0, n, size) for n, size in zip(pairs.shape[-2:], (block_rows, block_keys))]
    return np.logical_or.reduceat(np.logical_or.reduceat(pairs, at[0], axis=-2), at[1], axis=-1)


class Sparse(unittest.TestCase):
    def expect(self, lists, block_rows, block_keys, mask):
        self.assertIsInstance(lists, fastattn.BlockLists)
        self.assertEqual((lists.block_rows, lists.block_keys), (block_rows, block_keys))
        self.assertEqual((lists.indptr.dtype, lists.indices.dtype), (np.int32, np.int32))
        np.testing.assert_array_equal(mask_of(lists), mask)

    def test_window(self):
        rows, keys, size = 70, 90, (8, 16)
        j = np.arange(keys)[None, :]
        for mask in CAUSAL:
            p = places(rows, keys, mask)[:, None]
            near = (j >= p - 20) & (j <= p + 5) | (j < 16) | (j >= 64) | (p < 16) | (p >= 64)
            want = any_of(near, *size) & any_of(visible(rows, keys, mask), *size)
            lists = sparse.window(rows, keys, window_left=20, window_right=5, global_first=1, global_last=2, heads=2,
                                  block_rows=8, block_keys=16, mask=mask)
            self.expect(lists, *size, np.stack([want] * 2))
        plain = mask_of(sparse.window(640, 640, window_left=1))
        drawn = mask_of(sparse.window(640, 640, window_left=1, random=4, heads=50))
        self.assertTrue((drawn >= plain).all())
        np.testing.assert_array_equal((drawn ^ plain).sum(axis=-1), 4)
        again = {seed: mask_of(sparse.window(640, 640, window_left=1, random=4, heads=50, seed=seed))
                 for seed in (0, 1, -2**63)}
        np.testing.assert_array_equal(again[0], drawn)
        self.assertFalse(np.array_equal(again[1], drawn) or np.array_equal(again[-2**63], drawn))
        usual = sparse.window(1280, 1280, window_left=64, window_right=64, global_first=1, global_last=1, random=3,
                              block_rows=64, block_keys=64)
        self.expect(sparse.window(1280, 1280), 64, 64, mask_of(usual))

    def test_streaming(self):
        rows, keys, size = 70, 90, (8, 16)
        base = draw((2, 2, 9, 6), seed=20) > 0
        info = [[1, 1], [2, 3], [0, 0], [0, 2], [1, 0]]
        for mask in CAUSAL:
            shown = any_of(visible(rows, keys, mask), *size)
            want = np.stack([np.stack([shown] * 5)] * 2)
            for head in (1, 3):
                for row, line in enumerate(shown):
                    n, end = np.arange(6), line.sum()
                    want[:, head, row] = line & ((n < info[head][0]) | (n >= end - info[head][1]))
            want[:, 2] &= base[:, 1]
            want[:, 4] &= base[:, 0]
            for given in (base, base.astype(np.uint8) * 2, base.astype(np.int64) * 256):
                lists = sparse.streaming(rows, keys, [0, -1, 2, -1, 1], streaming_info=info, base_blockmask=given,
                                         block_rows=8, block_keys=16, mask=mask)
                self.expect(lists, *size, want)
        lists = sparse.streaming(1000, 1000, np.array([-1], np.int64), mask="causal")
        self.expect(lists, 128, 128, [[[n == 0 or 0 <= row - n < 3 for n in range(8)] for row in range(8)]])

    def test_topk(self):
        q, k, _ = (x[0] for x in problem(heads=4, heads_kv=2, rows=37, keys=75))
        for dtype, mask, shared, block in ((np.float32, None, False, 1), (np.float64, "causal", False, 1),
                                           (np.float16, "causal_top_left", True, 8)):
            a, b = q.astype(dtype)[:, :, ::-1], k.astype(dtype)[:, :, ::-1]
            want = np.zeros((4, 37, 5), bool)
            for h, i in np.ndindex(4, 37):
                place = places(37, 75, mask)[i]
                own = place // 16 if mask else 5
                products = [a[h, i].astype(float) @ b[h // 2, 16 * n:16 * n + 16].astype(float).mean(axis=0)
                            for n in range(min(max(own, 0), 5))]
                has_own = bool(mask) and 0 <= own < 5
                want[h, i, np.argsort(products)[::-1][:2 - has_own]] = True
                if has_own:
                    want[h, i, own] = True
            if shared:
                want = want.reshape(2, 2, 37, 5).any(axis=1)
            self.expect(sparse.topk(a, b, 2, per_kv_head=shared, block_rows=block, block_keys=16, mask=mask), block, 16,
                        any_of(want, block, 1))
        self.assertEqual((sparse.topk(q, k).block_rows, sparse.topk(q, k).block_keys), (1, 128))

    def test_permuted(self):
        """Segments of 16 in blocks of 8; then attention on keys in the new order."""
        q, k, v = problem(batch=1, heads=2, heads_kv=2, rows=44, keys=44)
        scale, segment, n = 0.3, 16, 6
        for mask, threshold in ((None, 0.5), ("causal", 0.8)):
            lists, order = sparse.permuted(q[0], k[0], scale=scale, segment=segment, threshold=threshold, block_rows=8,
                                           block_keys=8, mask=mask)
            want = np.zeros((2, n, n), bool)
            for h in range(2):
                a, b = q[0, h].astype(float), k[0, h].astype(float)
                scores = np.where(visible(44, 44, mask), scale * (a @ b.T), -np.inf)[-8:]
                chances = np.exp(scores - scores.max(axis=1, keepdims=True))
                weight = (chances / chances.sum(axis=1, keepdims=True)).sum(axis=0)
                sort = np.concatenate([at + np.argsort(-weight[at:at + segment], kind="stable")
                                       for at in range(0, 44, segment)])
                np.testing.assert_array_equal(order[h], sort)
                means = [np.stack([x[8 * at:8 * at + 8].mean(axis=0) for at in range(n)]) for x in (a, b[sort])]
                products = scale * (means[0] @ means[1].T)
                for row in range(n):
                    others = [at for at in range(n) if at // 2 != row // 2 and (not mask or at < row)]
                    chance = np.exp(products[row, others])
                    best = np.argsort(-chance)
                    sums = np.cumsum(chance[best]) / chance.sum()
                    want[h, row, np.array(others, int)[best[:np.searchsorted(sums, threshold) + 1]]] = True
                    want[h, row, np.arange(n) // 2 == row // 2] = True
                    want[h, row, list(sort).index(0) // 8] = True
            self.expect(lists, 8, 8, want)
        lists, order = sparse.permuted(q[0], k[0], segment=segment, threshold=1, block_rows=8, block_keys=8)
        moved = [np.take_along_axis(x, order[None, :, :, None], axis=2) for x in (k, v)]
        got = fastattn.attention(q, *moved, lists=lists)
        np.testing.assert_allclose(got, fastattn.attention(q, k, v), rtol=2e-6, atol=2e-6)
        without, _ = sparse.permuted(q[0], k[0], segment=segment, threshold=1, block_rows=8, block_keys=8,
                                     without_own=True)
        own = np.arange(n)[:, None] // 2 == np.arange(n)[None, :] // 2
        self.expect(without, 8, 8, mask_of(lists) & ~own)

    def test_neighbourhood(self):
        size, kernel, stride, dilation, causal, tile = [7, 9], [3, 4], [2, 1], [1, 2], [False, True], [3, 2]
        seen, order = oracle.natten(size, kernel, stride, dilation, causal, tile)
        like = fastattn.Neighbourhood(size, kernel, stride, dilation, causal, tile)
        np.testing.assert_array_equal(sparse.neighbourhood_order(like), order)
        self.assertEqual(sparse.neighbourhood_order(like).dtype, np.int32)
        full = np.pad(seen[order][:, order], ((0, 0), (0, 5)), constant_values=True)
        lists = sparse.neighbourhood(like, block_rows=6, block_keys=4, extra_keys=5)
        met = mask_of(lists)
        self.assertTrue((met >= any_of(full, 6, 4)).all())
        self.assertLess(met.mean(), 0.8)
        q, k, v = problem(rows=63, keys=68)
        want, _, near, _ = oracle.attention(q, k, v, attn_mask=full)
        got = fastattn.attention(q, k, v, lists=lists, neighbourhood=like)
        np.testing.assert_array_less(abs(got - want), near + 1e-6)
        whole = fastattn.Neighbourhood((8, 12), (4, 4), (4, 4), tile=(4, 4))
        seen, order = oracle.natten([8, 12], [4, 4], [4, 4], [1, 1], [False] * 2, [4, 4])
        lists = sparse.neighbourhood(whole, block_rows=16, block_keys=16)
        np.testing.assert_array_equal(seen_by(mask_of(lists)[0], 16, 16, 96, 96), seen[order][:, order])

    def test_distance(self):
        for mask in CAUSAL:
            last = np.arange(7, 72, 8).clip(max=69) + places(70, 90, mask)[0]
            own = np.clip(last // 16, 0, 5)
            want = (abs(own[:, None] - np.arange(6)) <= 1) & any_of(visible(70, 90, mask), 8, 16)
            for chances in ([0.5, 1, 0], np.array([0, 1, 0], np.float32)):
                lists = sparse.distance(70, 90, probability=chances, heads=2, block_rows=8, block_keys=16, mask=mask)
                self.expect(lists, 8, 16, np.stack([want] * 2))
        drawn = [mask_of(sparse.distance(1280, 1280, seed=seed, heads=200)) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(drawn[0], drawn[1])
        self.assertFalse(np.array_equal(drawn[0], drawn[2]))
        chances = 1 - abs(np.subtract.outer(range(10), range(10))) / 10
        np.testing.assert_allclose(drawn[0].mean(axis=0), chances, atol=0.16)

    def test_errors(self):
        q, k = np.ones((4, 20, 8), np.float32), np.ones((2, 20, 8), np.float32)
        bad, near = fastattn.InvalidError, fastattn.Neighbourhood(9, 3)
        for kind, text, call in [
            (bad, "^rows is 0, expected 1", lambda: sparse.window(0, 9)),
            (bad, "^keys is .* 64 bits", lambda: sparse.window(9, 2**70)),
            (bad, "^block_rows is -1", lambda: sparse.window(9, 9, block_rows=-1)),
            (bad, "^block_keys is .* 32 bits", lambda: sparse.window(9, 9, block_keys=2**32)),
            (bad, "^mask is 'diagonal'", lambda: sparse.window(9, 9, mask="diagonal")),
            (TypeError, "^mask is of type", lambda: sparse.window(9, 9, mask=1)),
            (TypeError, "^rows is of type <class 'float'>", lambda: sparse.window(9.0, 9)),
            (bad, "^window_left is -1", lambda: sparse.window(9, 9, window_left=-1)),
            (bad, "^seed is .* 64 bits", lambda: sparse.window(9, 9, seed=2**64)),
            (bad, "^heads is -1", lambda: sparse.window(9, 9, heads=-1)),
            (fastattn.OutOfMemoryError, "", lambda: sparse.window(2**28, 9, heads=2**28, block_rows=1)),
            (bad, r"^head_mask_type\[1\] is 1, expected -1 to 0", lambda: sparse.streaming(9, 9, [0, 1])),
            (bad, r"^head_mask_type has the shape \(1, 1\)", lambda: sparse.streaming(9, 9, [[0]])),
            (bad, "^head_mask_type .* do not fit into int32", lambda: sparse.streaming(9, 9, [2**32])),
            (TypeError, "^head_mask_type.dtype is float64", lambda: sparse.streaming(9, 9, [0.0])),
            (bad, "^heads is 0", lambda: sparse.streaming(9, 9, np.zeros(0, np.int32))),
            (bad, r"^streaming_info has the shape \(1, 2\), expected \(2, 2\)",
             lambda: sparse.streaming(9, 9, [0, 0], streaming_info=[[1, 1]])),
            (bad, r"^streaming_info\[1\] is -1", lambda: sparse.streaming(9, 9, [-1], streaming_info=[[1, -1]])),
            (bad, r"^base_blockmask has the shape .* expected \(any, any, 3, 1\)",
             lambda: sparse.streaming(9, 9, [1], base_blockmask=np.ones((1, 1, 3, 3), bool), block_rows=4)),
            (TypeError, "^rows is of type",
             lambda: sparse.streaming("9", 9, [1], base_blockmask=np.ones((1, 1, 3, 3)))),
            (bad, r"^q has the shape \(20, 8\), expected \(any, any, any\)", lambda: sparse.topk(q[0], k)),
            (bad, r"^k has the shape .* expected \(any, any, 7\)", lambda: sparse.topk(q[:, :, :7], k)),
            (TypeError, "^q is of type <class 'list'>, which is no array", lambda: sparse.topk([[1], [1, 2]], k)),
            (TypeError, "^base_blockmask is of type",
             lambda: sparse.streaming(9, 9, [1], base_blockmask=[[1], [1, 2]])),
            (TypeError, "^q.dtype is complex64", lambda: sparse.topk(q + 0j, k)),
            (bad, r"^q.shape\[0\] is 3, expected a multiple of k.shape\[0\], 2", lambda: sparse.topk(q[:3], k)),
            (bad, r"^q.shape\[0\] is 4, .* 0", lambda: sparse.topk(q, k[:0])),
            (bad, "^topk is -1", lambda: sparse.topk(q, k, -1)),
            (bad, "^rows is 19, expected as many as keys, 20", lambda: sparse.permuted(q[:, 1:], k)),
            (bad, "^segment is 100", lambda: sparse.permuted(q, k, segment=100)),
            (bad, "^threshold is 1.5", lambda: sparse.permuted(q, k, threshold=1.5)),
            (TypeError, "^threshold is of type", lambda: sparse.permuted(q, k, threshold="1")),
            (bad, "^scale is inf", lambda: sparse.permuted(q, k, scale=float("inf"))),
            (bad, "^extra_keys is -1", lambda: sparse.neighbourhood(near, extra_keys=-1)),
            (TypeError, "^neighbourhood is of type", lambda: sparse.neighbourhood({"size": 9})),
            (bad, r"^neighbourhood.kernel\[0\] is 4", lambda: sparse.neighbourhood_order(fastattn.Neighbourhood(3, 4))),
            (bad, r"^neighbourhood.size\[1\] is .* more than",
             lambda: sparse.neighbourhood_order(fastattn.Neighbourhood([2**28] * 3, 4))),
            (bad, r"^probability\[1\] is 2", lambda: sparse.distance(9, 9, probability=[1, 2.0])),
            (bad, "distances is 0", lambda: sparse.distance(9, 9, probability=[])),
        ]:
            with self.subTest(text):
                self.assertRaisesRegex(kind, text, call)


if __name__ == "__main__":
    unittest.main()
