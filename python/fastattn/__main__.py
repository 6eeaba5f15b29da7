# SPDX-License-Identifier: Apache-2.0
"""python -m fastattn: the fastattn command, which lists devices, shows plans, tests and measures kernels."""

import os
import sys
from pathlib import Path


def main() -> int:
    """Runs the command that this package carries. Returns only if it carries none."""
    own = Path(__file__).with_name("command")
    if not os.access(own, os.X_OK):
        print(
            "fastattn: this package was built without the command, which needs jansson. Install jansson's headers "
            "(Debian: libjansson-dev) and build the package anew: pip install --no-binary fastattn fastattn",
            file=sys.stderr,
        )
        return 2
    os.execv(own, ["fastattn", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
