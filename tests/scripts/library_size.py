#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whether a library with embedded CUDA kernels is as small as docs/building.md says.

    library_size.py LIBRARY ARCHS        ARCHS is as the option nvcc_archs has it
"""
import pathlib
import sys

BASE, FOR_EACH = 5_000_000, 7_000_000  # bytes


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    archs = sys.argv[2].split(",")
    size, limit = pathlib.Path(sys.argv[1]).stat().st_size, BASE + FOR_EACH * len(archs)
    print(f"{size} bytes with kernels for {len(archs)} architectures, expected at most {limit}")
    sys.exit(size > limit)


if __name__ == "__main__":
    main()
