# SPDX-License-Identifier: Apache-2.0
"""MultiHeadAttention and GroupQueryAttention, on random problems: ours within the oracle's bound, and ONNX Runtime's
own kernels beside the same oracle, which shows that it means what they mean."""
import unittest

from harness import BF16, F16, F32, ROUNDING, attention, join_heads, np, rounded, run, split_heads

SEEDS = 40
# ONNX Runtime's exp is an approximation of its own, and its sums have another order.
THEIRS = 4


def turn(x, cos, sin, positions, interleaved):
    """Rotary embedding of (batch, heads, rows, dim), in double precision. Returns it, and |parts| added up."""
    x = x.astype(np.float64)
    half = cos.shape[1]
    c, s = (t.astype(np.float64)[positions][:, None] for t in (cos, sin))
    out, size = x.copy(), np.abs(x)
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (slice(0, half),
                                                                                        slice(half, 2 * half))
    a, b = x[..., first], x[..., second]
    out[..., first], out[..., second] = a * c - b * s, a * s + b * c
    size[..., first] = size[..., second] = np.abs(a) + np.abs(b)
    return out, size


class GroupQuery(unittest.TestCase):
    NAMES = ["query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length", "cos_cache",
             "sin_cache", "position_ids", "attention_bias", "head_sink"]

    def problem(self, seed, dtype):
        r = np.random.default_rng(seed)
        normal = lambda *shape: rounded(r.standard_normal(shape, dtype=np.float32), dtype)
        mode = ["prefill", "padded", "decode", "chunk", "grown"][seed % 5]
        batch = 1 if mode == "chunk" else int(r.integers(1, 4))
        heads_q, heads_kv = [(4, 4), (4, 2), (8, 1), (9, 3)][r.integers(4)]
        dim = int(r.choice([16, 32, 64]))
        if mode in ("prefill", "padded"):
            rows = total = int(r.integers(2, 40))
            keys = np.full(batch, total) if mode == "prefill" else r.integers(1, total + 1, batch)
            keys[0] = total
            capacity = 0
        else:
            rows = int(r.integers(2, 9)) if mode == "chunk" else 1
            capacity = int(r.integers(rows + 2, 70))
            if mode == "grown":
                keys = np.full(batch, capacity + rows)
            else:
                keys = r.integers(rows + 1, capacity + 1, batch)
            total = int(keys.max())
        fresh = np.minimum(keys, rows)
        old = keys - fresh
        feeds = dict.fromkeys(self.NAMES)
        q, (k, v) = normal(batch, heads_q, rows, dim), (normal(batch, heads_kv, rows, dim) for _ in range(2))
        packed = r.random() < 0.3
        if packed:
            feeds["query"] = np.concatenate([join_heads(x) for x in (q, k, v)], axis=2)
        else:
            feeds["query"], feeds["key"], feeds["value"] = join_heads(q), join_heads(k), join_heads(v)
        past = None
        if capacity:
            past = normal(batch, heads_kv, capacity, dim), normal(batch, heads_kv, capacity, dim)
            feeds["past_key"], feeds["past_value"] = past
        feeds["seqlens_k"] = (keys - 1).astype(np.int32)
        feeds["total_sequence_length"] = np.array([total], np.int32)
        attributes = {"num_heads": heads_q, "kv_num_heads": heads_kv}
        positions = old[:, None] + np.arange(rows)
        q_turned, k_turned, q_size = q, k, None
        rotary = r.random() < 0.5
        if rotary:
            half = dim // 2 if dim < 32 or r.random() < 0.6 else dim // 4
            angles = np.arange(128)[:, None] * 10000.0 ** (-np.arange(half) / half)
            cos, sin = (rounded(f(angles).astype(np.float32), dtype) for f in (np.cos, np.sin))
            attributes |= {"do_rotary": 1, "rotary_interleaved": int(r.integers(2))}
            feeds["cos_cache"], feeds["sin_cache"] = cos, sin
            if r.random() < 0.5:
                ids = r.integers(0, 80, (batch, rows))
                # Of a prompt, the operator takes the first number alone.
                positions = ids if capacity else ids[0, 0] + positions
                feeds["position_ids"] = ids
            q_turned, q_size = turn(q, cos, sin, positions, attributes["rotary_interleaved"])
            k_turned, _ = turn(k, cos, sin, positions, attributes["rotary_interleaved"])
        window = int(r.integers(1, 12)) if r.random() < 0.4 else -1
        if window > 0:
            attributes["local_window_size"] = window
        softcap = float(r.uniform(1, 5)) if r.random() < 0.3 else 0.0
        if softcap:
            attributes["softcap"] = softcap
        scale = float(r.uniform(0.05, 0.5)) if r.random() < 0.3 else None
        if scale:
            attributes["scale"] = scale
        sinks = None
        if r.random() < 0.2:
            attributes["smooth_softmax"] = 1
            sinks = np.zeros(heads_q)
        elif r.random() < 0.25:
            sinks = feeds["head_sink"] = normal(heads_q)
        bias = None
        if r.random() < 0.3:
            bias = normal(*[[batch, 1][r.integers(2)], [heads_q, 1][r.integers(2)], rows, total])
            feeds["attention_bias"] = bias

        room = max(capacity, total)
        cache = [np.zeros((batch, heads_kv, room, dim)) for _ in range(2)]
        for b in range(batch):
            for held, was, new in zip(cache, past or (None, None), (k_turned, v)):
                if capacity:
                    held[b, :, :old[b]] = was[b, :, :old[b]]
                held[b, :, old[b]:keys[b]] = new[b, :, :fresh[b]]
        at, key = (old[:, None] + np.arange(rows))[:, None, :, None], np.arange(room)
        visible = (key <= at) & (key < keys[:, None, None, None])
        if window > 0:
            visible &= key > at - window
        if bias is not None:
            bias = np.pad(bias, [(0, 0)] * 3 + [(0, room - total)])
        out, bound = attention(q_turned, cache[0], cache[1], visible, dtype, scale, bias, softcap, sinks, q_size,
                               rotary)
        return feeds, attributes, keys, fresh, cache, out, bound, heads_q

    def check(self, seed, dtype, domain, factor):
        feeds, attributes, keys, fresh, cache, out, bound, heads = self.problem(seed, dtype)
        got, key, value = run(domain, "GroupQueryAttention", feeds, ["output", "present_key", "present_value"],
                              attributes, dtype=dtype)
        got = split_heads(got, heads)
        self.assertEqual(key.shape, cache[0].shape)
        for b, (length, rows) in enumerate(zip(keys, fresh)):
            where = f"seed {seed}, {domain}, entry {b}"
            np.testing.assert_array_equal(value[b, :, :length], cache[1][b, :, :length], where)
            limit = (2 * ROUNDING[dtype] + 2 * ROUNDING[F32]) * np.abs(cache[0]).max()
            self.assertLessEqual(np.abs(key[b, :, :length] - cache[0][b, :, :length]).max(), limit, where)
            wrong = np.abs(got[b, :, :rows] - out[b, :, :rows]) / bound[b, :, :rows]
            self.assertLessEqual(wrong.max(), factor, where)

    def test_ours(self):
        for dtype in (F32, F16, BF16):
            for seed in range(SEEDS):
                with self.subTest(seed=seed, dtype=dtype):
                    self.check(seed, dtype, "fastattn", 1)

    def test_theirs(self):
        for seed in range(SEEDS):
            with self.subTest(seed=seed):
                self.check(seed, F32, "com.microsoft", THEIRS)


