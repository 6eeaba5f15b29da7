#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a compiler made of the micro-kernels: the innermost loops of an object file that multiply and add.

For each: instructions, multiply-adds, loads of vectors or scalars that are broadcast, and accesses to the stack,
which are spills. Usage: inner_loops.py [--objdump PROGRAM] OBJECT
"""
import argparse
import re
import subprocess
import sys

LINE = re.compile(r"^\s*([0-9a-f]+):\s+(.*)$")
JUMP = re.compile(r"^(?:j\w+|b\.\w+|cbn?z|tbn?z)\s+.*?([0-9a-f]+)\s+<")
MULTIPLY_ADD = re.compile(r"\b(?:vfm\w+|fmla|fmadd|vdpbf16ps|tdpbf16ps)\b")
STACK = re.compile(r"%[er]sp|\[sp\b")
LOAD = re.compile(r"^(?:vbroadcastss|vpbroadcastd|vmovups|vmovaps|ldr|ldp|ld1\w*|tileloadd)\b|\{1to")


def instructions(objdump, path):
    text = subprocess.run([objdump, "-d", "--no-show-raw-insn", path], check=True, capture_output=True, text=True)
    for line in text.stdout.splitlines():
        match = LINE.match(line)
        if match:
            yield int(match[1], 16), match[2].replace("\t", " ")


def loops(listing):
    """The bodies of backward jumps that contain no other backward jump."""
    at = {address: index for index, (address, _) in enumerate(listing)}
    last = -1
    for index, (address, text) in enumerate(listing):
        match = JUMP.match(text)
        if not match:
            continue
        target = int(match[1], 16)
        if target <= address and target in at:
            if at[target] > last:
                yield target, [body for _, body in listing[at[target]:index + 1]]
            last = max(last, at[target])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objdump", default="objdump")
    parser.add_argument("object")
    options = parser.parse_args()
    print("   address  instructions  multiply-adds  loads  stack")
    for address, body in loops(list(instructions(options.objdump, options.object))):
        fused = sum(bool(MULTIPLY_ADD.search(text)) for text in body)
        if fused >= 4:
            loads = sum(bool(LOAD.search(text)) and not STACK.search(text) for text in body)
            stack = sum(bool(STACK.search(text)) for text in body)
            print(f"{address:10x}  {len(body):12}  {fused:13}  {loads:5}  {stack:5}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
