#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Local-memory bank conflicts of the OpenCL tile kernels, counted from their addresses (core/portable/stage.h).

    bank_conflicts.py [LANES BLOCK_Q BLOCK_KV DIM_V DEPTH]

For 32 work-items that run together on 32 banks of 4 bytes: how many words of one bank an access touches at the most
and on the average, over all accesses of a kernel; 1 is free of conflicts. Vectors of four go eight work-items at a
time, as on NVIDIA's devices.
"""
import sys

BANKS, TOGETHER, ROWS = 32, 32, 8


class Kernel:
    def __init__(self, lanes, block_q, block_kv, dim_v, depth):
        self.lanes, self.block_q, self.block_kv, self.dim_v, self.depth = lanes, block_q, block_kv, dim_v, depth
        self.group = lanes * block_q // ROWS
        self.stage_rows = depth * (block_q + 4)

    def line_q(self, d):
        return d * self.block_q + d // 4 * 8

    def line_k(self, d):
        return self.stage_rows + d * self.block_kv + d // 4 * 8

    def line_p(self, t):
        return t * (self.block_q + 4)

    def line_v(self, t):
        return self.stage_rows + t * self.dim_v

    def columns(self, line, count):
        """Stores of put_qk(): dims of a row become lines."""
        for first in range(0, count * (self.depth // 4), self.group):
            for part in range(4):
                def place(item, first=first, part=part):
                    at = item + first
                    row, d = at // (self.depth // 4), at % (self.depth // 4) * 4
                    return line(d + part) + row if row < count else None
                yield 1, place

    def accesses(self):
        yield "q in", list(self.columns(self.line_q, self.block_q))
        yield "k in", list(self.columns(self.line_k, self.block_kv))
        yield "q out", [(4, lambda i, d=d, n=n: self.line_q(d) + i // self.lanes * ROWS + n)
                        for d in range(self.depth) for n in (0, 4)]
        yield "k out", [(4, lambda i, d=d, g=g: self.line_k(d) + i % self.lanes * 4 + g * self.lanes)
                        for d in range(self.depth) for g in range(0, self.block_kv // self.lanes, 4)]
        yield "weights in", [(4, lambda i, s=s, g=g, n=n: self.weight(i, s, g, n))
                             for s in range(self.block_kv // self.depth) for g in range(self.block_kv // self.lanes)
                             for n in (0, 4)]
        yield "weights out", [(4, lambda i, t=t, n=n: self.line_p(t) + i // self.lanes * ROWS + n)
                              for t in range(self.depth) for n in (0, 4)]
        yield "v in", [(4, lambda i, f=f: self.stage_rows + (i + f) * 4 if i + f < self.depth * self.dim_v // 4 else None)
                       for f in range(0, self.depth * self.dim_v // 4, self.group)]
        yield "v out", [(4, lambda i, t=t, g=g: self.line_v(t) + i % self.lanes * 4 + g * self.lanes)
                        for t in range(self.depth) for g in range(0, self.dim_v // self.lanes, 4)]
        yield "maxima in", [(4, lambda i, n=n: self.line_p(i % self.lanes) + i // self.lanes * ROWS + n) for n in (0, 4)]
        yield "maxima out", [(4, lambda i, t=t, n=n: self.line_p(t) + i // self.lanes * ROWS + n)
                             for t in range(self.lanes) for n in (0, 4)]

    def weight(self, item, step, column, part):
        slot = column * self.lanes + item % self.lanes - step * self.depth
        return self.line_p(slot) + item // self.lanes * ROWS + part if 0 <= slot < self.depth else None


def degree(words, place, items):
    """The most distinct words of a bank that work-items which go together touch; 0 where none takes part."""
    worst = 0
    at_once = TOGETHER if words == 1 else TOGETHER // words
    for begin in range(0, len(items), at_once):
        banks = {}
        for item in items[begin:begin + at_once]:
            at = place(item)
            if at is not None:
                for word in range(at, at + words):
                    banks.setdefault(word % BANKS, set()).add(word)
        worst = max([worst] + [len(touched) for touched in banks.values()])
    return worst


def report(kernel):
    print(f"{kernel.lanes} lanes, {kernel.block_q} x {kernel.block_kv}, dim_v {kernel.dim_v}, steps of {kernel.depth}")
    for name, accesses in kernel.accesses():
        degrees = []
        for words, place in accesses:
            for begin in range(0, kernel.group, TOGETHER):
                found = degree(words, place, range(begin, min(begin + TOGETHER, kernel.group)))
                if found:
                    degrees.append(found)
        print(f"  {name:12} most {max(degrees)}, mean {sum(degrees) / len(degrees):.2f}")


def main():
    if len(sys.argv) not in (1, 6):
        sys.exit(__doc__)
    shapes = [tuple(int(word) for word in sys.argv[1:])] if len(sys.argv) == 6 else \
        [(8, 256, 64, 64, 16), (16, 128, 128, 128, 16), (32, 64, 128, 256, 16), (64, 32, 256, 512, 8)]
    for shape in shapes:
        report(Kernel(*shape))


if __name__ == "__main__":
    main()