class MultiHead(unittest.TestCase):
    NAMES = ["query", "key", "value", "bias", "key_padding_mask", "attention_bias", "past_key", "past_value"]

    def problem(self, seed, dtype, theirs):
        """`theirs`: only what ONNX Runtime's kernel for the CPU serves too."""
        r = np.random.default_rng(seed)
        normal = lambda *shape: rounded(r.standard_normal(shape, dtype=np.float32), dtype)
        batch, heads, dim = int(r.integers(1, 4)), int(r.integers(1, 5)), int(r.choice([8, 16, 40]))
        form = ["rows", "rows", "rows", "query packed", "key packed", "heads"][r.integers(3 if theirs else 6)]
        dim_v = int(r.choice([8, 24])) if form in ("rows", "heads") and r.random() < 0.3 else dim
        rows = int(r.integers(1, 30))
        fresh = rows if form == "query packed" or r.random() < 0.5 else int(r.integers(1, 30))
        q, k, v = normal(batch, heads, rows, dim), normal(batch, heads, fresh, dim), normal(batch, heads, fresh, dim_v)
        feeds = dict.fromkeys(self.NAMES)
        if form == "query packed":
            feeds["query"] = np.stack([x.transpose(0, 2, 1, 3) for x in (q, k, v)], axis=3)
        else:
            feeds["query"] = join_heads(q)
            if form == "rows":
                feeds["key"], feeds["value"] = join_heads(k), join_heads(v)
            elif form == "heads":
                feeds["key"], feeds["value"] = k, v
            else:
                feeds["key"] = np.stack([x.transpose(0, 2, 1, 3) for x in (k, v)], axis=3)
        if form == "rows" and r.random() < 0.4:
            bias = [normal(heads, d) for d in (dim, dim, dim_v)]
            feeds["bias"] = np.concatenate([b.ravel() for b in bias])
            q, k, v = (rounded(x + b[None, :, None], dtype) for x, b in zip((q, k, v), bias))
        past = 0
        if form == "rows" and r.random() < 0.4 and (dim_v == dim or not theirs):
            past = int(r.integers(1, 20))
            feeds["past_key"], feeds["past_value"] = normal(batch, heads, past, dim), normal(batch, heads, past, dim_v)
            k = np.concatenate([feeds["past_key"], k], axis=2)
            v = np.concatenate([feeds["past_value"], v], axis=2)
        keys = past + fresh
        attributes = {"num_heads": heads}
        visible = np.ones((batch, 1, rows, keys), bool)
        if fresh == rows and r.random() < 0.6:
            attributes["unidirectional"] = 1
            visible &= np.arange(keys) <= past + np.arange(rows)[:, None]
        padding = ["", "right", "left", "rows"][r.integers(4)] if r.random() < 0.6 else ""
        lengths = r.integers(1, keys + 1, batch)
        if padding == "right" and not past:
            feeds["key_padding_mask"] = lengths.astype(np.int32)
            visible &= np.arange(keys) < lengths[:, None, None, None]
        elif padding == "left":
            mask = np.arange(keys) >= keys - lengths[:, None]
            feeds["key_padding_mask"] = mask.astype(np.int32)
            visible &= mask[:, None, None]
        elif padding == "rows":
            mask = r.random((batch, rows, keys)) < 0.7
            feeds["key_padding_mask"] = mask.astype(np.int32)
            visible &= mask[:, None]
        score_bias = None
        if r.random() < 0.3:
            score_bias = normal([batch, 1][r.integers(2)], [heads, 1][r.integers(2)], rows, keys)
            feeds["attention_bias"] = score_bias
        scale = float(r.uniform(0.05, 0.5)) if r.random() < 0.3 else None
        if scale:
            attributes["scale"] = scale
        out, bound = attention(q, k, v, visible, dtype, scale, score_bias, turned=feeds["bias"] is not None)
        outputs = ["output", "present_key", "present_value"] if past else ["output"]
        return feeds, attributes, outputs, k, v, out, bound, visible.any(axis=-1)

    def check(self, seed, dtype, domain, factor):
        theirs = domain != "fastattn"
        feeds, attributes, outputs, k, v, out, bound, seen = self.problem(seed, dtype, theirs)
        got, *present = run(domain, "MultiHeadAttention", feeds, outputs, attributes, dtype=dtype)
        for had, has in zip(present, (k, v)):
            np.testing.assert_array_equal(had, has, f"seed {seed}, {domain}")
        got = split_heads(got, out.shape[1])
        if theirs:  # a row that sees nothing has the mean of all values there, 0 here
            got = np.where(seen[..., None], got, 0)
        self.assertLessEqual((np.abs(got - out) / bound).max(), factor, f"seed {seed}, {domain}")

    def test_ours(self):
        for dtype in (F32, F16, BF16):
            for seed in range(SEEDS):
                with self.subTest(seed=seed, dtype=dtype):
                    self.check(seed, dtype, "fastattn", 1)

    def test_theirs(self):
        for seed in range(SEEDS):
            with self.subTest(seed=seed):
                self.check(seed, F32, "com.microsoft", THEIRS)


if __name__ == "__main__":
    unittest.main()
