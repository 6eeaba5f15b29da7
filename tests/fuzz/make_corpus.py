#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the fuzzers' seeds into corpus/ beside this script.

Only struct and json are used, so that a seed holds exactly the bytes that are written here,
the malformed ones among them.
"""

import json
import struct
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"


def npy(header, data=b"", version=(1, 0)):
    text = header.encode("latin-1")
    prefix = 10 if version == (1, 0) else 12
    text += b" " * (-(prefix + len(text) + 1) % 64) + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def npy_header(descr, shape, fortran=False):
    return f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"


def safetensors(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def npy_seeds():
    f32 = struct.pack("<6f", *range(6))
    yield "f4_2x3", npy(npy_header("<f4", (2, 3)), f32)
    yield "f4_2x3_fortran", npy(npy_header("<f4", (2, 3), True), f32)
    yield "f2_rank1_v2", npy(npy_header("<f2", (3,)), struct.pack("<3e", 0, 1, -2), (2, 0))
    yield "u1_rank0_v3", npy(npy_header("|u1", ()), b"\x07", (3, 0))
    yield "b1_rank8", npy(npy_header("|b1", (1, 1, 2, 1, 1, 2, 1, 1)), b"\0\1\1\0")
    yield "i8_empty", npy(npy_header("<i8", (0, 4)))
    yield "i4_fortran", npy(npy_header("<i4", (2, 1, 2), True), struct.pack("<4i", 1, -1, 2, -2))
    yield "structured", npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
                            bytes(4))
    yield "overflow", npy(npy_header("<f4", (2**62, 8)), f32)


def safetensors_seeds():
    f32 = struct.pack("<6f", *range(6))
    yield "q_f32", safetensors({"q": entry("F32", [2, 3], 0, 24)}, f32)
    yield "q_v_metadata", safetensors({
        "__metadata__": {"made": "by hand"},
        "q": entry("BF16", [3], 0, 6),
        "v": entry("I32", [2, 1], 6, 14),
        "other": entry("F8_E4M3", [1], 14, 15),
    }, bytes(range(15)))
    yield "q_scalar_i64", safetensors({"q": entry("I64", [], 0, 8)}, struct.pack("<q", -5))
    yield "q_bool_empty", safetensors({"q": entry("BOOL", [0, 7], 0, 0)})
    yield "empty", safetensors({})
    yield "duplicate", safetensors(b'{"q":{},"q":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
                                   b"\0")
    yield "overflow", safetensors({"q": entry("F16", [2**62, 8], 0, 24)}, f32)


def main():
    for folder, seeds in (("npy", npy_seeds()), ("safetensors", safetensors_seeds())):
        (CORPUS / folder).mkdir(parents=True, exist_ok=True)
        for name, content in seeds:
            (CORPUS / folder / f"{name}.{folder}").write_bytes(content)


if __name__ == "__main__":
    main()
