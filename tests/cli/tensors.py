# SPDX-License-Identifier: Apache-2.0
"""Tensor files and attention with nothing but Python's standard library."""

import json
import math
import random
import re
import struct
from pathlib import Path

NPY = {"f64": ("<f8", "d"), "f32": ("<f4", "f"), "f16": ("<f2", "e"), "bool": ("|b1", "?"), "i32": ("<i4", "i"),
       "i64": ("<i8", "q"), "u8": ("|u1", "B")}
SAFETENSORS = {"f32": "F32", "f16": "F16", "bf16": "BF16", "bool": "BOOL", "i32": "I32", "i64": "I64", "u8": "U8"}


class Tensor:
    """A flat list of numbers with a shape, in C order."""

    def __init__(self, shape, values, dtype="f32"):
        assert len(values) == math.prod(shape), (shape, len(values))
        self.shape, self.values, self.dtype = tuple(shape), list(values), dtype

    def __getitem__(self, index):
        flat = 0
        for size, i in zip(self.shape, index):
            flat = flat * size + i
        return self.values[flat]

    def reshaped(self, *shape):
        return Tensor(shape, self.values, self.dtype)

    def swapped(self):
        """Axes 1 and 2 of four exchanged: BHSD to BSHD and back."""
        b, x, y, d = self.shape
        values = [self[n, i, j, e] for n in range(b) for j in range(y) for i in range(x) for e in range(d)]
        return Tensor((b, y, x, d), values, self.dtype)

    def difference(self, other):
        assert self.shape == other.shape, (self.shape, other.shape)
        return max((abs(a - b) for a, b in zip(self.values, other.values) if a != b), default=0.0)


def noise(seed, *shape, dtype="f32", scale=1.0):
    """Numbers that every type holds exactly."""
    rng = random.Random(seed)
    return Tensor(shape, [scale * rng.randint(-128, 128) / 64 for _ in range(math.prod(shape))], dtype)


def packed(tensor):
    if tensor.dtype == "bf16":
        return b"".join(struct.pack("<f", x)[2:] for x in tensor.values)
    return struct.pack("<%d%s" % (len(tensor.values), NPY[tensor.dtype][1]), *tensor.values)


def npy_bytes(tensor):
    header = str({"descr": NPY[tensor.dtype][0], "fortran_order": False, "shape": tensor.shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + packed(tensor)


def write_npy(path, tensor):
    Path(path).write_bytes(npy_bytes(tensor))
    return str(path)


def read_npy(path):
    raw = Path(path).read_bytes()
    assert raw[:8] == b"\x93NUMPY\x01\x00", raw[:8]
    end = 10 + struct.unpack("<H", raw[8:10])[0]
    header = raw[10:end].decode()
    descr = re.search(r"'descr': '([^']*)'", header).group(1)
    shape = tuple(int(n) for n in re.findall(r"\d+", re.search(r"'shape': \(([^)]*)\)", header).group(1)))
    dtype, code = next((name, code) for name, (text, code) in NPY.items() if text == descr)
    return Tensor(shape, struct.unpack("<%d%s" % (math.prod(shape), code), raw[end:]), dtype)


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, tensor in tensors.items():
        raw = packed(tensor)
        header[name] = {
            "dtype": SAFETENSORS[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def attention(q, k, v, visible=None, bias=None, scale=None, softcap=None, slopes=None, sinks=None):
    """Output and log-sum-exp, in double precision; `visible` and `bias` take (batch, head, row, key)."""
    batch, heads, rows, dim = q.shape
    keys, dim_v = k.shape[2], v.shape[3]
    scale = 1 / math.sqrt(dim) if scale is None else scale
    out, lse = [], []
    for b in range(batch):
        for h in range(heads):
            group = h * k.shape[1] // heads
            for i in range(rows):
                scores = {}
                for j in range(keys):
                    if visible and not visible(b, h, i, j):
                        continue
                    s = scale * math.fsum(q[b, h, i, d] * k[b, group, j, d] for d in range(dim))
                    s = softcap * math.tanh(s / softcap) if softcap else s
                    s -= slopes[h] * abs(i + keys - rows - j) if slopes else 0
                    scores[j] = s + (bias(b, h, i, j) if bias else 0)
                terms = list(scores.values()) + ([sinks[h]] if sinks else [])
                top = max(terms, default=0)
                total = math.fsum(math.exp(s - top) for s in terms)
                lse.append(top + math.log(total) if total else -math.inf)
                weights = {j: math.exp(s - top) / total for j, s in scores.items()}
                out += [math.fsum(w * v[b, group, j, d] for j, w in weights.items()) for d in range(dim_v)]
    return Tensor((batch, heads, rows, dim_v), out), Tensor((batch, heads, rows), lse)
