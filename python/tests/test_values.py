# SPDX-License-Identifier: Apache-2.0
"""Every argument of attention() against the definition in float64."""

import unittest

import fastattn
import numpy as np
import oracle

SEED = np.random.SeedSequence(20261130)


def draw(shape, dtype=np.float32, seed=0):
    return np.random.default_rng([1130, seed]).standard_normal(shape, dtype=np.float32).astype(dtype)


def problem(batch=2, heads=4, heads_kv=2, rows=9, keys=13, dim=16, dim_v=None, dtype=np.float32):
    return (draw((batch, heads, rows, dim), dtype, 1), draw((batch, heads_kv, keys, dim), dtype, 2),
            draw((batch, heads_kv, keys, dim_v or dim), dtype, 3))


def seen_by(mask, block_rows, block_keys, rows, keys):
    """The boolean attn_mask that a mask of blocks stands for."""
    return mask.repeat(block_rows, axis=-2).repeat(block_keys, axis=-1)[..., :rows, :keys]


def compressed(mask):
    """The lists of a mask of blocks as indptr and indices; each list names its last block first."""
    rows = mask.reshape(-1, mask.shape[-1])
    indices = [block for row in rows for block in np.flatnonzero(row)[::-1]]
    return np.cumsum([0, *rows.sum(axis=-1)]).astype(np.int32), np.array(indices, np.int32)


