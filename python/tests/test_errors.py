# SPDX-License-Identifier: Apache-2.0
"""Bad input: exceptions that name the argument, and nothing written."""

import ctypes
import unittest

import fastattn
import numpy as np
from test_values import draw, problem


class Errors(unittest.TestCase):
    def setUp(self):
        self.three = problem()

    def refuse(self, kind, text, *arrays, **arguments):
        with self.assertRaisesRegex(kind, text):
            fastattn.attention(*(arrays or self.three), **arguments)

    def test_buffers_of_other_makers(self):
        q, k, v = self.three
        bare = (ctypes.c_float * 16 * 5 * 4 * 2)()  # no strides
        np.ctypeslib.as_array(bare)[:] = q[:, :, :5]
        np.testing.assert_array_equal(fastattn.attention(bare, k, v), fastattn.attention(q[:, :, :5].copy(), k, v))
        self.refuse(fastattn.InvalidError, "k has elements of 0 bytes", q, np.empty(k.shape, dtype=[]), v)

    def test_no_lengths_for_a_run(self):
        self.refuse(fastattn.InvalidError, "lens_kv has 0 entries", dynamic_lengths=True, lens_kv=[])

    def test_truth_that_changes(self):
        answers = iter([False, True, True])
        changing = type("Changing", (), {"__bool__": lambda self: next(answers)})()
        fastattn.attention(*self.three, dynamic_lengths=changing)

    def test_kinds(self):
        pairs = [(fastattn.InvalidError, ValueError), (fastattn.UnsupportedError, NotImplementedError),
                 (fastattn.OutOfMemoryError, MemoryError), (fastattn.NoDeviceError, RuntimeError),
                 (fastattn.CompileError, RuntimeError), (fastattn.DeviceLostError, RuntimeError)]
        for own, python in pairs:
            self.assertTrue(issubclass(own, python) and issubclass(own, fastattn.Error))

    def test_arrays(self):
        q, k, v = self.three
        self.refuse(TypeError, "k is of type <class 'list'>", q, [1, 2], v)
        self.refuse(TypeError, "q is of type <class 'int'>", 5, k, v)
        self.refuse(TypeError, "v is of type <class 'str'>", q, k, "v")
        self.refuse(TypeError, "v is not given", q, k)
        self.refuse(TypeError, "lacks the argument 'k'", q)
        self.refuse(TypeError, "without a name", q, k, v, None)
        self.refuse(fastattn.InvalidError, "q.dtype is float64", q.astype(float), k, v)
        self.refuse(fastattn.InvalidError, "q.dtype is int32", q.astype(np.int32), k, v)
        self.refuse(fastattn.InvalidError, "k.dtype is int64", q, k.astype(np.int64), v)
        self.refuse(fastattn.InvalidError, "v.dtype is a type that fastattn does not have", q, k, v.astype(complex))
        self.refuse(fastattn.InvalidError, "q.dtype is a type", q.astype(">f4"), k, v)
        self.refuse(fastattn.InvalidError, "k.strides of the last axis is 2,", q, draw((2, 2, 13, 32))[..., ::2], v)
        self.refuse(fastattn.InvalidError, "v.strides of the last axis", q, k, np.asfortranarray(v))
        self.refuse(fastattn.InvalidError, r"k.strides\[2\] is negative", q, k[:, :, ::-1], v)
        self.refuse(fastattn.InvalidError, "q has 1 axes", q[0, 0, 0], k, v)
        self.refuse(fastattn.InvalidError, "q has 5 axes", q[None], k, v)
        self.refuse(fastattn.InvalidError, r"k.shape\[3\]", q, k[..., :8], v)
        self.refuse(fastattn.InvalidError, r"v.shape\[2\]", q, k, v[:, :, :5])
        self.refuse(fastattn.InvalidError, "heads|shape", q[:, :3], k, v)
        self.refuse(fastattn.InvalidError, "q has 4 heads and k has 2", enable_gqa=False)

    def test_no_result_of_what_is_refused(self):
        """What is wrong is told before memory is taken for a result that would not fit."""
        q, k = (np.broadcast_to(np.ones((1, 1, 1, 600), np.float32), (2**22, 2**12, n, 600)) for n in (1, 1))
        self.refuse(fastattn.InvalidError, r"q.shape\[3\] is 600", q, k, k)

    def test_result_of_a_plan(self):
        """A plan serves results of the layout that it was made with; contiguous ones if none was given."""
        q, k, v = self.three
        turned = lambda: np.empty((2, 9, 4, 16), np.float32).swapaxes(1, 2)
        want = fastattn.attention(q, k, v)
        spec = fastattn.Spec(q.shape, "float32", tuple(n // 4 for n in turned().strides))
        for three, given in ((self.three, turned()), (self.three, spec),
                             ([fastattn.Spec(x.shape) for x in self.three], turned())):
            plan = fastattn.Plan(*three, out=given)
            self.assertEqual(fastattn.supports(*three, out=given), (True, ""))
            out = turned()
            self.assertIs(plan.run(q, k, v, out=out), out)
            np.testing.assert_array_equal(out, want)
        with self.assertRaisesRegex(fastattn.InvalidError, "out has other strides"):
            fastattn.Plan(q, k, v).run(q, k, v, out=turned())

    def test_out(self):
        q, k, v = self.three
        frozen = np.empty_like(q)
        frozen.flags.writeable = False
        self.refuse(fastattn.InvalidError, "out: .*(read-only|not writ)", out=frozen)
        self.refuse(fastattn.InvalidError, r"out.shape\[2\]", out=np.empty((2, 4, 8, 16), np.float32))
        self.refuse(fastattn.InvalidError, "out has 3 axes", out=np.empty((4, 9, 16), np.float32))
        self.refuse(fastattn.InvalidError, "out.dtype is float64", out=np.empty(q.shape))
        self.refuse(fastattn.InvalidError, "out overlaps q", q, k, v, out=q)
        overlapping = np.lib.stride_tricks.as_strided(np.empty(200, np.float32), q.shape, (0, 0, 64, 4))
        self.refuse(fastattn.InvalidError, "out", out=overlapping)

    def test_values(self):
        bad = fastattn.InvalidError
        self.refuse(bad, "mask is 'causl'", mask="causl")
        self.refuse(bad, "is_causal is True", mask="causal", is_causal=True)
        self.refuse(TypeError, "mask is of type <class 'bool'>", mask=True)
        self.refuse(bad, "layout is 'HBSD'", layout="HBSD")
        self.refuse(bad, "alignment is 'left'", alignment="left")
        self.refuse(bad, "scale is nan", scale=float("nan"))
        self.refuse(TypeError, "scale is of type", scale="1")
        self.refuse(bad, "softcap", softcap=-1.0)
        self.refuse(bad, r"window\[0\] is 0", window=(0, 1))
        self.refuse(bad, "window has 3 entries", window=(1, 2, 3))
        self.refuse(TypeError, "window is of type <class 'int'>", window=3)
        self.refuse(bad, r"window_size\[1\] is -2", window_size=(-1, -2))
        self.refuse(bad, "window and window_size", window=(1, 1), window_size=(0, 0))
        self.refuse(bad, "prefix", prefix=-1)
        self.refuse(bad, "prefix is .* 64 bits", prefix=10**30)
        self.refuse(TypeError, "prefix is of type <class 'float'>", prefix=1.0)
        self.refuse(bad, "diagonal_offset", diagonal_offset=2**40)
        self.refuse(bad, "alibi_slopes has 3 entries, expected 4", alibi_slopes=[1, 2, 3])
        self.refuse(bad, "alibi_slopes has 3 rows", alibi_slopes=np.ones((3, 4), np.float32))
        self.refuse(bad, "alibi_slopes", alibi_slopes=[1, 2, float("inf"), 3])
        self.refuse(bad, "sinks has 1 entries", sinks=np.ones(1))
        self.refuse(bad, "bias_factors", bias_factors=[1, 1, 1, 1])
        self.refuse(bad, "lens_kv has 1 entries, expected 2", lens_kv=[3])
        self.refuse(bad, r"lens_kv\[1\] is 14", lens_kv=[3, 14])
        self.refuse(bad, "lens_q has 1 axes of float64", lens_q=np.ones(2))
        self.refuse(bad, r"lens_q\[0\] does not fit", lens_q=[2**70, 1])
        for wrong in (2.5, np.float64(2), np.array(2.0), np.array(True), "33", {3, 4}):
            for name in ("lens_q", "lens_kv", "first_kv", "cu_seqlens_q", "alibi_slopes", "sinks"):
                self.refuse(TypeError, f"{name} is of type", **{name: wrong})
        for wrong in (2, np.int64(2), np.array(2)):
            for name in ("cu_seqlens_q", "cu_seqlens_k", "alibi_slopes", "sinks", "bias_factors"):
                self.refuse(TypeError, f"{name} is of type", **{name: wrong})
        self.refuse(TypeError, r"lens_kv\[1\] is of type <class 'float'>", lens_kv=[3, 4.0])
        self.refuse(TypeError, r"sinks\[0\] is of type <class 'str'>", sinks=["1", 1, 1, 1])
        self.refuse(bad, r"sinks\[1\] does not fit", sinks=[1, 10**400, 1, 1])
        self.refuse(bad, "lens_q does not fit", lens_q=2**70)
        self.refuse(TypeError, "is_causal is of type <class 'numpy.ndarray'>", is_causal=np.zeros(2))
        self.refuse(bad, r"first_kv\[0\]", first_kv=[20, 0])
        self.refuse(bad, "cu_seqlens_q has 1 entries", cu_seqlens_q=[0])
        self.refuse(bad, "cu_seqlens_k has 3 entries, expected 2", cu_seqlens_q=[0, 3], cu_seqlens_k=[0, 2, 3])
        self.refuse(bad, r"q.shape\[0\] is 2", cu_seqlens_q=[0, 3, 9])
        self.refuse(bad, "cu_seqlens_q", self.three[0][:1], *(x[:1] for x in self.three[1:]), cu_seqlens_q=[0, 5, 3])
        self.refuse(bad, r"attn_mask.shape\[3\]", attn_mask=np.ones((9, 12), bool))
        self.refuse(bad, "attn_mask.dtype is float64", attn_mask=np.ones((9, 13)))
        self.refuse(bad, "attn_mask has 5 axes", attn_mask=np.ones((1, 1, 1, 9, 13), bool))
        self.refuse(bad, "attn_mask.*bits of 99 keys", attn_mask=np.ones((9, 1), np.int32), keep_last=99)
        self.refuse(bad, "page_table has 2 axes of int64", page_table=np.zeros((2, 1), np.int64))
        self.refuse(bad, "page_table", page_table=np.full((2, 1), 7, np.int32))
        self.refuse(bad, "page_table", page_table=np.zeros((3, 1), np.int32))
        self.refuse(bad, "k_format is 'q9'", k_format="q9")
        self.refuse(bad, "k.dtype is float32, expected uint8", k_format="q8_0")
        self.refuse(bad, "k_scale", k_scale=1.0)
        self.refuse(bad, "v is given", v_in_k=8)
        self.refuse(bad, "v_in_k is 0", *self.three[:2], v_in_k=0)
        self.refuse(bad, "splits", splits=-1)
        self.refuse(bad, "block_q is .* 32 bits", block_q=2**40)
        self.refuse(fastattn.UnsupportedError, 'kernel is "fast"', kernel="fast")
        self.refuse(fastattn.UnsupportedError, "kernel", kernel="k" * 99)
        self.refuse(TypeError, "has no argument 'causal'", causal=True)
        self.refuse(bad, "cu_seqlens", cu_seqlens_q=[0, 9], dynamic_lengths=True)

    def test_lists(self):
        """9 rows and 13 keys, 4 heads of q and 2 of k, in blocks of 4 and 8."""
        bad, mask = fastattn.InvalidError, np.ones((3, 2), bool)
        rows = {"mask": None, "indptr": [0, 1, 2, 3], "indices": [0, 1, 0]}
        for kind, text, fields in [
            (bad, "lists.block_rows is 0", {"block_rows": 0}),
            (bad, "lists.block_keys is 4294967304, .*32 bits", {"block_keys": 2**32 + 8}),
            (bad, "lists.block_keys is .*64 bits", {"block_keys": 2**70}),
            (bad, f"lists.block_rows is {2**31 - 1}, expected", {"block_rows": 2**31 - 1}),
            (TypeError, "lists.block_rows is of type <class 'float'>, expected a whole number", {"block_rows": 4.0}),
            (bad, "lists has both mask and indptr", {"indptr": [0]}),
            (bad, "lists has neither mask and indptr", {"mask": None}),
            (bad, "lists.indices is given", {"indices": [0]}),
            (TypeError, "lists.mask is of type <class 'list'>", {"mask": [[True]]}),
            (bad, "lists.mask.dtype is float64, expected bool", {"mask": np.ones((3, 2))}),
            (bad, "lists.mask.dtype is int32", {"mask": mask.astype(np.int32)}),
            (bad, "lists.mask has 1 axes", {"mask": mask[0]}),
            (bad, "lists.mask has 5 axes", {"mask": mask[None, None, None]}),
            (bad, "lists.mask.* negative", {"mask": mask[::-1]}),
            (bad, "lists.mask", {"mask": fastattn.Spec((3, 2), "bool")}),
            (bad, "lists.row_blocks is 2, expected 3 to", {"mask": mask[:2]}),
            (bad, "lists.key_blocks is 1, expected 2 to", {"mask": mask[:, :1]}),
            (bad, "lists.row_blocks is 0, expected 3 to", {"mask": mask[:0]}),
            (bad, "lists.heads is 3, expected 1, 2 or 4", {"mask": mask[None].repeat(3, 0)}),
            (bad, "lists.sequences is 3, expected 1 or 2", {"mask": mask[None, None].repeat(3, 0)}),
            (bad, "lists.heads is 2, expected 1 as in lists.mask", {"heads": 2}),
            (TypeError, "lists.heads is of type <class 'str'>", {"heads": "2"}),
            (TypeError, "lists.indptr is of type <class 'int'>", {**rows, "indptr": 3}),
            (TypeError, r"lists.indptr\[1\] is of type <class 'float'>", {**rows, "indptr": [0, 1.0, 2, 3]}),
            (bad, "lists.indptr has 2 axes of int32", {**rows, "indptr": np.zeros((2, 2), np.int32)}),
            (bad, r"lists.indptr\[3\] is 4294967296, which does not fit into 32", {**rows, "indptr": [0, 1, 2, 2**32]}),
            (bad, "lists.indptr has 0 entries", {**rows, "indptr": []}),
            (bad, "lists.indptr has 4 entries.* 2 heads, 1 row blocks", {**rows, "heads": 2}),
            (bad, "lists.indptr has 4 entries.* 2 row blocks", {**rows, "row_blocks": 2}),
            (bad, "lists.indptr has 4 entries", {**rows, "sequences": 2**40, "heads": 2**40}),
            (bad, "lists.indptr has 4 entries", {**rows, "row_blocks": 2**62, "heads": 4}),
            (bad, "lists.heads is 0, expected at least 1", {**rows, "heads": 0}),
            (bad, "lists.row_blocks is -1, expected at least 0", {**rows, "row_blocks": -1}),
            (bad, "lists.row_blocks is 2, expected 3 to", {**rows, "indptr": [0, 1, 2]}),
            (bad, "lists.key_blocks is 1, expected 2 to", {**rows, "key_blocks": 1}),
            (bad, r"lists.indptr\[0\] is 1, expected 0", {**rows, "indptr": [1, 1, 2, 3]}),
            (bad, r"lists.indptr\[0\] is -1, expected 0", {**rows, "indptr": [-1, 1, 2, 3]}),
            (bad, r"lists.indptr\[2\] is 0, expected at least the one before", {**rows, "indptr": [0, 1, 0, 3]}),
            (bad, r"lists.indptr\[1\] is 900, but lists.indices has 3", {**rows, "indptr": [0, 900, 0, 3]}),
            (bad, "lists.indices is None", {**rows, "indices": None}),
            (bad, r"lists.indices\[1\] is 2, expected 0 to 1$", {**rows, "indices": [0, 2, 0]}),
            (bad, r"lists.indices\[2\] is -1, expected 0 to 1$", {**rows, "indices": [0, 1, -1]}),
            (bad, r"lists.indices\[1\] is 0, which its list has", {**rows, "indptr": [0, 2, 2, 3], "indices": [0, 0, 1]}),
        ]:
            with self.subTest(text):
                lists = fastattn.BlockLists(**{"block_rows": 4, "block_keys": 8, "mask": mask, **fields})
                self.refuse(kind, text, lists=lists)
        for other in ({"block_rows": 4}, mask, 5, "lists"):
            self.refuse(TypeError, "lists is of type .*, expected a fastattn.BlockLists", lists=other)
        self.refuse(bad, r"lists.row_blocks is 3, expected \d+ to", dynamic_lengths=True, lens_q=3,
                    lists=fastattn.BlockLists(2, 8, mask))

    def test_neighbourhood(self):
        """9 rows and 13 keys."""
        bad = fastattn.InvalidError
        for kind, text, fields in [
            (bad, r"neighbourhood.size\[1\] is 0, expected at least 1", {"size": (9, 0)}),
            (bad, "neighbourhood.size has 0 entries, expected 1 to 3", {"size": ()}),
            (bad, "neighbourhood.size has 4 entries, expected 1 to 3", {"size": (3, 3, 1, 1)}),
            (bad, r"neighbourhood.size\[0\] is 4294967305, .*32 bits", {"size": 2**32 + 9}),
            (bad, "neighbourhood.size.* 64 bits", {"size": 2**70}),
            (bad, r"neighbourhood.size\[1\] is .* more than", {"size": [2**15] * 2}),
            (TypeError, "neighbourhood.size is of type <class 'NoneType'>, expected whole numbers", {"size": None}),
            (TypeError, r"neighbourhood.size\[1\] is of type <class 'float'>", {"size": (3, 3.0)}),
            (TypeError, "neighbourhood.kernel is of type <class 'NoneType'>", {"kernel": None}),
            (TypeError, "neighbourhood.kernel is of type <class 'str'>", {"kernel": "3"}),
            (bad, "neighbourhood.kernel has 2 entries, expected 1 as neighbourhood.size", {"kernel": (3, 3)}),
            (bad, r"neighbourhood.kernel\[0\] is 10, expected 1 to 9", {"kernel": 10}),
            (bad, r"neighbourhood.kernel\[0\] is 5, expected 1 to 4", {"kernel": 5, "dilation": 2}),
            (bad, r"neighbourhood.stride\[0\] is 0, expected at least 1", {"stride": 0}),
            (bad, r"neighbourhood.stride\[0\] is 4, expected 1 to 3", {"stride": 4}),
            (bad, r"neighbourhood.dilation\[0\] is 10, expected 1 to 9", {"dilation": 10}),
            (bad, r"neighbourhood.causal\[0\] is 2, expected 0 to 1", {"causal": 2}),
            (bad, r"neighbourhood.tile\[0\] is 0, expected at least 1", {"tile": [0]}),
            (bad, "neighbourhood.tile has 2 axes of int32", {"tile": np.ones((1, 1), np.int32)}),
            (bad, "neighbourhood.size: the grid has 8 tokens, a sequence 9 rows", {"size": 8}),
        ]:
            with self.subTest(text):
                like = fastattn.Neighbourhood(**{"size": 9, "kernel": 3, **fields})
                self.refuse(kind, text, neighbourhood=like)
        for other in ({"size": 9, "kernel": 3}, 5, np.ones(3), "size"):
            self.refuse(TypeError, "neighbourhood is of type .* a fastattn.Neighbourhood", neighbourhood=other)
        q, k, v = self.three
        like = fastattn.Neighbourhood(9, 3)
        with self.assertRaisesRegex(bad, "neighbourhood is of the plan"):
            fastattn.Plan(q, k, v, neighbourhood=like, dynamic_lengths=True).run(q, k, v, neighbourhood=like)

    def test_lists_of_a_run(self):
        q, k, v = self.three
        lists = fastattn.BlockLists(4, 8, np.ones((3, 2), bool))
        for arguments, run, text in [
            ({}, lists, "lists is of the plan.*dynamic_lengths"),
            ({"lists": lists}, lists, "lists is of the plan.*dynamic_lengths"),
            ({"dynamic_lengths": True}, lists, "lists is given, expected None: the plan has none"),
            ({"dynamic_lengths": True, "lists": lists}, fastattn.BlockLists(4, 8, np.ones((4, 2), bool)),
             "lists.row_blocks is 4, expected 3"),
            ({"dynamic_lengths": True, "lists": lists}, fastattn.BlockLists(3, 8, np.ones((3, 2), bool)),
             "lists.block_rows is 3, expected 4"),
            ({"dynamic_lengths": True, "lists": lists},
             fastattn.BlockLists(4, 8, indptr=[0, 1, 2, 3], indices=[0, 5, 0]), r"lists.indices\[1\] is 5"),
        ]:
            with self.assertRaisesRegex(fastattn.InvalidError, text):
                fastattn.Plan(q, k, v, **arguments).run(q, k, v, lists=run)

    def test_devices(self):
        self.refuse(fastattn.NoDeviceError, "tpu", device="tpu")
        self.refuse(fastattn.NoDeviceError, "openmp:9", device="openmp:9")
        self.refuse(fastattn.InvalidError, "device is ''", device="")
        for device in fastattn.devices():
            if not device.available:
                self.refuse(fastattn.NoDeviceError, device.backend, device=device)
        self.assertEqual(fastattn.supports(*self.three), (True, ""))
        served, reason = fastattn.supports(*self.three, kernel="fast")
        self.assertFalse(served)
        self.assertIn("fast", reason)
        self.assertFalse(fastattn.supports(*self.three, lens_kv=[1])[0])
        with self.assertRaises(TypeError):
            fastattn.supports(*self.three, causal=True)

    def test_specs(self):
        spec = fastattn.Spec
        q, k = spec((1, 2, 3, 32)), spec((1, 2, 9, 32), "q8_0")
        self.assertEqual(fastattn.supports(q, k, k), (True, ""))
        self.assertFalse(fastattn.supports(q, spec((1, 2, 9, 33), "q8_0"), k)[0])
        self.refuse(fastattn.InvalidError, "q is a Spec", q, k, k)
        self.refuse(fastattn.InvalidError, "q is a Spec", q, *self.three[1:])
        self.refuse(fastattn.InvalidError, "v is a Spec", *self.three[:2], fastattn.Spec(self.three[2].shape))
        self.refuse(fastattn.InvalidError, "out is a Spec", out=fastattn.Spec(self.three[0].shape))
        self.refuse(fastattn.InvalidError, "q.dtype is 'f9'", spec((1, 1), "f9"), k, k)
        self.refuse(fastattn.InvalidError, "q.strides has 1 entries", spec((1, 1), strides=(1,)), k, k)
        self.refuse(fastattn.OutOfMemoryError, "q.shape", spec((2**40, 2**40)), k, k)
        plan = fastattn.Plan(spec((2, 4, 9, 16)), spec((2, 2, 13, 16)), spec((2, 2, 13, 16)), mask="causal")
        np.testing.assert_array_equal(plan.run(*self.three), fastattn.attention(*self.three, mask="causal"))

    def test_plans(self):
        q, k, v = self.three
        plan = fastattn.Plan(q, k, v, mask="causal")
        for text, arrays, arguments in [
            (r"q has the axes \(2, 4, 8, 16\)", (q[:, :, :8], k, v), {}),
            ("k.dtype is float16", (q, k.astype(np.float16), v), {}),
            ("v has other strides", (q, k, np.repeat(v, 2, 0)[::2]), {}),
            ("attn_mask has the axes", (q, k, v), {"attn_mask": np.ones((9, 13), np.float32)}),
            ("mask is of the plan", (q, k, v), {"mask": "causal"}),
            ("lens_kv is of the plan.*dynamic_lengths", (q, k, v), {"lens_kv": 3}),
        ]:
            with self.assertRaisesRegex(fastattn.InvalidError, text):
                plan.run(*arrays, **arguments)
        with self.assertRaisesRegex(fastattn.InvalidError, "made once"):
            plan.__init__(q, k, v)
        empty = fastattn.Plan.__new__(fastattn.Plan)
        for use in (lambda: empty.run(q, k, v), lambda: empty.info):
            with self.assertRaises(fastattn.InvalidError):
                use()
        self.assertIsNone(empty.device)
        dynamic = fastattn.Plan(q, k, v, mask="causal", dynamic_lengths=True)
        with self.assertRaisesRegex(fastattn.InvalidError, "lens_kv"):
            dynamic.run(q, k, v, lens_kv=[3, 14])
        np.testing.assert_array_equal(dynamic.run(q, k, v, lens_kv=[3, 9])[0],
                                      fastattn.attention(q, k, v, mask="causal", lens_kv=[3, 9])[0])

    def test_merge(self):
        o, lse = np.ones((2, 1, 3, 4), np.float32), np.ones((2, 1, 3), np.float32)
        for text, arguments in [("partial is empty", ([], [])), ("partial_lse is not", (o, lse[:1])),
                                ("partial_lse is not", (o, lse.astype(float))), ("partial.dtype", (o.astype(float), lse)),
                                ("partial has 2 axes", (o[0, 0], lse))]:
            with self.assertRaisesRegex(fastattn.InvalidError, text):
                fastattn.merge(*arguments)
        with self.assertRaises(fastattn.InvalidError):
            fastattn.merge(o, lse, out=np.empty((1, 3, 5), np.float32))


if __name__ == "__main__":
    unittest.main()
