# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/python.md, and the one of README.md, which prints what its comment says."""

import contextlib
import doctest
import io
import re
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Docs(unittest.TestCase):
    def test_examples(self):
        failed, tried = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False)
        self.assertGreater(tried, 15)
        self.assertEqual(failed, 0)

    def test_readme(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(example, {})
        self.assertEqual(printed.getvalue().strip(), re.search(r"print\(.*# (.*)", example)[1])


if __name__ == "__main__":
    unittest.main()
