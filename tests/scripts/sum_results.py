#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sums what the tests of one or more `meson test` runs counted themselves.

    sum_results.py [--failures] TESTLOG_JSON...

Prints "N passed, N failed, N skipped", in test cases where the program says how many it ran (Check,
`fastattn conform`, Python's unittest), else one for the program. A program that fails without having
counted a failure is one failed. --failures prints before that what the failed ones said.
"""

import json
import re
import sys
from collections import Counter

CONFORM = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped\s*$", re.MULTILINE)
CHECK = re.compile(r"^\d+%: Checks: (\d+), Failures: (\d+), Errors: (\d+)\s*$", re.MULTILINE)
UNITTEST = re.compile(r"^Ran (\d+) tests? in .*\n\n(?:OK|FAILED)(?: \((.*)\))?\s*$", re.MULTILINE)
TAIL_LINES = 40


def counted(text):
    """(passed, failed, skipped) as the program's own closing line has it, or None."""
    found = CONFORM.findall(text)
    if found:
        return tuple(int(number) for number in found[-1])
    found = CHECK.findall(text)
    if found:
        checks, failures, errors = (int(number) for number in found[-1])
        return checks - failures - errors, failures + errors, 0
    found = UNITTEST.findall(text)
    if found:
        total, notes = int(found[-1][0]), found[-1][1]
        note = {name.strip(): int(number) for name, number in re.findall(r"([a-z ]+)=(\d+)", notes)}
        bad = note.get("failures", 0) + note.get("errors", 0) + note.get("unexpected successes", 0)
        skipped = note.get("skipped", 0)
        return total - bad - skipped, bad, skipped
    return None


def count(test):
    if test["result"] == "SKIP":
        return 0, 0, 1
    ok = test["result"] in ("OK", "EXPECTEDFAIL")
    # Check and conform close on stdout, unittest on stderr.
    numbers = counted(test.get("stdout") or "") or counted(test.get("stderr") or "")
    if numbers is None:
        return int(ok), int(not ok), 0
    passed, failed, skipped = numbers
    return passed, failed if ok or failed else 1, skipped


def main():
    show = "--failures" in sys.argv
    total = Counter()
    for path in (argument for argument in sys.argv[1:] if argument != "--failures"):
        with open(path, encoding="utf-8") as log:
            for line in log:
                test = json.loads(line)
                passed, failed, skipped = count(test)
                total.update(passed=passed, failed=failed, skipped=skipped)
                if show and failed:
                    said = ((test.get("stdout") or "") + (test.get("stderr") or "")).splitlines()
                    print(f"{test['name']}: {test['result']}", *said[-TAIL_LINES:], sep="\n    ")
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")


if __name__ == "__main__":
    main()
