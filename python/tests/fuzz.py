# SPDX-License-Identifier: Apache-2.0
"""Random arguments of all kinds: a result or an exception, never a crash, and no NaN where none went in.

fuzz.py [--seconds N] [--seed N]; run.py FOLDER fuzz runs it on the package in the folder. Prints the seed of a failure.
"""

import argparse
import random
import time
import unittest

import fastattn
import numpy as np
from fastattn import sparse

try:
    import torch
except ImportError:
    torch = None

# What a wrong call may raise. Anything else is a defect.
EXPECTED = (fastattn.Error, TypeError, ValueError, OverflowError, MemoryError, KeyError)  # KeyError: of a Liar
JUNK = [None, True, False, 0, 1, -1, 2**31, 2**63, -2**70, 0.5, float("nan"), float("inf"), "", "causal", "q8_0", b"x", [],
        [0], [1, 2], (0, 0), (None, None), (-1, -1), {}, object(), int, np.float32(1), np.zeros(0), np.zeros(3, np.int32),
        np.zeros((2, 2), complex), np.array("x"), np.array([None]), memoryview(b"abcdabcd"), fastattn.Spec((1, 1, 2, 8)),
        fastattn.Spec((-1, 2), "float16"), fastattn.Spec(None), fastattn.Spec((1, 2), None), fastattn.Spec(("x",))]


class Liar:
    """__dlpack__ that is not one."""

    def __init__(self, value):
        self.value = value

    def __dlpack__(self, **_):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


