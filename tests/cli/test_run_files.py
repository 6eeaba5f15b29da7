#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn run`: pipes, signals, and what it says of its files."""

import contextlib
import json
import math
import os
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import BEFORE, COMMAND, RunCase, address_space, call, devices  # noqa: E402
from tensors import Tensor, attention, noise, npy_bytes, read_npy, write_npy, write_safetensors  # noqa: E402

LIMIT = 2048  # bytes of a file, where a disk is to look full


class Streams(RunCase):
    """Inputs from pipes, outputs to what is no file."""

    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6)
        self.arguments = self.inputs(self.q, self.k, self.v)
        self.expected, self.expected_lse = attention(self.q, self.k, self.v)

    def feed(self, name, data):
        """A pipe in the folder that a thread writes `data` to."""
        path = self.path(name)
        os.mkfifo(path)

        def write():
            with open(path, "wb") as pipe:
                pipe.write(data)

        thread = threading.Thread(target=write)
        thread.start()
        self.addCleanup(thread.join)
        return path

    def test_npy_from_pipes(self):
        pipes = {name: self.feed(f"pipe-{name}", npy_bytes(t)) for name, t in (("q", self.q), ("k", self.k))}
        with open(self.path("v.npy"), "rb") as v:
            done = call(
                "run", "--q", pipes["q"], "--k", pipes["k"], "--v", "/dev/stdin", "--out", self.path("o.npy"), stdin=v
            )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_near(read_npy(self.path("o.npy")), self.expected)
        script = '"$0" run --q <(cat q.npy) --k <(cat k.npy) --v <(cat v.npy) --out o.npy'
        self.path("o.npy").unlink()
        done = subprocess.run(
            ["bash", "-c", script, COMMAND], cwd=self.folder, capture_output=True, encoding="utf-8", check=False
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assert_near(read_npy(self.path("o.npy")), self.expected)

    def test_standard_input_is_read_once(self):
        for second in ("--bias", "--lens-kv"):
            self.expect(2, "run", *self.arguments, "--keep", "-", second, "-", "--check",
                        mentions=("'-' and so is", "expected standard input once"))

    def test_safetensors_from_a_pipe(self):
        tensors = {"v": self.v, "q": self.q, "unused": noise(4, 1000), "k": self.k}
        whole = Path(write_safetensors(self.path("t.safetensors"), tensors)).read_bytes()
        self.run_ok("--file", self.feed("pipe", whole), "--check")
        self.assert_near(read_npy(self.path("o.npy")), self.expected)
        cut = self.feed("cut", whole[:-8])
        self.failure("run", "--file", cut, "--out", self.path("o.npy"), mentions=("k: ", "cut", "data_offsets"))

    def test_output_to_standard_output(self):
        for name in ("-", "/dev/stdout"):
            with self.subTest(name), open(self.path("stdout"), "wb") as out:
                done = call("run", *self.arguments, "--check", "--out", name, stdout=out)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("check: ok", done.stderr)
                self.assert_near(read_npy(self.path("stdout")), self.expected)
        done = call("conform", "--backend", "null", "--filter", "*:causal-br/f32*", "--json", "-")
        self.assertEqual(json.loads(done.stdout)["failed"], 0)
        self.assertIn(" passed, ", done.stderr)
        self.failure("run", *self.arguments, "--out", "-", "--lse", "-", mentions=("two files",))

    def test_output_to_a_pipe(self):
        pipe, found = self.path("pipe"), []
        os.mkfifo(pipe)
        thread = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
        thread.start()
        self.expect(0, "run", *self.arguments, "--out", pipe, "--lse", self.path("lse.npy"))
        thread.join()
        self.path("o.npy").write_bytes(found[0])
        self.assert_near(read_npy(self.path("o.npy")), self.expected)
        self.assert_near(read_npy(self.path("lse.npy")), self.expected_lse)
        self.assertTrue(stat.S_ISFIFO(pipe.stat().st_mode))

    def each_writer(self):
        """Command lines of everything that writes a file of more than LIMIT bytes, up to its name."""
        arguments = self.inputs(noise(1, 1, 2, 300, 8), self.k, self.v)
        yield ("run", *arguments, "--out")
        yield ("run", *arguments, "--check", "--lse")
        conform = ("conform", "--backend", "null", "--filter", "*:causal*")
        yield from ((*conform, "--json"), (*conform, "--junit"))
        bench = ("bench", "--suite", "tiny", "--dtype", "f32", "--min-time", "0.001", "--no-standard")
        yield from ((*bench, "--json"), (*bench, "--plot"))

    def test_devices_stay(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full here")
        before = {name: os.stat(name) for name in ("/dev/full", "/dev/null")}
        link = self.path("link")
        link.symlink_to("/dev/full")
        for arguments in self.each_writer():
            with self.subTest(arguments):
                self.failure(*arguments, "/dev/full", mentions=(arguments[-1], "/dev/full", "No space left"))
                self.failure(*arguments, link, mentions=(arguments[-1], "No space left"))
                self.expect(0, *arguments, "/dev/null")
        for name, status in before.items():
            self.assertEqual((os.stat(name).st_ino, os.stat(name).st_rdev), (status.st_ino, status.st_rdev))
        self.assertTrue(link.is_symlink())

    def test_links_and_modes_stay(self):
        for arguments in self.each_writer():
            with self.subTest(arguments):
                link, target = self.path("link"), self.path("target")
                link.unlink(missing_ok=True)
                link.symlink_to("target")
                target.write_bytes(BEFORE)
                target.chmod(0o640)
                self.expect(0, *arguments, link)
                self.assertTrue(link.is_symlink())
                self.assertNotEqual(target.read_bytes(), BEFORE)
                self.assertEqual(stat.S_IMODE(target.stat().st_mode), 0o640)
                self.assertFalse([p for p in self.folder.iterdir() if ".tmp" in p.name])

    def test_a_limit_keeps_the_old_file(self):
        """A limit on the size of files stands in for a full disk.

        It leaves room for a file of 1024 bytes in shared memory, in which libomp notes its process. Without
        it that file stays there, empty, and a later process of the same number dies of SIGBUS.
        """
        target = self.path("target")
        target.write_bytes(BEFORE)

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        for arguments in self.each_writer():
            with self.subTest(arguments):
                done = call(*arguments, target, preexec_fn=limit)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("File too large", done.stderr)
                self.assertEqual(target.read_bytes(), BEFORE)
                self.assertFalse([p for p in self.folder.iterdir() if ".tmp" in p.name])

    def test_closed_streams(self):
        """What is printed does not go into a file that takes the place of a closed stream."""
        out, options = self.path("o.npy"), (*self.arguments, "--check", "--out", self.path("o.npy"))
        for closed, code in ((">&-", 1), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 1)):
            with self.subTest(closed):
                out.unlink(missing_ok=True)
                line = ["sh", "-c", f'exec "$0" "$@" {closed}', COMMAND, "run", *map(str, options)]
                done = subprocess.run(line, capture_output=True, encoding="utf-8", check=False)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assert_near(read_npy(out), self.expected)
        done = subprocess.run(["sh", "-c", 'exec "$0" run "$@" >&-', COMMAND, *map(str, self.arguments), "--out", "-"],
                              capture_output=True, encoding="utf-8", check=False)
        self.assertEqual((done.returncode, "--out: -: open: " in done.stderr), (1, True), done.stderr)

    def test_reports_in_one_file(self):
        one = self.path("one")
        conform = ("conform", "--backend", "null", "--filter", "*:causal-br/f32*")
        self.failure(*conform, "--json", one, "--junit", one, mentions=("--json", "--junit", "two files"))
        bench = ("bench", "--shape", "B1,H1,S16,D16")
        self.failure(*bench, "--json", one, "--plot", one, mentions=("--json", "--plot", "two files"))
        self.assertFalse(one.exists())


class Signals(RunCase):
    """Nothing is left of a file that was on its way."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def start(self, *arguments):
        return subprocess.Popen(
            [COMMAND, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in self.SIGNALS],
        )

    def is_writing(self):
        """Whether a file under a temporary name holds something. One that only shows that it could be made comes and goes."""
        for path in self.path("out").glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size:
                    return True
        return False

    def hidden(self):
        return [p.name for p in self.path("out").iterdir() if p.name not in ("o.npy", "lse.npy", "pipe")]

    def setUp(self):
        super().setUp()
        self.arguments = self.inputs(noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6))
        self.path("out").mkdir()
        self.out, self.lse = self.path("out") / "o.npy", self.path("out") / "lse.npy"

    def test_while_a_file_is_there(self):
        """The second output is a pipe that nobody reads, so that the first waits under its temporary name."""
        pipe = self.path("out") / "pipe"
        os.mkfifo(pipe)
        self.out.write_bytes(BEFORE)
        for number in self.SIGNALS:
            with self.subTest(number):
                process = self.start("run", *self.arguments, "--out", self.out, "--lse", pipe)
                end = time.monotonic() + 60
                while not self.is_writing():
                    self.assertIsNone(process.poll())
                    self.assertLess(time.monotonic(), end)
                    time.sleep(0.002)
                process.send_signal(number)
                self.assertEqual(process.wait(60), -number)
                self.assertEqual(self.hidden(), [])
                self.assertEqual(self.out.read_bytes(), BEFORE)

    def test_at_random_moments(self):
        start = time.monotonic()
        self.expect(0, "run", *self.arguments, "--out", self.out, "--lse", self.lse)
        usual, rng = time.monotonic() - start, random.Random(1)
        for round in range(24):
            self.out.unlink(missing_ok=True)
            self.lse.unlink(missing_ok=True)
            process = self.start("run", *self.arguments, "--out", self.out, "--lse", self.lse)
            time.sleep(1.2 * usual * rng.random())
            process.send_signal(self.SIGNALS[round % 3])
            code = process.wait(60)
            self.assertIn(code, (0, -self.SIGNALS[round % 3]))
            self.assertEqual(self.hidden(), [])
            self.assertEqual(self.out.exists(), self.lse.exists())
            if code == 0:
                self.assertTrue(self.out.exists())


class Friendliness(RunCase):
    def setUp(self):
        super().setUp()
        self.q, self.k, self.v = noise(1, 1, 2, 5, 8), noise(2, 1, 2, 7, 8), noise(3, 1, 2, 7, 6)

    def test_f64_is_converted_with_a_note(self):
        expected, _ = attention(self.q, self.k, self.v)
        for tensor in (self.q, self.k, self.v):
            tensor.dtype = "f64"
        arguments = self.inputs(self.q, self.k, self.v)
        slopes = write_npy(self.path("a.npy"), Tensor((2,), [0.0, 0.0], "f64"))
        done = call("run", *arguments, "--alibi", slopes, "--out", self.path("o.npy"), "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        notes = done.stderr.splitlines()
        self.assertEqual(len(notes), 4, notes)
        for name, note in zip(("alibi", "q", "k", "v"), notes):
            self.assertTrue(note.startswith(f"fastattn run: note: {name}: ") and "holds f64" in note, note)
        found = read_npy(self.path("o.npy"))
        self.assertEqual(found.dtype, "f32")
        self.assert_near(found, expected)

    def test_f64_beyond_f32(self):
        arguments = self.inputs(self.q, self.k, self.v)
        bias = write_npy(self.path("b.npy"), Tensor((7,), [0.0, -1e300, 0.0, -1e300, 1.0, -math.inf, 0.0], "f64"))
        done = call("run", *arguments, "--bias", bias, "--check")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("note: bias: ", done.stderr)
        self.assertIn("2 finite numbers became infinite", done.stderr)

    def test_other_types_are_refused(self):
        arguments = self.inputs(self.q, self.k, self.v)
        whole = npy_bytes(self.q)
        for descr in (b">f4", b"<c8", b"|O", b"<f16", b"<U4", b"<i2", b"<u8"):
            with self.subTest(descr):
                header = whole[10:].split(b"\n", 1)[0].replace(b"<f4", descr)
                data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
                self.path("q.npy").write_bytes(data + whole[whole.index(b"\n") + 1 :])
                self.failure("run", *arguments, "--check", mentions=("q.npy: descr: ", descr.decode(), "'<f8'"))

    EVIL = "\x1b]0;t\x07\x1b[2J\u202e\u2066\u009b31m\u200b\x7f\n\r"

    def assert_plain(self, text, *arguments):
        for line in text.split("\n"):
            bad = [
                c for c in line if c < " " or "\x7f" <= c < "\xa0" or c in "\u200b\u202e\u2066" or "\ud800" <= c < "\ue000"
            ]
            self.assertEqual(bad, [], arguments)

    def test_nothing_foreign_reaches_the_terminal(self):
        """Names of files, tensors, options, commands, devices: none gives commands to a terminal."""
        evil = self.EVIL
        folder = self.path(f"folder{evil}")
        folder.mkdir()
        good = self.inputs(self.q, self.k, self.v)
        file = write_safetensors(folder / f"t{evil}", {evil: self.q, f"k{evil}": self.k})
        broken = folder / f"broken{evil}.npy"
        broken.write_bytes(npy_bytes(self.q)[:-1])
        dtype = folder / "dtype"
        text = json.dumps({"q": {"dtype": evil, "shape": [1], "data_offsets": [0, 4]}, "__metadata__": {evil: evil}})
        dtype.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(4))
        raw = os.fsencode(folder) + b"/\xff\x9b.npy"
        for arguments in (
            ("run", "--file", file, "--check"),
            ("run", "--file", file, "--q-name", f"no{evil}", "--check"),
            ("run", "--file", dtype, "--check"),
            ("run", "--q", broken, *good[2:], "--check"),
            ("run", "--q", os.fsdecode(raw), *good[2:], "--check"),
            ("run", *good, "--out", folder / f"none{evil}" / "o.npy"),
            ("run", *good, "--out", broken, "--lse", broken),
            ("run", *good, "--backend", evil, "--check"),
            ("run", *good, "--kernel", evil, "--check"),
            ("plan", "--shape", evil),
            ("plan", "--shape", "B1,H1,S1,D1", "--threads", evil),
            ("conform", "--backend", "null", "--filter", evil),
            ("conform", "--backend", "null", "--kernel", evil),
            ("conform", "--backend", "null", "--filter", "*:causal-br/f32*", "--json", folder / f"none{evil}" / "x"),
            ("bench", "--suite", evil),
            ("bench", f"--{evil}"),
            (evil,),
            (f"--{evil}",),
        ):
            done = call(*arguments)
            self.assertNotEqual(done.returncode, 0, arguments)
            self.assert_plain(done.stdout + done.stderr, *arguments)

    def test_what_a_run_needs_is_compared_with_memory(self):
        """A file that says it holds much, and a limit on the address space."""
        rows = 1 << 22
        sparse = self.path("big.npy")
        head = npy_bytes(Tensor((1, 1, 0, 64), [])).replace(b"(1, 1, 0, 64)", b"(1, 1, %d, 64)" % rows, 1)
        head = head[:8] + struct.pack("<H", len(head) - 10) + head[10:]
        with open(sparse, "wb") as file:
            file.write(head)
            file.truncate(len(head) + rows * 64 * 4)
        q = write_npy(self.path("small.npy"), noise(1, 1, 1, 1, 64))
        arguments = ("run", "--q", q, "--k", sparse, "--v", sparse, "--out", self.path("o.npy"))
        env = {"FASTATTN_THREADS": "1", "OMP_NUM_THREADS": "1"}

        limit = address_space(1536 << 20)
        if not limit or not any(device["backend"] == "openmp" for device in devices()):
            self.skipTest("addresses cannot be limited, or built without the openmp backend")
        done = call(*arguments, "--backend", "openmp", env=env, preexec_fn=limit)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, r"needs about 20\d\d\.\d MiB, and \d+\.\d MiB are available \(RLIMIT_AS\)")
        self.assertIn("--ignore-memory", done.stderr)
        done = call(*arguments, "--backend", "openmp", "--ignore-memory", env=env, preexec_fn=limit)
        self.assertEqual(done.returncode, 1)
        self.assertNotIn("needs about", done.stderr)
        self.assertFalse(self.path("o.npy").exists())


if __name__ == "__main__":
    unittest.main()
