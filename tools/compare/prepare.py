# SPDX-License-Identifier: Apache-2.0
"""What compare.py needs before it can start: fastattn's worker built, PyTorch in a virtual environment."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from text import plain

ROOT = Path(__file__).resolve().parent.parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"


class Missing(Exception):
    """Something that was needed could not be had; the reason."""


def say(text):
    print(f"compare: {plain(text)}", file=sys.stderr, flush=True)


def call(command, what):
    """Runs a command, silently unless it fails."""
    done = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
    if done.returncode:
        # pip says of each of several attempts the same.
        lines = {line[:20]: line[:300] for line in done.stdout.splitlines() if line.strip()}
        raise Missing("\n  ".join([f"{what} failed:", *list(lines.values())[-8:]]))


def check_folder(folder, mark, kind, option):
    """What is there and does not hold `mark` is someone else's: nothing is put in it."""
    if folder.exists() and not (folder / mark).exists() and (not folder.is_dir() or os.listdir(folder)):
        raise Missing(f"{folder} is there and no {kind}; name another with {option}")


def made_elsewhere(folder):
    """Whether Meson configured `folder` at another place, or only its programs were brought here."""
    try:
        info = json.loads((folder / "meson-info" / "meson-info.json").read_text(encoding="utf-8"))
        return [Path(info["directories"][name]) for name in ("source", "build")] != [ROOT, folder.resolve()]
    except (OSError, ValueError, LookupError, TypeError):
        return True


def built_worker(folder, meson):
    """The worker that is in a folder in which nothing can be compiled; None where there is none."""
    worker = folder / "tools" / "compare" / "compare-worker"
    if not worker.exists() or (meson and not made_elsewhere(folder)):
        return None
    say(f"taking {worker} as it is: {'the folder was made elsewhere' if meson else 'there is no Meson here'}")
    return worker


def build_worker(folder):
    """Compiles fastattn's worker in a Meson build folder, made where it is not there; returns its path."""
    own = ROOT / "build-venv" / "bin" / "meson"  # where tools/quickstart.sh puts one on an old system
    meson = shutil.which("meson") or (str(own) if own.exists() else None)
    worker = built_worker(folder, meson)
    if worker:
        return worker
    if not meson:
        raise Missing("Meson is not here to build fastattn with; tools/quickstart.sh sets everything up")
    check_folder(folder, "meson-private", "Meson build folder", "--build")
    ninja = folder / "build.ninja"
    old = ninja.exists()
    # A folder that was configured before there was a worker does not know how to build one.
    if not old or "compare-worker" not in ninja.read_text(encoding="utf-8"):
        say(f"configuring {folder}")
        call([meson, "setup", *(["--reconfigure"] if old else []), folder, ROOT], "meson setup")
    say(f"building fastattn in {folder}")
    call([meson, "compile", "-C", folder, "compare-worker"], "meson compile")
    return folder / "tools" / "compare" / "compare-worker"


def has_module(python, name):
    try:
        return subprocess.run([str(python), "-c", PROBE, name], stdin=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def torch_python(folder, index):
    """The Python of the virtual environment in `folder`. What is missing of it and PyTorch is installed.
    Without a folder, the Python that runs this."""
    if folder is None:
        if not has_module(sys.executable, "torch"):
            raise Missing(f"{sys.executable} has no PyTorch, and --venv none takes it from there")
        return sys.executable
    python = folder / "bin" / "python"
    if has_module(python, "torch"):
        return python
    check_folder(folder, "pyvenv.cfg", "virtual environment", "--venv")
    if not has_module(python, "pip"):
        say(f"making a virtual environment in {folder}")
        try:
            call([sys.executable, "-m", "venv", folder], "python3 -m venv")
        except Missing as reason:
            if "ensurepip" in str(reason):
                reason = ("this Python makes no virtual environments; on Debian and Ubuntu: "
                          "apt-get install python3-venv")
            raise Missing(str(reason)) from None
    say(f"installing PyTorch in {folder}, once; from PyPI this is several GB with what it needs for GPUs\n"
        f"         (a build for CPUs alone: --torch-index {CPU_INDEX})")
    where = ["--index-url", index] if index else []
    call([python, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", *where, "torch"],
         "pip install torch")
    return python
