# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/python.md."""

import doctest
import unittest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


class Docs(unittest.TestCase):
    def test_examples(self):
        failed, tried = doctest.testfile(str(PAGE), module_relative=False)
        self.assertGreater(tried, 15)
        self.assertEqual(failed, 0)


if __name__ == "__main__":
    unittest.main()