class Values(unittest.TestCase):
    def check(self, q, k, v, given=None, **arguments):
        """`given` are arguments as attention() takes them, where the oracle's are spelled otherwise."""
        call = dict(arguments if given is None else given)
        plan = fastattn.Plan(q, k, v, **call, return_lse=True)
        got, lse = fastattn.attention(q, k, v, return_lse=True, **call)
        want, want_lse, near, near_lse = oracle.attention(q, k, v, weights=plan.info["weights"], **arguments)
        near = near + oracle.UNIT[str(got.dtype)] * abs(want) * 1.01 + 1e-7 * (got.dtype == np.float16)
        self.assertEqual(got.dtype, q.dtype)
        np.testing.assert_array_less(abs(got.astype(float) - want) - near, 1e-30)
        finite = np.isfinite(want_lse)
        lens = call.get("lens_q")
        if lens is None:
            np.testing.assert_array_equal(np.isfinite(lse), finite)
        error = abs(lse[finite] - want_lse[finite]) - near_lse[finite]
        np.testing.assert_array_less(error, 1e-30)

    def test_plain(self):
        self.check(*problem())
        self.check(*problem(batch=1, heads=1, heads_kv=1, rows=1, keys=200, dim=64))
        self.check(*problem(rows=70, keys=130, dim=128))

    def test_types(self):
        self.check(*problem(dtype=np.float16))
        self.check(*problem(rows=40, keys=80, dim=64, dtype=np.float16))

    def test_dims_of_values(self):
        self.check(*problem(dim=16, dim_v=24))

    def test_masks(self):
        for rows, keys in ((9, 13), (13, 9)):
            three = problem(rows=rows, keys=keys)
            for mask in ("none", "causal", "causal_top_left", "causal_bottom_right"):
                self.check(*three, mask=mask)
            self.check(*three, given={"is_causal": True}, mask="causal_top_left")
            self.check(*three, given={"is_causal": True, "mask": "causal_top_left"}, mask="causal_top_left")

    def test_windows(self):
        three = problem()
        for window in ((3, None), (None, 2), (2, 4), (1, 1)):
            self.check(*three, window=window)
            counted = tuple(-1 if side is None else side - 1 for side in window)
            self.check(*three, given={"window_size": counted}, window=window)
            self.check(*three, window=window, mask="causal")

    def test_positions(self):
        three = problem()
        self.check(*three, mask="causal", prefix=6)
        self.check(*three, mask="causal", diagonal_offset=-2)
        self.check(*three, mask="causal_top_left", diagonal_offset=3)
        self.check(*three, window=(3, 1), alignment="top_left")
        self.check(*three, window=(3, 1), alignment="bottom_right")

    def test_scores(self):
        three = problem()
        for scale in (0.3, 0.0, -0.5, np.float32(2)):
            self.check(*three, scale=scale)
        self.check(*three, softcap=1.5)
        self.check(*three, alibi_slopes=[0.5, 0.25, 0.125, 0.0625])
        self.check(*three, alibi_slopes=draw((2, 4), seed=4), mask="causal")
        self.check(*three, sinks=[0.5, -np.inf, 2.0, -3.0])

    def test_attn_mask(self):
        three = problem()
        keep = draw((2, 4, 9, 13), seed=5) > 0
        self.check(*three, attn_mask=keep)
        self.check(*three, attn_mask=keep[0, 0])
        self.check(*three, attn_mask=keep[:, :1], mask="causal")
        self.check(*three, attn_mask=np.broadcast_to(keep[:1, :, :1], (2, 4, 9, 13)))
        self.check(*three, attn_mask=np.zeros((9, 13), bool))
        bias = draw((4, 9, 13), seed=6)
        self.check(*three, attn_mask=bias)
        self.check(*three, attn_mask=bias.astype(np.float16))
        self.check(*three, attn_mask=np.where(keep, np.float32(0), np.float32(-np.inf)))
        self.check(*three, attn_mask=bias[:1, :1], bias_factors=[1.0, 0.5, -2.0, 0.0])

    def test_lists(self):
        q, k, v = problem(heads=4, heads_kv=2, rows=37, keys=75)
        for shape in ((5, 5), (1, 5, 5), (2, 5, 5), (4, 5, 5), (1, 1, 5, 5), (2, 1, 5, 5), (2, 4, 5, 5), (7, 9)):
            mask = draw(shape, seed=10) > 0.3
            mask[..., 1, :] = False
            full = seen_by(mask, 8, 16, 37, 75)
            if full.ndim > 2 and full.shape[-3] == 2:
                full = full.repeat(2, axis=-3)
            indptr, indices = compressed(mask)
            sizes = dict(zip(("key_blocks", "row_blocks", "heads", "sequences"), reversed(shape)))
            for lists in (fastattn.BlockLists(8, 16, mask), fastattn.BlockLists(8, 16, mask.astype(np.uint8) * 2, **sizes),
                          fastattn.BlockLists(8, 16, indptr=indptr, indices=indices, **sizes),
                          fastattn.BlockLists(8, 16, indptr=list(indptr), indices=indices.astype(np.int64), **sizes)):
                self.check(q, k, v, given={"lists": lists}, attn_mask=full)
                self.check(q, k, v, given={"lists": lists, "mask": "causal"}, attn_mask=full, mask="causal")

    def test_lists_of_any_strides(self):
        q, k, v = problem(rows=37, keys=75)
        wide = draw((10, 5, 3), seed=11) > 0
        turned = wide[::2, :, 1].T
        self.check(q, k, v, given={"lists": fastattn.BlockLists(8, 16, turned)}, attn_mask=seen_by(turned, 8, 16, 37, 75))
        same = np.broadcast_to(turned[:, :1], (2, 1, 5, 5))
        self.check(q, k, v, given={"lists": fastattn.BlockLists(8, 16, same)}, attn_mask=seen_by(same, 8, 16, 37, 75))

    def test_sizes_of_lists(self):
        """Sizes that are not given are what indptr says, and what k or its page table holds."""
        q, k, v = problem(heads=2, rows=37, keys=75)
        mask = draw((2, 5, 5), seed=12) > 0
        indptr, indices = compressed(mask)
        lists = fastattn.BlockLists(8, 16, indptr=indptr, indices=indices, heads=2)
        self.check(q, k, v, given={"lists": lists}, attn_mask=seen_by(mask, 8, 16, 37, 75))
        pool = [np.zeros((5, 2, 16, 16), np.float32) for _ in "kv"]
        for side, x in zip(pool, (k, v)):
            for page in range(5):
                side[page][:, :len(x[0, 0, 16 * page:16 * page + 16])] = x[0, :, 16 * page:16 * page + 16]
        got = fastattn.attention(q[:1], *pool, page_table=np.arange(5, dtype=np.int32), lens_kv=75, lists=lists)
        np.testing.assert_allclose(got, fastattn.attention(q[:1], k[:1], v[:1], lists=lists), rtol=2e-6, atol=2e-6)

    def test_lists_are_told_apart(self):
        """Plans are kept by what lists say when they are given: equal ones share a plan, changed ones do not."""
        three = problem(rows=37, keys=75)
        mask = np.ones((5, 5), bool)
        lists, calls = fastattn.BlockLists(8, 16, mask), []
        for column in (0, 1, 2):
            mask[:, column] = False
            self.check(*three, given={"lists": lists}, attn_mask=seen_by(mask, 8, 16, 37, 75))
            before = fastattn.plan_cache_info()["misses"]
            fastattn.attention(*three, lists=fastattn.BlockLists(8, 16, mask * np.uint8(2)), return_lse=True)
            self.assertEqual(fastattn.plan_cache_info()["misses"], before)
        for indices in ([0, 1], [0, 2]):
            lists = fastattn.BlockLists(40, 16, indptr=[0, 2], indices=indices)
            full = np.isin(np.arange(75) // 16, indices)[None].repeat(37, axis=0)
            self.check(*three, given={"lists": lists}, attn_mask=full)

    def test_lists_of_a_run(self):
        q, k, v = problem(rows=37, keys=75)
        masks = draw((2, 5, 5), seed=13) > 0
        given = masks[0].copy()
        plan = fastattn.Plan(q, k, v, lists=fastattn.BlockLists(8, 16, given), dynamic_lengths=True)
        indptr, indices = (list(x) for x in compressed(given))
        still = fastattn.Plan(q, k, v, lists=fastattn.BlockLists(8, 16, indptr=indptr, indices=indices))
        want = [fastattn.attention(q, k, v, lens_kv=60, attn_mask=seen_by(mask, 8, 16, 37, 75)) for mask in masks]
        given[:] = False
        indices[:] = [None] * len(indices)
        indptr, indices = compressed(masks[1])
        for run, n in ((None, 0), (fastattn.BlockLists(8, 16, masks[1]), 1),
                       (fastattn.BlockLists(8, 16, indptr=indptr, indices=indices), 1), (None, 0)):
            np.testing.assert_allclose(plan.run(q, k, v, lens_kv=60, lists=run), want[n], rtol=2e-6, atol=2e-6)
        full = seen_by(masks[0], 8, 16, 37, 75)
        np.testing.assert_allclose(still.run(q, k, v), fastattn.attention(q, k, v, attn_mask=full), rtol=2e-6, atol=2e-6)

    def test_neighbourhood(self):
        for size, kernel, stride, dilation, causal, tile in (
                ([30], [7], [1], [1], [False], [64]), ([31], [6], [4], [2], [True], [5]),
                ([7, 9], [3, 4], [2, 1], [1, 2], [False, True], [8, 8]),
                ([6, 8], [3, 8], [3, 5], [1, 1], [False] * 2, [2, 4]),
                ([4, 5, 6], [3, 2, 3], [1, 2, 3], [1, 2, 1], [True, False, False], [4, 4, 4])):
            seen, order = oracle.natten(size, kernel, stride, dilation, causal, tile)
            full = np.pad(seen[order][:, order], ((0, 0), (0, 5)), constant_values=True)
            three = problem(rows=len(order), keys=len(order) + 5)
            like = fastattn.Neighbourhood(size, tuple(kernel), np.array(stride), np.array(dilation, np.int32), causal,
                                          tile)
            self.check(*three, given={"neighbourhood": like}, attn_mask=full)
            keep = draw(full.shape, seed=14) > 0
            self.check(*three, given={"neighbourhood": like, "attn_mask": keep}, attn_mask=full & keep)
            plan = fastattn.Plan(*three, neighbourhood=like)
            np.testing.assert_array_equal(plan.run(*three), fastattn.attention(*three, neighbourhood=like))

    def test_neighbourhood_of_defaults(self):
        """One number is for all axes, None is the default, and plans are told apart by all of them."""
        three = problem(rows=80, keys=80)
        plain = {"kernel": 3, "stride": 1, "dilation": 1, "causal": False, "tile": 8}
        for change in ({}, {"kernel": 5}, {"stride": 2}, {"dilation": 2}, {"causal": True}, {"tile": 2}):
            fields = plain | change
            seen, order = oracle.natten([8, 10], *([value] * 2 for value in fields.values()))
            for given in (fields, {"kernel": 3} | change):
                like = fastattn.Neighbourhood((8, 10), **given)
                self.check(*three, given={"neighbourhood": like}, attn_mask=seen[order][:, order])
        before = fastattn.plan_cache_info()["misses"]
        fastattn.attention(*three, neighbourhood=fastattn.Neighbourhood([8, 10], (3, 3), tile=[2, 2]), return_lse=True)
        self.assertEqual(fastattn.plan_cache_info()["misses"], before)

    def test_neighbourhood_is_copied(self):
        three, size = problem(rows=30, keys=30), [30]
        plan = fastattn.Plan(*three, neighbourhood=fastattn.Neighbourhood(size, 7), dynamic_lengths=True)
        want = plan.run(*three)
        size[0] = None
        np.testing.assert_array_equal(plan.run(*three), want)

    def test_bits(self):
        q, k, v = problem()
        keep = draw((2, 4, 9, 13), seed=7) > 0
        bits = (keep.astype(np.int64) << np.arange(13)).sum(axis=-1, keepdims=True).astype(np.int32)
        self.check(q, k, v, given={"attn_mask": bits}, attn_mask=keep)
        last = keep.copy()
        last[..., :8] = True
        bits = (keep[..., 8:].astype(np.int64) << np.arange(5)).sum(axis=-1, keepdims=True).astype(np.int32)
        self.check(q, k, v, given={"attn_mask": bits, "keep_last": 5}, attn_mask=last)

    def test_lengths(self):
        three = problem()
        for kind in (list, tuple, lambda n: np.array(n, np.int32), lambda n: np.array(n)):
            self.check(*three, lens_kv=kind([5, 13]), mask="causal")
        self.check(*three, lens_q=[4, 9])
        self.check(*three, lens_q=[4, 9], lens_kv=[7, 2], mask="causal")
        self.check(*three, first_kv=[3, 0], mask="causal")
        for one in (6, np.int64(6), np.uint8(6), np.array(6)):
            self.check(*three, given={"lens_kv": one}, lens_kv=[6, 6])
            self.check(*three, given={"lens_q": one}, lens_q=[6, 6])
            self.check(*three, given={"first_kv": one}, first_kv=[6, 6])
        self.check(*three, given={"lens_kv": [5, 13], "dynamic_lengths": True}, lens_kv=[5, 13])
        self.check(*three, given={"lens_kv": [5, 13], "dynamic_lengths": 1}, lens_kv=[5, 13])

    def test_lengths_of_a_run(self):
        """A run may have fewer sequences than its plan, of a list or of an array; one number is for all."""
        q, k, v = problem()
        plan = fastattn.Plan(q, k, v, dynamic_lengths=True)
        both = plan.run(q, k, v, lens_kv=[6, 6])
        for one in ([6], np.array([6]), 6, np.int64(6), np.array(6)):
            np.testing.assert_array_equal(plan.run(q, k, v, lens_kv=one)[:1], both[:1])
        for one in (6, np.int64(6), np.array(6)):
            np.testing.assert_array_equal(plan.run(q, k, v, lens_kv=one), both)

    def test_rows_beyond_a_length(self):
        q, k, v = problem()
        got, lse = fastattn.attention(q, k, v, lens_q=[4, 9], return_lse=True)
        self.assertFalse(got[0, :, 4:].any() or lse[0, :, 4:].any())
        out = np.full_like(q, 7)
        fastattn.attention(q, k, v, lens_q=[4, 9], out=out)
        self.assertTrue((out[0, :, 4:] == 7).all())

    def test_packed(self):
        q, k, v = problem(batch=3)
        rows, keys = [4, 0, 9], [13, 5, 7]
        for layout in ("BHSD", "BSHD"):
            axis = 1 if layout == "BHSD" else 0
            def pack(x, lens):
                parts = [x[n, :, :size] if axis else x[n, :, :size].swapaxes(0, 1) for n, size in enumerate(lens)]
                return np.ascontiguousarray(np.concatenate(parts, axis))
            got = fastattn.attention(pack(q, rows), pack(k, keys), pack(v, keys), layout=layout, mask="causal",
                                     cu_seqlens_q=np.cumsum([0, *rows]), cu_seqlens_k=np.cumsum([0, *keys]))
            want = fastattn.attention(q, k, v, mask="causal", lens_q=rows, lens_kv=keys)
            np.testing.assert_allclose(got, pack(want, rows), rtol=2e-6, atol=2e-6)

    def test_layouts(self):
        q, k, v = problem()
        want, want_lse = fastattn.attention(q, k, v, mask="causal", return_lse=True)
        turned = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in (q, k, v)]
        got, lse = fastattn.attention(*turned, mask="causal", layout="BSHD", return_lse=True)
        self.assertEqual(got.shape, (2, 9, 4, 16))
        self.assertTrue(got.flags.c_contiguous)
        np.testing.assert_array_equal(got.swapaxes(1, 2), want)
        np.testing.assert_array_equal(lse, want_lse)
        first = fastattn.attention(q[0], k[0], v[0], mask="causal")
        np.testing.assert_allclose(first, want[0], rtol=2e-6, atol=2e-6)
        alone = fastattn.attention(q[0, 0], k[0, 0], v[0, 0], mask="causal")
        np.testing.assert_allclose(alone, want[0, 0], rtol=2e-6, atol=2e-6)

    def test_out(self):
        q, k, v = problem()
        want = fastattn.attention(q, k, v)
        room = np.full((2, 9, 5, 16), 7, np.float32)
        out = room[:, :, :4].swapaxes(1, 2)
        self.assertIs(fastattn.attention(q, k, v, out=out), out)
        np.testing.assert_array_equal(out, want)
        self.assertTrue((room[:, :, 4] == 7).all())
        half = np.empty((2, 4, 9, 16), np.float16)
        fastattn.attention(q, k, v, out=half)
        np.testing.assert_allclose(half.astype(np.float32), want, rtol=1e-3, atol=1e-3)

    def test_pages(self):
        q, k, v = problem(keys=12)
        pool = [np.zeros((7, 2, 4, 16), np.float32) for _ in "kv"]
        table = np.array([[5, 0, 3], [6, 2, 4]], np.int32)
        for side, x in zip(pool, (k, v)):
            for b in range(2):
                for page in range(3):
                    side[table[b, page]] = x[b, :, 4 * page:4 * page + 4]
        want = fastattn.attention(q, k, v, mask="causal", lens_kv=[9, 12])
        got = fastattn.attention(q, *pool, page_table=table, mask="causal", lens_kv=[9, 12])
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)
        same = fastattn.attention(q, *pool, page_table=table[0], mask="causal")
        again = fastattn.attention(q, *pool, page_table=np.stack([table[0]] * 2), mask="causal")
        np.testing.assert_array_equal(same, again)

    def test_scales(self):
        q, k, v = problem()
        codes = [np.clip(np.rint(x * 40), -127, 127).astype(np.int8) for x in (k, v)]
        plain = [c.astype(np.float32) for c in codes]
        self.check_close(q, [p * np.float32(0.025) for p in plain], codes, k_scale=0.025, v_scale=0.025)
        scale = abs(draw((2, 2, 13, 1), seed=8)) / 40
        self.check_close(q, [p * scale for p in plain], codes, k_scale=scale, v_scale=scale)
        self.check_close(q, [p * scale * 2 for p in plain], codes, k_scale=scale, v_scale=scale, k_factor=2,
                         v_factor=2.0)
        unsigned = [(c.astype(np.int16) + 128).astype(np.uint8) for c in codes]
        zero = np.float32(-128) * scale
        self.check_close(q, [p * scale for p in plain], unsigned, k_scale=scale, v_scale=scale, k_zero=zero,
                         v_zero=zero)

    def check_close(self, q, plain, codes, **scales):
        want, _, near, _ = oracle.attention(q, *plain)
        got = fastattn.attention(q, *codes, **scales)
        # Elements are rounded thrice at most on their way to f32.
        np.testing.assert_array_less(abs(got - want), 40 * near + 1e-6)

    def test_formats(self):
        q, k, v = problem(dim=32)
        blocks = []
        for x in (k, v):
            scale = (abs(x).max(axis=-1, keepdims=True) / 127).astype(np.float16)
            code = np.rint(x / scale.astype(np.float32)).astype(np.int8)
            blocks.append((np.concatenate([scale.view(np.uint8), code.view(np.uint8)], axis=-1),
                           scale.astype(np.float32) * code))
        want, _, near, _ = oracle.attention(q, blocks[0][1], blocks[1][1])
        got = fastattn.attention(q, blocks[0][0], blocks[1][0], k_format="q8_0", v_format="q8_0")
        np.testing.assert_array_less(abs(got - want), 40 * near + 1e-6)

    def test_values_in_keys(self):
        q, k, _ = problem(heads_kv=1, dim=32)
        want = fastattn.attention(q, k, np.ascontiguousarray(k[..., :24]))
        np.testing.assert_allclose(fastattn.attention(q, k, v_in_k=24), want, rtol=2e-6, atol=2e-6)

    def test_tuning(self):
        three = problem(rows=20, keys=200)
        for kernel in fastattn.devices()[0].kernels:
            if fastattn.supports(*three, mask="causal", kernel=kernel)[0]:
                self.check(*three, mask="causal", given={"mask": "causal", "kernel": kernel})
        self.check(*three, given={"splits": 3, "block_q": 16, "block_kv": 32})
        self.assertEqual(fastattn.Plan(*three, splits=3, block_kv=32).info["splits"], 3)

    def test_no_rows_and_no_keys(self):
        q, k, v = problem()
        self.assertEqual(fastattn.attention(q[:, :, :0], k, v).shape, (2, 4, 0, 16))
        got, lse = fastattn.attention(q, k[:, :, :0], v[:, :, :0], return_lse=True)
        self.assertFalse(got.any())
        self.assertTrue((lse == -np.inf).all())

    def test_devices_by_name(self):
        q, k, v = problem()
        out = np.full((2, 9, 8, 16), 7, np.float32)[:, :, ::2].swapaxes(1, 2)
        want = fastattn.attention(q, k, v, mask="causal", lens_q=[3, 9])
        for device in fastattn.devices():
            if not device.available or device.backend in ("null", "openmp"):
                continue
            got = fastattn.attention(q, k, v, mask="causal", lens_q=[3, 9], device=device)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
            fastattn.attention(q, k, v, mask="causal", lens_q=[3, 9], device=str(device), out=out)
            np.testing.assert_array_equal(out[1], got[1])
            self.assertTrue((out[0, :, 3:] == 7).all())
            self.assertTrue((out.base[:, :, 1::2] == 7).all())
            table = np.zeros((2, 1), np.int32)
            fastattn.attention(q, k[:1], v[:1], page_table=table, device=device)

    def test_merge(self):
        q, k, v = problem(keys=30)
        want, want_lse = fastattn.attention(q, k, v, return_lse=True)
        parts = [fastattn.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in ((0, 7), (7, 8), (8, 30))]
        for stacked in (False, True):
            o, lse = (list(x) for x in zip(*parts))
            if stacked:
                o, lse = np.stack(o), np.stack(lse)
            got, got_lse = fastattn.merge(o, lse)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)
            np.testing.assert_allclose(got_lse, want_lse, rtol=1e-5, atol=2e-6)
        out = np.empty_like(want)
        self.assertIs(fastattn.merge(o, lse, out=out)[0], out)
        np.testing.assert_array_equal(out, got)


if __name__ == "__main__":
    unittest.main()