class Fuzz:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, *values):
        return self.random.choice(values)

    def rare(self, n=12):
        return self.random.randrange(n) == 0

    def junk(self):
        if self.rare(8):
            return Liar(self.pick(None, 5, ValueError("no"), BufferError("no"), KeyError("no")))
        return self.random.choice(JUNK)

    def size(self, *usual):
        return self.pick(0, 1, 2, 3, 8, 33) if self.rare(20) else self.pick(*usual)

    def array(self, shape, dtype):
        """Of any strides; of NumPy or PyTorch."""
        shape = [max(n, 0) for n in shape]
        if self.rare(30):
            shape[self.random.randrange(len(shape))] += self.pick(1, -1)
            shape = [max(n, 0) for n in shape]
        room = [n * self.pick(1, 1, 1, 2) for n in shape]
        base = np.random.default_rng(self.random.randrange(1000)).standard_normal(room, np.float32).astype(dtype)
        order = list(range(len(shape) - 1))
        if self.rare(4):
            self.random.shuffle(order)
            base = np.ascontiguousarray(base.transpose(*order, len(shape) - 1)).transpose(
                *np.argsort(order), len(shape) - 1)
        array = base[tuple(slice(0, n) for n in shape)]
        if self.rare(40):
            array = array[..., ::-1] if self.rare(2) else np.broadcast_to(array[:1], array.shape)
        if self.rare(60):
            array = array.astype(self.pick(">f4", "f8", "i8", "c8", "S3", "O"), copy=True)
        if torch is not None and self.rare(3) and array.dtype.isnative and array.dtype.kind in "fbiu":
            if array.flags.writeable and all(s >= 0 for s in array.strides):
                tensor = torch.from_numpy(array)
                if tensor.dtype.is_floating_point and self.rare(6):
                    tensor = self.pick(tensor.bfloat16(), tensor.half(), tensor.to("meta"), tensor.to_sparse(),
                                       tensor.clone().requires_grad_())
                return tensor
        return array

    def arguments(self, batch, heads, rows, keys):
        pick, n = self.pick, self.random.randrange
        lengths = lambda most: pick([n(most + 1) for _ in range(batch)], np.array([n(most + 1)] * batch, np.int32),
                                    n(most + 2), np.int64(n(most + 2)), np.array(n(most + 1)),
                                    [most + 1] * batch, [])
        offsets = lambda most: pick(sorted(n(most + 1) for _ in range(3)), [0, most], [most, 0])
        every = {
            "mask": lambda: pick("none", "causal", "causal_top_left", "causal_bottom_right"),
            "is_causal": lambda: pick(True, False),
            "attn_mask": lambda: self.array(pick((batch, heads, rows, keys), (rows, keys), (1, keys), (heads, 1, keys),
                                                 (rows, -(-keys // 32))), pick(bool, np.float32, np.float16, np.int32)),
            "scale": lambda: pick(0.1, 0, 1, -1e3, 1e38, float("nan")),
            "enable_gqa": lambda: pick(True, True, False),
            "layout": lambda: pick("BHSD", "BSHD"),
            "softcap": lambda: pick(0, 1.5, 50, -1),
            "window": lambda: pick((1, 1), (3, None), (None, 2), (2**28, 2**28), (0, 0)),
            "window_size": lambda: pick((-1, -1), (3, 0), (0, 2)),
            "prefix": lambda: n(9),
            "diagonal_offset": lambda: pick(0, 3, -3, 2**28, 2**28 + 1),
            "alignment": lambda: pick("top_left", "bottom_right"),
            "alibi_slopes": lambda: self.array(pick((heads,), (batch, heads), (heads + 1,)), np.float32),
            "sinks": lambda: pick([0.0] * heads, [-float("inf")] * heads, np.zeros(heads)),
            "bias_factors": lambda: [1.0] * heads,
            "lens_q": lambda: lengths(rows),
            "lens_kv": lambda: lengths(keys),
            "first_kv": lambda: lengths(keys),
            "cu_seqlens_q": lambda: offsets(rows),
            "cu_seqlens_k": lambda: offsets(keys),
            "lists": lambda: self.lists(batch, heads, rows, keys),
            "neighbourhood": lambda: self.neighbourhood(rows),
            "page_table": lambda: np.random.default_rng(n(99)).integers(-1, 3, (batch, n(4)), np.int32),
            "k_format": lambda: self.random.choice(list(fastattn._core.formats())),
            "v_format": lambda: self.random.choice(list(fastattn._core.formats())),
            "k_scale": lambda: pick(0.5, self.array((batch, 1, keys, 1), np.float32)),
            "v_scale": lambda: pick(0.5, self.array((1, 1, 1, 1), np.float32)),
            "k_zero": lambda: pick(0.5, self.array((1,), np.float32)),
            "v_zero": lambda: 0.5,
            "k_factor": lambda: pick(1, 2.5),
            "v_factor": lambda: pick(1, 2.5),
            "keep_last": lambda: n(40),
            "v_in_k": lambda: pick(1, 8, 600),
            "dynamic_lengths": lambda: pick(True, False),
            "return_lse": lambda: pick(True, False),
            "device": lambda: pick("openmp", "cpu", "openmp:0", "null", "tpu", "cuda"),
            "kernel": lambda: pick("scalar-tile", "avx2-tile", "scalar-standard", "none"),
            "block_q": lambda: pick(1, 16, 2**31),
            "block_kv": lambda: pick(1, 32),
            "splits": lambda: pick(1, 2, 7, 65536),
        }
        chosen = {}
        for name in self.random.sample(list(every), self.random.choice([0, 1, 1, 2, 2, 3, 5])):
            chosen[name] = self.junk() if self.rare(10) else every[name]()
        if self.rare(200):
            chosen["surprise"] = 1
        return chosen

    def lists(self, batch, heads, rows, keys):
        """Lists of key blocks, most of which fit."""
        pick, n = self.pick, self.random.randrange
        block_rows, block_keys = pick(1, 3, 8, 16), pick(1, 3, 8, 16)
        row_blocks, key_blocks = -(-rows // block_rows) + n(2), -(-keys // block_keys) + n(2)
        shape = pick((), (1,), (heads,), (1, heads), (batch, 1), (batch, heads)) + (row_blocks, key_blocks)
        fields = {"block_rows": block_rows, "block_keys": block_keys}
        if self.rare(2):
            fields["mask"] = self.array(shape, bool)
        else:
            counts = [n(key_blocks + 1) for _ in range(int(np.prod(shape[:-1])))]
            fields["indptr"] = np.cumsum([0, *counts]).astype(pick(np.int32, np.int64))
            fields["indices"] = [block for count in counts for block in self.random.sample(range(key_blocks), count)]
            fields |= zip(("key_blocks", "row_blocks", "heads", "sequences"), reversed(shape))
            if self.rare(8):
                fields["indices"] = fields["indices"][:-1]
        if self.rare(8):
            fields[self.random.choice([*fields, "heads", "sequences"])] = self.junk()
        return fastattn.BlockLists(**fields)

    def neighbourhood(self, rows):
        """Of one axis or two, most of which fit."""
        pick, n = self.pick, self.random.randrange
        fields = {"size": pick(rows, [rows], [1, rows], [-(-rows // 2), 2]), "kernel": pick(1, 1, 2, 3)}
        for name in ("stride", "dilation", "causal", "tile"):
            fields[name] = pick(None, 1, 2, [1, 1])
        if self.rare(8):
            fields[self.random.choice(list(fields))] = self.junk()
        return fastattn.Neighbourhood(**fields)

    def planner(self, heads, rows, keys, dim):
        """Lists of a planner, most of whose arguments fit."""
        pick, n = self.pick, self.random.randrange
        q, k = (self.array((heads, size, dim), np.float32) for size in (rows, keys))
        near = self.neighbourhood(rows)
        usual = {"block_rows": pick(0, 1, 3, 8), "block_keys": pick(0, 1, 3, 8)}
        name, positional, options = pick(
            ("window", (rows, keys), {"window_left": n(9), "global_last": n(2), "random": n(3), "heads": heads}),
            ("streaming", (rows, keys, [n(3) - 1 for _ in range(heads)]),
             {"streaming_info": pick(None, [[1, 2]] * heads),
              "base_blockmask": pick(None, self.array((1, 1, 3, 3), bool))}),
            ("topk", (q, k), {"topk": n(9), "per_kv_head": pick(True, False)}),
            ("permuted", (q, pick(k, q)), {"segment": pick(0, 24), "threshold": pick(None, 0.5), "without_own": True}),
            ("distance", (rows, keys), {"probability": pick(None, [1, 0.5], [0, 2.0]), "heads": heads}),
            ("neighbourhood", (near,), {"extra_keys": n(5)}), ("neighbourhood_order", (near,), {}))
        if name != "neighbourhood_order":
            options |= usual
        if not name.startswith("neighbourhood"):
            options["mask"] = pick(None, "causal", "causal_top_left")
        if options and self.rare(4):
            options[self.random.choice(list(options))] = self.junk()
        return getattr(sparse, name)(*[self.junk() if self.rare(20) else x for x in positional], **options)

    def one(self):
        batch, heads, rows, keys = self.size(1, 2), self.size(1, 2, 4), self.size(1, 5, 20), self.size(1, 7, 40)
        heads_kv, dim = self.pick(1, heads, heads), self.size(8, 16, 32, 64)
        dtype = self.pick(np.float32, np.float32, np.float16)
        formed = self.pick(dtype, dtype, dtype, np.uint8, np.int8)
        q = self.array((batch, heads, rows, dim), dtype)
        k, v = (self.array((batch, heads_kv, keys, dim), formed) for _ in "kv")
        arguments = self.arguments(batch, heads, rows, keys)
        if str(arguments.get("layout")) == "BSHD" and not self.rare():
            q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        if "v_in_k" in arguments and not self.rare():
            v = None
        if formed in (np.uint8, np.int8) and not self.rare():
            arguments |= {"k_scale": 0.1, "v_scale": 0.1}
        three = [self.junk() if self.rare(60) else x for x in (q, k, v)]
        if self.rare(8):
            arguments["out"] = self.pick(q, k, self.array((batch, heads, rows, dim), dtype))
        what = self.random.randrange(13)
        try:
            if what == 0:
                return fastattn.supports(*three, **arguments)
            if what == 1:
                plan = fastattn.Plan(*three, **arguments)
                plan.info
                return plan.run(*three, **{name: value for name, value in arguments.items() if self.rare(3)})
            if what == 2:
                return self.cache(three)
            if what == 12:
                return self.planner(heads, rows, keys, dim)
            if what == 3:
                lse = self.array((batch, heads, rows), np.float32)
                return fastattn.merge(self.pick(q, [q, q], []), self.pick(lse, [lse, lse]), out=self.pick(None, q, self.junk()))
            return fastattn.attention(*three[:self.pick(3, 3, 3, 3, 2, 1)], **arguments)
        except EXPECTED:
            return None

    def cache(self, three):
        q, k, v = three
        pick = self.pick
        options = {
            "sequences": self.size(1, 2), "heads_kv": self.size(1, 2, 4), "dim": self.size(8, 16, 32),
            "max_length": self.size(20, 60), "page_size": pick(None, 1, 7, 16), "dim_v": pick(None, None, 8, 0),
            "format": pick("f16", "f32", "q8_0", "i8", "u4", self.random.choice(list(fastattn._core.formats()))),
            "rotary": pick(None, None, {}, {"form": "interleaved", "dims": 8, "base": 100.0}, {"dims": self.junk()}),
        }
        if self.rare(8):
            options[self.random.choice([*options, "pages", "v_format", "group"])] = self.junk()
        cache = fastattn.Cache(**options)
        for _ in range(3):
            for use in (lambda: cache.append(k, v, lens=pick(None, 1, [1, 2], self.junk()), q=pick(None, None, q),
                                             layout=pick("BHSD", "BHSD", "BSHD")),
                        lambda: cache.attend(q, return_lse=self.rare(2), layout=pick("BHSD", "BHSD", "BSHD")),
                        lambda: cache.truncate(0, pick(self.size(1, 5), self.junk()))):
                try:
                    use()
                except EXPECTED:
                    pass
        cache.close()


def fuzz(seconds, seed):
    end, count, done = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        try:
            done += Fuzz(seed + count).one() is not None
        except BaseException:
            print(f"fuzz: seed {seed + count}")
            raise
        count += 1
    print(f"fuzz: {count} calls, {done} with a result, seeds from {seed}")
    return count, done


class Fuzzing(unittest.TestCase):
    seconds, seed = 20.0, 1

    def test_random_arguments(self):
        count, done = fuzz(self.seconds, self.seed)
        self.assertGreater(done, count // 50)


def read_options():
    parser = argparse.ArgumentParser(description="Random arguments for fastattn.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    options = read_options()
    fuzz(options.seconds, options.seed)
