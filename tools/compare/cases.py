# SPDX-License-Identifier: Apache-2.0
"""What compare.py times, and the arithmetic on its times."""

import re
from dataclasses import dataclass

DTYPES = ("f32", "f16", "bf16")
BYTES = {"f32": 4, "f16": 2, "bf16": 2}

# Times that shrink by less than this are noise.
SLACK = 0.02


@dataclass(frozen=True)
class Case:
    suite: str
    dtype: str
    batch: int
    heads_q: int
    len_q: int
    dim: int
    heads_kv: int
    len_kv: int
    dim_v: int
    causal: bool = False

    @property
    def shape(self):
        """As `fastattn bench` writes it: what equals its default is left out."""
        text = f"B{self.batch},H{self.heads_q},S{self.len_q},D{self.dim}"
        for key, value, usual in (("HK", self.heads_kv, self.heads_q), ("SK", self.len_kv, self.len_q),
                                  ("DV", self.dim_v, self.dim)):
            text += f",{key}{value}" if value != usual else ""
        return text

    @property
    def words(self):
        """As a worker reads it."""
        sizes = (self.batch, self.heads_q, self.len_q, self.dim, self.heads_kv, self.len_kv, self.dim_v)
        return " ".join(map(str, (self.dtype, *sizes, int(self.causal))))

    @property
    def flops(self):
        """2 (D + DV) per visible pair; a causal mask, aligned at the bottom right, halves a square."""
        rows, keys = self.len_q, self.len_kv
        pairs = rows * keys
        if self.causal:
            pairs = rows * keys - rows * rows / 2 if rows < keys else keys * keys / 2
        return 2 * self.batch * self.heads_q * pairs * (self.dim + self.dim_v)

    @property
    def bytes(self):
        """q, k, v and o, each moved once."""
        width = self.dim + self.dim_v
        rows, keys = self.heads_q * self.len_q, self.heads_kv * self.len_kv
        return self.batch * (rows + keys) * width * BYTES[self.dtype]


def parse_shape(text):
    """The sizes in "B1,H8,S2048,D128[,HK8][,SK2048][,DV128]", in any order, as Case takes them."""
    values = {}
    for part in text.split(","):
        found = re.fullmatch(r"(HK|SK|DV|B|H|S|D)([0-9]+)", part)
        if not found or int(found[2]) < 1:
            raise ValueError(f"part {part!r} is wrong, expected B, H, S, D, HK, SK or DV and a whole number "
                             "of at least 1 behind it")
        if found[1] in values:
            raise ValueError(f"part {part!r} is wrong, expected each letter only once")
        values[found[1]] = int(found[2])
    for key in "BHSD":
        if key not in values:
            raise ValueError(f"part {key} is missing, expected B, H, S and D such as B1,H8,S2048,D128")
    b, h, s, d = (values[key] for key in "BHSD")
    return b, h, s, d, values.get("HK", h), values.get("SK", s), values.get("DV", d)


# --- Suites: lists of groups. The cases of a group are timed in turn with each other. ---

def prefill(dtypes):
    return [[Case("prefill", dtype, 1, 8, length, dim, 8, length, dim, causal)]
            for dtype in dtypes or DTYPES
            for dim in (64, 128)
            for causal in (False, True)
            for length in (512, 1024, 2048, 4096)]


def cached(suite, dtype, rows, keys, batch=1):
    """New tokens against their cache, with the grouped heads of an 8-billion-parameter Llama 3."""
    return Case(suite, dtype, batch, 32, rows, 128, 8, keys, 128)


def decode(dtypes):
    return [[cached("decode", dtype, 1, 16384)] for dtype in dtypes or DTYPES]


def short(dtypes):
    lengths = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 63, 64)
    return [[cached("short", dtype, length, 4096) for length in lengths] for dtype in dtypes or DTYPES]


def dims(dtypes):
    sizes = [(dim, dim) for dim in (1, 16, 17, 32, 40, 64, 72, 80, 96, 112, 128, 256, 512)] + [(576, 512)]
    return [[Case("dims", dtype, 1, 8, 1024, dim, 8, 1024, dim_v) for dim, dim_v in sizes]
            for dtype in dtypes or ("f32",)]


def tiny(dtypes):
    return [[Case("tiny", dtype, 1, heads, length, 64, heads, length, 64)]
            for dtype in dtypes or ("f32",)
            for heads in (1, 8)
            for length in (1, 4, 16, 32, 64)]


def gpu(dtypes):
    """Enough work for a GPU; at the longest one batch less, where every score in memory takes most of it."""
    groups = []
    for dtype in dtypes or ("f32", "f16"):
        groups += [[Case("gpu", dtype, batch, 16, length, dim, 16, length, dim, causal)]
                   for dim in (64, 128)
                   for causal in (False, True)
                   for batch, length in ((2, 2048), (2, 4096), (2, 8192), (1, 16384))]
        groups += [[cached("gpu", dtype, 1, 4096, 16)], [cached("gpu", dtype, 1, 16384)]]
    return groups


SUITES = {suite.__name__: suite for suite in (prefill, decode, short, dims, tiny, gpu)}


# --- Arithmetic. None stands for a number that could not be had, and gives None. ---

def ratio(a, b):
    return a / b if a is not None and b else None


def over_line(lengths, times):
    """Each time over that of the straight line from the first length to the last."""
    first, last = times[0], times[-1]
    if first is None or last is None:
        return [None] * len(times)
    span = lengths[-1] - lengths[0]
    return [ratio(time, first + (last - first) * (length - lengths[0]) / span)
            for length, time in zip(lengths, times)]


def falls(lengths, times, slack=SLACK):
    """Lengths that take less time than a shorter one: [(length, shorter length, share of its time)]."""
    found = []
    peak = None
    for length, time in zip(lengths, times):
        if time is None:
            continue
        if peak and time < peak[1] * (1 - slack):
            found.append((length, peak[0], time / peak[1]))
        if not peak or time > peak[1]:
            peak = (length, time)
    return found


def of_neighbours(dim_pairs, rates):
    """Of each (dim, dim_v), its rate over those of the powers of two around it: [(below, above)].

    Baselines are the measured powers of two from 16 on, which are not compared themselves. Where dim and
    dim_v differ, their mean counts."""
    baseline = {dim: rate for (dim, dim_v), rate in zip(dim_pairs, rates)
                 if dim == dim_v and dim >= 16 and dim & (dim - 1) == 0}
    compared = []
    for (dim, dim_v), rate in zip(dim_pairs, rates):
        size = (dim + dim_v) / 2
        below = max((power for power in baseline if power < size), default=None)
        above = min((power for power in baseline if power > size), default=None)
        if size in baseline:
            below = above = None
        compared.append((ratio(rate, baseline.get(below)), ratio(rate, baseline.get(above))))
    return compared
