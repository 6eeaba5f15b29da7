# SPDX-License-Identifier: Apache-2.0
"""Processes that time things on request, one line each way."""

import os
import signal
import subprocess
import tempfile
import time

# Between two workers' turns: longer than the threads of any OpenMP runtime, or of OpenBLAS, spin.
PAUSE = 0.02

# How long threads spin when they wait is set here alone. libomp's 200 ms (KMP_BLOCKTIME, in ms) and
# OpenBLAS's 2^26 clock cycles would reach into the next one's turn; libgomp's default does not.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SHORT_WAITING = {"KMP_BLOCKTIME": "5", "OPENBLAS_THREAD_TIMEOUT": "23"}

# What keeps each to AVX2 with FMA: fastattn, OpenBLAS, PyTorch, and oneDNN and MKL within PyTorch.
AVX2 = {
    "FASTATTN_ISA": "avx2",
    "OPENBLAS_CORETYPE": "Haswell",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
THREADS = ("FASTATTN_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


# What OpenBLAS calls processors of x86 before AVX2. It takes one that is newer than itself for one of these.
OLD_CORES = ("Katmai", "Coppermine", "Northwood", "Prescott", "Banias", "Atom", "Core2", "Penryn", "Dunnington", "Nehalem",
             "Sandybridge", "Athlon", "Opteron", "Opteron_SSE3", "Barcelona", "Nano", "Bobcat", "Bulldozer", "Piledriver",
             "Steamroller")


def newer_core(core, flags):
    """What OpenBLAS should take a processor for that has these features, where it took it for an old one; else None."""
    if core not in OLD_CORES:
        return None
    if {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "SkylakeX"
    return "Haswell" if {"avx2", "fma"} <= flags else None


def processor_flags(path="/proc/cpuinfo"):
    """The first processor's features as Linux names them; none where it says nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    except OSError:
        return set()


class Refused(Exception):
    """A worker's own reason for not giving a number."""


class Died(Exception):
    """A worker is gone, so nothing more can be compared with it."""


def environment(threads, isa):
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    limit = AVX2 if isa == "avx2" else {}
    return {**kept, **SHORT_WAITING, **limit, **dict.fromkeys(THREADS, str(threads))}


class Worker:
    """One process. `introduction` is what it says of itself."""

    def __init__(self, name, command, env, on_gpu=False):
        self.name, self.on_gpu = name, on_gpu
        # A file, not a pipe: nobody reads it while the worker writes.
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        try:
            # In a session of its own, so that Ctrl-C ends the driver first.
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
                encoding="utf-8", errors="replace", start_new_session=True)
        except OSError as error:
            self.log.close()
            raise Refused(f"cannot start {command[0]}: {error.strerror}") from None
        try:
            self.introduction = self.answer("it started")
        except BaseException:
            self.close()
            raise

    def answer(self, doing):
        line = self.process.stdout.readline()
        verdict, _, text = line.rstrip("\n").partition(" ")
        if verdict == "ok" and line.endswith("\n"):
            return text
        if verdict == "no" and line.endswith("\n"):
            raise Refused(text)
        if line:
            raise Died(f"{self.name} answered {line!r} while {doing}, expected ok or no")
        raise Died(f"{self.name} {self.ending()} while {doing}{self.last_words()}")

    def ask(self, request):
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has gone, which the answer that does not come tells better
        return self.answer(f"asked for '{request}'")

    def ending(self):
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code >= 0:
            return f"ended with exit status {code}"
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"

    def last_words(self):
        self.log.seek(0)
        lines = self.log.read().splitlines()[-5:]
        return "; the end of what it printed:\n" + "\n".join("  " + line for line in lines) if lines else ""

    def time(self, slot, warm, count):
        """Median seconds of `count` runs, after `warm` that do not count: by this machine's clock, and by
        the device's, None where it has none."""
        text = self.ask(f"run {slot} {warm} {count}")
        try:
            seconds = [float(word) for word in text.split()]
        except ValueError:
            seconds = []
        if len(seconds) not in (1, 2) or not all(0 < second < float("inf") for second in seconds):
            raise Died(f"{self.name} answered {text!r} when it was asked for a time, expected seconds")
        return seconds[0], seconds[1] if len(seconds) > 1 else None

    def close(self):
        for step in (self.process.stdin.close, self.process.stdout.close):
            try:
                step()
            except OSError:
                pass
        try:
            self.process.wait(timeout=1)  # it leaves when its input ends, unless it is busy
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Lane:
    """One thing that takes turns: a case of one worker, or of one variant of it."""

    WARM_SECONDS, LONG_RUN, MOST_RUNS = 0.005, 0.05, 500000
    GPU_WARM_SECONDS = 0.05  # until its clock has risen

    def __init__(self, name, worker, slot, words):
        self.name, self.worker, self.slot = name, worker, slot
        self.turns = []  # each turn's median, in seconds: by the device's clock where it has one
        self.walls = []  # the same by this machine's clock
        self.by_device = False
        self.error = None
        self.kernel = None
        try:
            self.kernel = worker.ask(f"case {slot} {words}")
            self.expected, _ = worker.time(slot, 0, 1)
        except Refused as reason:
            self.error = str(reason)

    def take_turn(self, seconds):
        if self.error:
            return
        time.sleep(PAUSE)
        # A long run warms a CPU up by itself.
        warm = 0
        if self.worker.on_gpu or self.expected <= self.LONG_RUN:
            warm_seconds = self.GPU_WARM_SECONDS if self.worker.on_gpu else self.WARM_SECONDS
            warm = min(int(warm_seconds / self.expected) + 1, self.MOST_RUNS)
        count = max(1, min(round(seconds / self.expected), self.MOST_RUNS))
        try:
            self.expected, device = self.worker.time(self.slot, warm, count)
            self.by_device = device is not None
            self.walls.append(self.expected)
            self.turns.append(device if self.by_device else self.expected)
        except Refused as reason:
            self.error = str(reason)
            self.turns, self.walls = [], []
