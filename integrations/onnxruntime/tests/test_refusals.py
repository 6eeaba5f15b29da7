# SPDX-License-Identifier: Apache-2.0
"""Bad models: a status of ONNX Runtime with a message that names the input or attribute, and no crash."""
import os
import unittest

from harness import model_of, np, run, session

Q = np.zeros((2, 4, 5, 8), np.float32)
ROWS = np.zeros((2, 5, 32), np.float32)
LENS, TOTAL = np.array([4, 4], np.int32), np.array([5], np.int32)
CACHE = np.zeros((2, 4, 6, 8), np.float32)
GROUP = {"query": ROWS, "key": ROWS, "value": ROWS, "past_key": None, "past_value": None, "seqlens_k": LENS,
         "total_sequence_length": TOTAL}
WITH_PAST = GROUP | {"past_key": CACHE, "past_value": CACHE, "total_sequence_length": np.array([6], np.int32)}
TABLE = np.zeros((9, 4), np.float32)
TURNED = GROUP | {"cos_cache": TABLE, "sin_cache": TABLE}
SINK = WITH_PAST | dict.fromkeys(["cos_cache", "sin_cache", "position_ids", "attention_bias"])


class Refusals(unittest.TestCase):
    def refused(self, message, operator, feeds, attributes, outputs=("output",)):
        with self.assertRaisesRegex(Exception, f"fastattn.{operator} 'node': .*{message}"):
            run("fastattn", operator, feeds, list(outputs), attributes)

    def test_attention(self):
        def refused(message, change, outputs=("Y",), **attributes):
            names = ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"]
            feeds = dict.fromkeys(names) | {"Q": Q, "K": Q, "V": Q} | change
            self.refused(message, "Attention", feeds, attributes, outputs)

        refused("input K has head size 6, Q has 8", {"K": Q[..., :6]})
        refused("input V has 4 keys, K has 5", {"V": Q[:, :, :4]})
        refused("inputs Q, K and V have 4, 3 and 3 heads", {"K": Q[:, :3], "V": Q[:, :3]})
        refused("batch sizes 2, 1 and 1", {"K": Q[:1], "V": Q[:1]})
        refused("input Q has 3 axes: attribute q_num_heads is missing or 0", {"Q": ROWS, "K": ROWS, "V": ROWS})
        refused("axis 2 is 32, no multiple of q_num_heads 5", {"Q": ROWS, "K": ROWS, "V": ROWS}, q_num_heads=5,
                kv_num_heads=5)
        refused("inputs Q, K and V have 4, 3 and 3 axes", {"K": ROWS, "V": ROWS}, kv_num_heads=4)
        refused("input Q has 2 axes, not 3 or 4", {"Q": Q[0, 0]})
        refused("input K is of ONNX type 7", {"K": Q.astype(np.int64)})
        refused("input K is of ONNX type 11", {"K": Q.astype(np.float64)})
        refused("input attn_mask is of ONNX type 6", {"attn_mask": np.zeros((5, 5), np.int32)})
        refused("input attn_mask: axis 0 is 4, neither 1 nor 5", {"attn_mask": Q[0, 0, :4, :5]})
        refused("input attn_mask is of 6 keys; there are 5", {"attn_mask": np.zeros((5, 6), bool)})
        refused("input attn_mask has 5 axes", {"attn_mask": np.zeros((1, 1, 1, 5, 5), bool)})
        refused("inputs past_key and past_value come together", {"past_key": CACHE})
        refused("input past_key: axis 1 is 3; the number of KV heads is 4", {"past_key": CACHE[:, :3],
                                                                              "past_value": CACHE})
        refused("input past_value: axis 2 is 5; the number of keys in past_key is 6", {"past_key": CACHE,
                                                                                        "past_value": CACHE[:, :, :5]})
        refused("input past_key has 3 axes, not 4", {"past_key": CACHE[0], "past_value": CACHE})
        refused("nonpad_kv_seqlen does not go with past_key", {"past_key": CACHE, "past_value": CACHE,
                                                               "nonpad_kv_seqlen": np.array([1, 2])})
        refused("input nonpad_kv_seqlen: element 1 is 6; there are 5 keys", {"nonpad_kv_seqlen": np.array([1, 6])})
        refused("input nonpad_kv_seqlen: element 0 is -1", {"nonpad_kv_seqlen": np.array([-1, 5])})
        refused("input nonpad_kv_seqlen has 3 elements, not 2", {"nonpad_kv_seqlen": np.array([1, 2, 3])})
        refused("input nonpad_kv_seqlen is not of type int64", {"nonpad_kv_seqlen": np.array([1, 2], np.int32)})
        refused("input attn_mask is of 3 keys; element 0 of nonpad_kv_seqlen is 4",
                {"attn_mask": np.ones((5, 3), bool), "nonpad_kv_seqlen": np.array([4, 2])})
        refused("output qk_matmul_output is not served", {}, ["Y", "", "", "qk"])
        half = Q.astype(np.float16)
        refused("output present_key has the type of input Q, f32; its rows are f16", {"K": half}, ["Y", "present_key"])
        refused("output present_value has the type of input Q, f32; its rows are f16", {"V": half},
                ["Y", "present_key", "present_value"])
        refused("output present_value has the type of input Q, f32; its rows are f16",
                {"V": half, "past_key": CACHE, "past_value": CACHE.astype(np.float16)}, ["Y", "", "present_value"])
        refused("attribute is_causal is 2; served are 0 to 1", {}, is_causal=2)
        refused("attribute is_causal is no integer", {}, is_causal=0.5)
        refused("attribute scale is no float", {}, scale=1)
        refused("attribute scale is inf", {}, scale=float("inf"))
        refused("attribute softcap is -1", {}, softcap=-1.0)
        refused("attribute softmax_precision is 11", {}, softmax_precision=11)
        refused("axis 3|shape.3. is 600", {"Q": np.zeros((1, 1, 2, 600), np.float32),
                                           "K": np.zeros((1, 1, 2, 600), np.float32),
                                           "V": np.zeros((1, 1, 2, 600), np.float32)})

    def test_multi_head(self):
        def refused(message, change, outputs=("output",), **attributes):
            names = ["query", "key", "value", "bias", "key_padding_mask", "attention_bias", "past_key", "past_value",
                     "past_sequence_length", "cache_indirection"]
            feeds = dict.fromkeys(names) | {"query": ROWS, "key": ROWS, "value": ROWS} | change
            self.refused(message, "MultiHeadAttention", feeds, {"num_heads": 4} | attributes, outputs)

        refused("input key is missing", {"key": None, "value": None})
        refused("input value is missing", {"value": None})
        refused("input key: axis 2|input key has head size", {"key": ROWS[..., :16]})
        refused("axis 2 is 32, no multiple of num_heads 3", {}, num_heads=3)
        refused("attribute num_heads is 0", {}, num_heads=0)
        refused("input bias: axis 0 is 95; the width of query, key and value is 96", {"bias": np.zeros(95, np.float32)})
        refused("input value has 4 axes, key has 3", {"value": Q})
        refused("input value has 3 axes, key has 4", {"key": Q})
        refused("input key_padding_mask has 8 elements, not 2", {"key_padding_mask": np.zeros(8, np.int32)})
        refused("input key_padding_mask: element 1 is 6; there are 5 keys",
                {"key_padding_mask": np.array([5, 6], np.int32)})
        refused("input key_padding_mask: axis 1 is 4; the number of keys, past and new is 5",
                {"key_padding_mask": np.ones((2, 4), np.int32)})
        refused("input key_padding_mask is not of type int32", {"key_padding_mask": np.ones((2, 5), np.int64)})
        refused("input attention_bias has 2 axes, not 4", {"attention_bias": np.zeros((5, 5), np.float32)})
        refused("input query is packed: key and value do not go with it",
                {"query": np.zeros((2, 5, 4, 3, 8), np.float32)})
        refused("input query: axis 3 is 2; the number of parts is 3", {"query": np.zeros((2, 5, 4, 2, 8), np.float32),
                                                                         "key": None, "value": None})
        refused("input past_sequence_length is not served", {"past_sequence_length": np.array([1], np.int32)})
        refused("output qk is not served", {}, ["output", "", "", "qk"])
        refused("output present_key has the type of input query, f32; its rows are f16",
                {"key": ROWS.astype(np.float16)}, ["output", "present_key"])
        refused("attribute mask_filter_value is -1;", {}, mask_filter_value=-1.0)
        refused("attribute unidirectional needs as many", {"key": ROWS[:, :4], "value": ROWS[:, :4]}, unidirectional=1)

    def test_group_query(self):
        def refused(message, change, outputs=("output",), base=GROUP, **attributes):
            self.refused(message, "GroupQueryAttention", base | change,
                         {"num_heads": 4, "kv_num_heads": 4} | attributes, outputs)

        refused("inputs key and value come together", {"value": None})
        refused("input seqlens_k is missing", {"seqlens_k": None})
        refused("input total_sequence_length is missing", {"total_sequence_length": None})
        refused("input seqlens_k: element 1 is 5; total_sequence_length is 5",
                {"seqlens_k": np.array([4, 5], np.int32)})
        refused("input seqlens_k: element 0 is -2147483648;", {"seqlens_k": np.array([-2**31, 5], np.int32)})
        refused("input seqlens_k has 3 elements, not 2", {"seqlens_k": np.array([4, 4, 4], np.int32)})
        refused("input total_sequence_length is 4; there are 5 new rows",
                {"total_sequence_length": np.array([4], np.int32)})
        refused("element 0 asks for 2 keys of past_key, which has 0",
                {"seqlens_k": np.array([6, 6], np.int32), "total_sequence_length": np.array([7], np.int32)})
        refused("input past_key: axis 3 is 4; the head size is 8", {"past_key": CACHE[..., :4]}, base=WITH_PAST)
        refused("input past_value: axis 2 is 5; axis 2 of past_key is 6",
                {"past_value": CACHE[:, :, :5]}, base=WITH_PAST)
        refused("attribute num_heads is 4, no multiple of kv_num_heads 3", {}, kv_num_heads=3)
        refused("input key: axis 2 is 32; kv_num_heads times the head size of query is 16", {}, kv_num_heads=2)
        refused("input cos_cache is missing: do_rotary is 1|cos_cache", {}, do_rotary=1)
        refused("input sin_cache: axis 1 is 3; axis 1 of cos_cache is 4", {"sin_cache": TABLE[:, :3]}, base=TURNED,
                do_rotary=1)
        refused("input cos_cache: axis 1 is 5; the head size is 8", {"cos_cache": np.zeros((9, 5), np.float32),
                                                                      "sin_cache": np.zeros((9, 5), np.float32)},
                base=TURNED, do_rotary=1)
        refused("input cos_cache has 3 positions; batch entry 0 has a row at 3", {"cos_cache": TABLE[:3],
                                                                                    "sin_cache": TABLE[:3]},
                base=TURNED, do_rotary=1)
        refused("batch entry 0 has a row at -7", {"position_ids": np.full((2, 5), -7)}, base=TURNED, do_rotary=1)
        refused("input head_sink: axis 0 is 3; attribute num_heads is 4",
                {"head_sink": np.zeros(3, np.float32)}, base=SINK)
        refused("input attention_bias: axis 3 is 5; total_sequence_length is 6",
                {"attention_bias": np.zeros((1, 1, 5, 5), np.float32)}, base=SINK | {"head_sink": None})
        refused("input k_scale is not served", {"head_sink": None, "k_scale": np.ones(1, np.float32)}, base=SINK)
        refused("output output_qk is not served", {}, ["output", "", "", "qk"])
        refused("attribute local_window_size is 0", {}, local_window_size=0)
        refused("attribute sliding_window_cache is 1", {}, sliding_window_cache=1)
        refused("attribute k_quant_type is not \"NONE\"", {}, k_quant_type="PER_TENSOR")

    def test_random(self):
        """Good models, of which up to two inputs are changed: a result or an exception. FASTATTN_TEST_SEEDS of them."""
        ones = lambda *sizes: np.ones(sizes, np.float32)
        good = {
            "Attention": ({"Q": Q, "K": Q, "V": Q, "attn_mask": ones(5, 11) > 0, "past_key": CACHE,
                           "past_value": CACHE}, {"is_causal": 1}),
            "MultiHeadAttention": ({"query": ROWS, "key": ROWS, "value": ROWS, "bias": ones(96),
                                    "key_padding_mask": np.ones((2, 11), np.int32), "attention_bias": ones(1, 4, 5, 11),
                                    "past_key": CACHE, "past_value": CACHE}, {"num_heads": 4, "unidirectional": 1}),
            "GroupQueryAttention": (WITH_PAST | {"cos_cache": TABLE, "sin_cache": TABLE,
                                                 "position_ids": np.ones((2, 5), np.int64),
                                                 "attention_bias": ones(2, 1, 5, 6), "head_sink": ones(4)},
                                    {"num_heads": 4, "kv_num_heads": 4, "do_rotary": 1}),
        }
        random = np.random.default_rng(5)
        results, seeds = 0, int(os.environ.get("FASTATTN_TEST_SEEDS", 300))
        for _ in range(seeds):
            operator = list(good)[random.integers(3)]
            feeds, attributes = good[operator]
            feeds = dict(feeds)
            for _ in range(random.integers(0, 3)):
                name = list(feeds)[random.integers(len(feeds))]
                array = feeds[name]
                change = random.integers(6)
                if array is None or (change == 0 and name not in ("Q", "query")):
                    feeds[name] = None
                elif change == 1:  # other sizes
                    sizes = [int(random.choice([0, 1, size, size + 1, size // 2])) for size in array.shape]
                    feeds[name] = np.resize(array, sizes)
                elif change == 2:  # fewer axes, or more
                    feeds[name] = array.reshape(-1) if random.random() < 0.5 else array[None, ..., None]
                elif change == 3 and name not in ("Q", "query"):
                    feeds[name] = array.astype([np.int32, np.int64, np.float16, bool, np.float64][random.integers(5)])
                elif change == 4:  # other numbers
                    feeds[name] = random.integers(-9, 99, array.shape).astype(array.dtype)
            try:
                run("fastattn", operator, feeds, ["a", "b", "c"], attributes)
                results += 1
            except Exception:  # what it says, other tests look at
                pass
        self.assertTrue(seeds / 5 < results < seeds, results)

    def test_type_of_query(self):
        model, _ = model_of("fastattn", "Attention", {"Q": Q.astype(np.float64), "K": Q, "V": Q}, ["Y"], {})
        with self.assertRaises(Exception):
            session(model)

    def test_zero_heads(self):
        """Of 4 axes the numbers of heads are known; attributes of 0 say nothing. Of 3 axes they are needed."""
        heads = {"q_num_heads": 0, "kv_num_heads": 0}
        self.assertEqual(run("fastattn", "Attention", {"Q": Q, "K": Q, "V": Q}, ["Y"], heads)[0].shape, Q.shape)
        self.refused("attribute q_num_heads is missing or 0", "Attention", {"Q": ROWS, "K": ROWS, "V": ROWS}, heads)

    def test_served_after_refusal(self):
        model, feed = model_of("fastattn", "Attention", {"Q": Q, "K": Q, "V": Q}, ["Y"], {})
        for value in model.graph.input:
            value.type.tensor_type.ClearField("shape")
        ready = session(model)
        with self.assertRaises(Exception):
            ready.run(None, feed | {"K": Q[:, :, :, :4]})
        self.assertEqual(ready.run(None, feed)[0].shape, Q.shape)


if __name__ == "__main__":
    unittest.main()
