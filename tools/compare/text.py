# SPDX-License-Identifier: Apache-2.0
"""Text from outside, such as what drivers and workers say, and the file that results go to."""

import os
import stat


def plain(text):
    """The text without what could give commands to a terminal or hide what stands there."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def put(path, text):
    """Writes a file: in the place of an old one whole, with its permissions, or not at all. Links are followed, and
    what is no file, such as a pipe or a device, is written to."""
    path = os.path.realpath(path)
    old = os.stat(path) if os.path.exists(path) else None
    if old and not stat.S_ISREG(old.st_mode):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return
    part = os.path.join(os.path.dirname(path), f".fastattn-{os.getpid()}.tmp")
    try:
        with open(part, "x", encoding="utf-8") as file:
            if old:
                os.chmod(file.fileno(), stat.S_IMODE(old.st_mode))
            file.write(text)
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise
