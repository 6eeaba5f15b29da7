# SPDX-License-Identifier: Apache-2.0
"""Calling the `fastattn` command, whose path is in FASTATTN_COMMAND, and what a call must come to."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from tensors import read_npy, write_npy

COMMAND = os.environ.get("FASTATTN_COMMAND", "fastattn")
DATA = Path(__file__).resolve().parent.parent / "data"
BEFORE = b"what was here before"  # in an output that a command must leave


def call(*arguments, env=None, stdout=subprocess.PIPE, **options):
    chosen = ("FASTATTN_BACKEND", "FASTATTN_DEVICE")
    clean = {name: value for name, value in os.environ.items() if name not in chosen}
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="surrogateescape",
        env={**clean, **(env or {})},
        timeout=300,
        **options,
    )


def devices():
    return json.loads(call("devices", "--json").stdout)


def can_run(backend):
    return any(device["backend"] == backend and device["available"] for device in devices())


def serves_formats(backend="auto"):
    return call("plan", "--shape", "B1,H1,S1,D32", "--kv-type", "q8_0", "--backend", backend).returncode == 0


def serves_pages(backend="auto"):
    return call("plan", "--shape", "B1,H1,S1,D16", "--page", "16", "--backend", backend).returncode == 0


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="fastattn-cli-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def expect(self, code, *arguments, mentions=(), **options):
        """Runs the command; a failure explains itself on stderr, and success is silent there."""
        done = call(*arguments, **options)
        self.assertEqual(done.returncode, code, f"{arguments}: {done.stdout}{done.stderr}")
        for part in mentions:
            self.assertIn(str(part), done.stderr if code else done.stdout, arguments)
        if code:
            self.assertTrue(done.stderr.startswith("fastattn"), done.stderr)
        else:
            self.assertEqual(done.stderr, "", arguments)
        return done

    def usage(self, *arguments, mentions=()):
        return self.expect(2, *arguments, mentions=mentions)

    def failure(self, *arguments, mentions=()):
        return self.expect(1, *arguments, mentions=mentions)

    def path(self, name):
        return self.folder / name


def address_space(bytes):
    """What a child calls to be given no more addresses; None where the command could not start so, as with sanitizers."""
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))

    return limit if call("--version", preexec_fn=limit).returncode == 0 else None


class ComputingCase(Case):
    def setUp(self):
        super().setUp()
        if not any(device["available"] and device["automatic"] for device in devices()):
            self.skipTest("no device that computes")


class RunCase(ComputingCase):
    def inputs(self, q, k, v, names="qkv"):
        return [x for n, t in zip(names, (q, k, v)) for x in (f"--{n}", write_npy(self.path(f"{n}.npy"), t))]

    def run_ok(self, *arguments):
        self.expect(0, "run", *arguments, "--out", self.path("o.npy"), "--lse", self.path("lse.npy"))
        self.assertFalse([p for p in self.folder.iterdir() if ".npy." in p.name], "a temporary file was left")
        return read_npy(self.path("o.npy")), read_npy(self.path("lse.npy"))

    def assert_near(self, found, expected, limit=2e-5):
        self.assertLessEqual(found.difference(expected), limit)
