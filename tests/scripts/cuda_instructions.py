#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the main loop of the CUDA kernels on tensor cores is made of: instructions for each tile of scores, by class.

    cuda_instructions.py [--nvcc NVCC | --nvrtc LIBRARY --ptxas PTXAS] [--disassembler NVDISASM] [--kernels NAME,NAME] ARCH...

Without --kernels, it looks at those made for ARCH. Of each, the variant with the most rows and without transformed scores is
counted, in f16, and of it what a warp executes for a tile of a block that is whole and that no mask cuts, while no base
changes: the shortest path through the loop that has all products and stages a block. Columns:

    rows keys dims   of a warp's tile
    HMMA ... rest    instructions by class: LDG with copies to shared memory, local with spills, float of FFMA, FADD, FMUL and
                     FMNMX, pack of conversions and PRMT
    /1000            total for 1000 multiply-adds of both products
    wavefronts       of 128 bytes that loads from shared memory take at the most where banks do not conflict
    around           instructions of a turn of the loop over blocks outside of what is counted, for each tile of the block

Where a block is of one tile only, what is counted ends where the paths of blocks that are cut and that are not part and
meet: half of the staging is around it. Nothing runs: no GPU is needed.
"""
import collections
import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import cuda_lines  # noqa: E402  pylint: disable=wrong-import-position

INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]+\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);(.*)")
LABEL = re.compile(r"\.L_[\w.]+")
WIDE = re.compile(r"LDG.*\.128")
MATRICES = re.compile(r"LDSM.*\.([124])$")
BITS = re.compile(r"\.(64|128)\b")
FRAGMENT = re.compile(r"HMMA\.(\d+)")
MULTIPLY_ADDS = {"884": 256, "1688": 1024, "16816": 2048}  # of an instruction of a warp
CLASSES = {
    "HMMA": ["HMMA"], "LDSM": ["LDSM"], "LDS": ["LDS"], "STS": ["STS"], "LDG": ["LDG", "LDGSTS"], "local": ["LDL", "STL"],
    "MUFU": ["MUFU"], "float": ["FFMA", "FADD", "FMUL", "FMNMX"], "SHFL": ["SHFL"],
    "pack": ["F2F", "F2FP", "HADD2", "PRMT"],
}
CLASS_OF = {base: name for name, bases in CLASSES.items() for base in bases}


class Kernel:
    """Instructions of a function by number, and which follow each; edges back to the beginning of a loop apart."""

    def __init__(self, listing):
        self.names, self.before, self.loops = [], collections.defaultdict(list), collections.defaultdict(list)
        labels, matches = {}, []
        for line in listing:
            match = INSTRUCTION.match(line)
            if match:
                matches.append(match)
                self.names.append(match[2])
            elif LABEL.match(line):
                labels[line.rstrip(":")] = len(self.names)
        self.next = [list(follows(number, match, labels)) for number, match in enumerate(matches)]
        self.next[-1] = []
        self.order = self.sort()
        self.place = {number: place for place, number in enumerate(self.order)}

    def sort(self):
        """Everything that is reached, each after all that lead to it but for the edges back."""
        done, open_ones, order, stack = {0}, {0}, [], [(0, iter(self.next[0]))]
        while stack:
            number, rest = stack[-1]
            after = next(rest, None)
            if after is None:
                stack.pop()
                open_ones.discard(number)
                order.append(number)
                continue
            (self.loops if after in open_ones else self.before)[after].append(number)
            if after not in done:
                done.add(after)
                open_ones.add(after)
                stack.append((after, iter(self.next[after])))
        return order[::-1]

    def multiplies(self, number):
        return self.names[number].startswith("HMMA")

    def body(self, first):
        """What a loop is of; None where other ways lead into it."""
        found, left = {first}, list(self.loops[first])
        while left:
            number = left.pop()
            if number not in found:
                found.add(number)
                left += self.before[number] + self.loops.get(number, [])
        return None if 0 in found else found

    def path(self, first, body, cost):
        """The cheapest way once around a loop, and its cost; costs of instructions are tuples, and add up."""
        best = {first: (cost(first), None)}
        for number in self.order[self.place[first] + 1:]:
            ways = [other for other in self.before[number] if other in best] if number in body else []
            if ways:
                came = min(ways, key=lambda other: best[other][0])
                best[number] = tuple(map(sum, zip(best[came][0], cost(number)))), came
        number = min((last for last in self.loops[first] if last in best), key=lambda last: best[last][0])
        total, way = best[number][0], []
        while number is not None:
            way.append(number)
            number = best[number][1]
        return total, way[::-1]

    def turn(self, first, body):
        """The path of blocks that are not cut: of the copies of the products the shorter one, and what stages a block."""
        _, way = self.path(first, body, lambda number: (-self.multiplies(number), 1))
        other = {number for number in body if self.multiplies(number)} - set(way)
        return self.path(first, body - other, lambda number: (
            -self.multiplies(number), -bool(WIDE.match(self.names[number])), 1)) + (other,)

    def reached(self, numbers, edges, body):
        found, left = set(), list(numbers)
        while left:
            number = left.pop()
            if number in body and number not in found:
                found.add(number)
                left += edges(number)
        return found

    def own(self, way, other, first, body):
        """The part of the way that it does not share with the other copy of the products."""
        leading = self.reached(other, lambda number: self.before[number] if number != first else [], body)
        after = self.reached(other, lambda number: [to for to in self.next[number] if number in self.before[to]], body)
        begin = max((place + 1 for place, number in enumerate(way) if number in leading), default=0)
        end = min((place for place, number in enumerate(way) if number in after and place >= begin), default=len(way))
        return way[begin:end]

    def tile(self):
        """Instructions of a tile, and of all of a turn of the loop over blocks."""
        bodies = {first: self.body(first) for first in self.loops}
        bodies = {first: body for first, body in bodies.items() if body and any(map(self.multiplies, body))}
        inner = [first for first, body in bodies.items() if not any(other < body for other in bodies.values())]
        turns = {first: self.turn(first, bodies[first]) for first in inner}
        first = min(turns, key=lambda one: turns[one][0])
        _, way, other = turns[first]
        around = min((one for one in bodies if bodies[first] < bodies[one]), key=lambda one: len(bodies[one]), default=first)
        return self.own(way, other, first, bodies[first]), self.turn(around, bodies[around])[1]


def follows(number, match, labels):
    """Which instructions come after one. Calls come back; where lanes wait for others, all go on behind."""
    condition, name, operands, note = match.groups()
    base = name.split(".")[0]
    targets = [labels[label] for label in LABEL.findall(operands + note)] if base in ("BRA", "BRX", "JMP", "JMX") else []
    yield from targets
    ends = base in ("EXIT", "RET", "BRX", "JMX") or (name == "BRA" and LABEL.fullmatch(operands.strip(" `()")))
    if condition or not ends:
        yield number + 1


def disassemble(options, cubin, variant):
    done = subprocess.run([options.disassembler, "-c", cubin], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    text = done.stdout.split(f".text.fa_kernel_{variant}:\n", 1)[1]
    return text.split("\n//---", 1)[0].splitlines()


def wavefronts(name):
    if name.startswith("LDSM"):
        found = MATRICES.match(name)
        return int(found[1]) if found else 1
    found = BITS.search(name)
    return int(found[1]) // 32 if found else 1


def report(arch, name, variant, kernel):
    tile, turn = kernel.tile()
    names = [kernel.names[number] for number in tile]
    counts = collections.Counter(CLASS_OF.get(one.split(".")[0], "rest") for one in names)
    warps = variant.threads // 32 // variant.split
    shape = variant.rows // warps, variant.depth, variant.dims // 2 // variant.split
    products = 2 * shape[0] * shape[1] * shape[2]
    if sum(MULTIPLY_ADDS[FRAGMENT.match(one)[1]] for one in names if one.startswith("HMMA")) != products:
        sys.exit(f"{name}: other products were found than those of a tile")
    read = sum(wavefronts(one) for one in names if one.startswith("LDS"))
    around = (len(turn) - len(tile)) * variant.depth / variant.block_kv
    print(f"{name:14} {arch:3} {shape[0]:4} {shape[1]:4} {shape[2]:4}",
          *(f"{counts[one]:5}" for one in [*CLASSES, "rest"]),
          f"{len(tile):6} {len(tile) * 1000 / products:6.2f} {read:10} {around:6.0f}")


def main():
    parser = cuda_lines.parser(__doc__)
    parser.add_argument("--disassembler", default="nvdisasm")
    options = parser.parse_args()
    has = cuda_lines.variants()
    print(f"{'kernel':14} {'sm':>3} {'rows':>4} {'keys':>4} {'dims':>4}", *(f"{one:>5}" for one in [*CLASSES, "rest"]),
          f"{'total':>6} {'/1000':>6} {'wavefronts':>10} {'around':>6}")
    for arch in options.arch:
        for index, kind, name, unit, element in cuda_lines.lines():
            tensor = kind in ("AMPERE", "AMPERE_WIDE", "TURING", "VOLTA") and unit <= arch
            if not tensor or not (name in options.kernels if options.kernels else unit == arch):
                continue
            number = max(of for of_name, of in has if of_name == name and of % 2 == 0)
            with tempfile.TemporaryDirectory() as folder:
                cuda_lines.compile_line(options, arch, unit, index, element, folder)
                kernel = Kernel(disassemble(options, pathlib.Path(folder) / "cubin", number))
            report(arch, name, has[name, number], kernel)


if __name__ == "__main__":
    main()
