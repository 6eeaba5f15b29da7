# SPDX-License-Identifier: Apache-2.0
"""How nodes run: caches that stay where they are, many lengths, many threads, sessions that come and go."""
import threading
import unittest

from harness import F32, attention, model_of, np, onnxruntime, session

HEADS, DIM = 2, 16


class Runs(unittest.TestCase):
    def problem(self, random, rows, keys, batch=1):
        q = random.standard_normal((batch, HEADS, rows, DIM), dtype=np.float32)
        k, v = (random.standard_normal((batch, HEADS, keys, DIM), dtype=np.float32) for _ in range(2))
        visible = np.arange(keys) <= np.arange(rows)[:, None]
        return {"Q": q, "K": k, "V": v}, *attention(q, k, v, visible, F32)

    def attention_session(self, threads=0):
        feeds = {name: np.zeros((1, HEADS, 1, DIM), np.float32) for name in ("Q", "K", "V")}
        model, _ = model_of("fastattn", "Attention", feeds, ["Y"], {"is_causal": 1})
        for value in model.graph.input:
            value.type.tensor_type.ClearField("shape")
        return session(model, threads)

    def check(self, ready, problem):
        feed, want, bound = problem
        (got,) = ready.run(None, feed)
        return bool((np.abs(got - want) <= bound).all())

    def test_many_lengths(self):
        """More lengths than a node keeps plans of, twice, on one thread and on all."""
        random = np.random.default_rng(1)
        problems = [self.problem(random, n, n + 3, 1 + n % 3) for n in range(1, 24)] * 2
        for threads in (1, 0):
            ready = self.attention_session(threads)
            self.assertTrue(all([self.check(ready, problem) for problem in problems]))

    def test_many_threads(self):
        """One session, used by more threads than a node keeps plans of, each with lengths of its own."""
        ready = self.attention_session()
        wrong = []

        def work(seed):
            random = np.random.default_rng(seed)
            for n in random.integers(1, 40, 40):
                if not self.check(ready, self.problem(random, int(n) + seed, 50 + seed)):
                    wrong.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])

    def test_sessions_come_and_go(self):
        problem = self.problem(np.random.default_rng(2), 7, 9)
        for _ in range(20):
            self.assertTrue(self.check(self.attention_session(), problem))

    def test_cache_in_place(self):
        """present_key bound to the memory of past_key: decoding writes one row, and the rest stays."""
        random = np.random.default_rng(3)
        capacity, filled = 24, 10
        row = lambda: random.standard_normal((1, 1, HEADS * DIM), dtype=np.float32)
        cache = [random.standard_normal((1, HEADS, capacity, DIM), dtype=np.float32) for _ in range(2)]
        feeds = {"query": row(), "key": row(), "value": row(), "past_key": cache[0], "past_value": cache[1],
                 "seqlens_k": np.array([filled], np.int32), "total_sequence_length": np.array([filled + 1], np.int32)}
        model, feed = model_of("fastattn", "GroupQueryAttention", feeds, ["output", "present_key", "present_value"],
                               {"num_heads": HEADS, "kv_num_heads": HEADS})
        ready = session(model)
        held = [onnxruntime.OrtValue.ortvalue_from_numpy(side.copy()) for side in cache]
        binding = ready.io_binding()
        for name, array in feed.items():
            if name not in ("past_key", "past_value"):
                binding.bind_cpu_input(name, array)
        for side, value in zip(("key", "value"), held):
            binding.bind_ortvalue_input("past_" + side, value)
            binding.bind_ortvalue_output("present_" + side, value)
        binding.bind_output("output")
        ready.run_with_iobinding(binding)
        for side, value, old in zip(("key", "value"), held, cache):
            want = old.copy()
            want[0, :, filled] = feeds[side].reshape(HEADS, DIM)
            np.testing.assert_array_equal(value.numpy(), want)
        k, v = (value.numpy()[:, :, :filled + 1] for value in held)
        want, bound = attention(feeds["query"].reshape(1, HEADS, 1, DIM), k, v, True, F32)
        got = binding.get_outputs()[-1].numpy().reshape(want.shape)
        self.assertTrue((np.abs(got - want) <= bound).all())

    def test_padding_is_zero(self):
        """Rows of a padded prompt that are no tokens are 0 in the output, and so are keys behind a length."""
        random = np.random.default_rng(4)
        rows = lambda: random.standard_normal((2, 5, HEADS * DIM), dtype=np.float32)
        feeds = {"query": rows(), "key": rows(), "value": rows(), "past_key": None, "past_value": None,
                 "seqlens_k": np.array([4, 1], np.int32), "total_sequence_length": np.array([5], np.int32)}
        model, feed = model_of("fastattn", "GroupQueryAttention", feeds, ["output", "present_key", "present_value"],
                               {"num_heads": HEADS, "kv_num_heads": HEADS})
        output, key, value = session(model).run(None, feed)
        self.assertFalse(output[1, 2:].any() or key[1, :, 2:].any() or value[1, :, 2:].any())
        self.assertTrue(output[1, :2].all() and key[1, :, :2].all())

    def test_empty(self):
        ready = self.attention_session()
        for q, k in ((0, 3), (3, 0), (0, 0)):
            feed = {"Q": np.ones((1, HEADS, q, DIM), np.float32), "K": np.ones((1, HEADS, k, DIM), np.float32),
                    "V": np.ones((1, HEADS, k, DIM), np.float32)}
            (got,) = ready.run(None, feed)
            np.testing.assert_array_equal(got, np.zeros((1, HEADS, q, DIM), np.float32))


if __name__ == "__main__":
    unittest.main()
