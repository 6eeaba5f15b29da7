# SPDX-License-Identifier: Apache-2.0
"""run.py FOLDER MODULE: the tests of one module, on the package in the folder. 77 without NumPy."""

import sys
import unittest
from pathlib import Path

sys.path[:0] = [sys.argv[1], str(Path(__file__).parent)]
if sys.version_info < (3, 11):
    sys.exit(77)
try:
    import numpy  # noqa: F401
except ImportError:
    sys.exit(77)
unittest.main(module=sys.argv[2], argv=sys.argv[2:], verbosity=1)
