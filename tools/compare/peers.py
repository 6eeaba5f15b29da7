# SPDX-License-Identifier: Apache-2.0
"""The other sides of compare.py, each a process of its own:

    peers.py openblas THREADS [LIBRARY]
    peers.py torch THREADS [cpu|cuda]

One request a line on stdin, one answer a line on stdout, "ok ..." or "no <reason>"; the first answer, before
any request, says who answers. worker.c is the same for fastattn.

    case SLOT ...          prepares a case and runs it once        ok
    run SLOT WARM COUNT    median of COUNT runs, after WARM        ok SECONDS [SECONDS BY THE DEVICE'S CLOCK]
    drop                   forgets every case                      ok

OpenBLAS takes `case SLOT N`: sgemm of N x N matrices. PyTorch takes
`case SLOT DTYPE B HQ SQ D HK SK DV CAUSAL VARIANT`, VARIANT being default or one of Torch.KERNELS.
"""

import ctypes
import ctypes.util
import gc
import math
import os
import random
import statistics
import sys
import time
import warnings
from array import array
from contextlib import nullcontext


class Refused(Exception):
    """What the other end is told instead of a number."""


def memory_available():
    """Bytes that can be had without swapping, as far as the system tells."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return math.inf


class Clock:
    """How runs are timed where the function returns when all is done."""

    def seconds(self, function, warm, count):
        """Medians: by this machine's clock, and by that of the device where there is one."""
        for _ in range(warm):
            function()
        return (median_of(self.by_clock, function, count),)

    @staticmethod
    def by_clock(function, clock=time.perf_counter):
        start = clock()
        function()
        return clock() - start


def median_of(measure, function, count):
    return statistics.median(measure(function) for _ in range(count))


class OpenBlas(Clock):
    ROW_MAJOR, NO_TRANSPOSE = 101, 111
    PATTERN = 65521  # numbers that fill a matrix by repetition; a prime, so that no two rows are alike

    def __init__(self, threads, library=None):
        self.library = self.load([library] if library else
                                 ["libopenblas.so.0", "libopenblas.so", ctypes.util.find_library("openblas")])
        text = ctypes.c_char_p
        for name, result, arguments in (
            ("openblas_get_config", text, []),
            ("openblas_get_corename", text, []),
            ("openblas_set_num_threads", None, [ctypes.c_int]),
            ("openblas_get_num_threads", ctypes.c_int, []),
            ("cblas_sgemm", None, [ctypes.c_int] * 6
             + [ctypes.c_float, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
             + [ctypes.c_float, ctypes.c_void_p, ctypes.c_int]),
        ):
            try:
                function = getattr(self.library, name)
            except AttributeError:
                raise Refused(f"{self.library._name} has no function {name}, so it is no OpenBLAS") from None
            function.restype, function.argtypes = result, arguments
        self.library.openblas_set_num_threads(threads)
        random.seed(1)
        self.pattern = array("f", (random.uniform(-1, 1) for _ in range(self.PATTERN)))

    @staticmethod
    def load(names):
        reason = "not found"
        for name in filter(None, names):
            try:
                return ctypes.CDLL(name)
            except OSError as error:
                reason = str(error)
        raise Refused(f"cannot load OpenBLAS: {reason} (Debian and Ubuntu have it in libopenblas0-pthread)")

    def introduction(self):
        config = self.library.openblas_get_config().decode().split()
        core = self.library.openblas_get_corename().decode()
        return f"{' '.join(config[:2])}, core {core}, threads: {self.library.openblas_get_num_threads()}"

    def matrix(self, n):
        return (self.pattern * (n * n // self.PATTERN + 1))[:n * n]

    def case(self, n):
        """A function that multiplies, after its result was looked at."""
        n = int(n)
        a, b, c = self.matrix(n), self.matrix(n), array("f", bytes(4 * n * n))
        at_a, at_b, at_c = (matrix.buffer_info()[0] for matrix in (a, b, c))
        arguments = (self.ROW_MAJOR, self.NO_TRANSPOSE, self.NO_TRANSPOSE, n, n, n,
                     1.0, at_a, n, at_b, n, 0.0, at_c, n)

        def multiply(arrays=(a, b, c)):  # which keeps them alive
            self.library.cblas_sgemm(*arguments)

        multiply()
        for i, j in ((0, 0), (n // 2, n // 3), (n - 1, n - 1)):
            exact = math.fsum(a[i * n + k] * b[k * n + j] for k in range(n))
            found = c[i * n + j]
            if not abs(found - exact) <= 1e-4 * math.sqrt(n):
                raise Refused(f"wrong result of sgemm: element ({i}, {j}) is {found}, expected {exact}")
        return multiply, nullcontext

    def drop(self):
        pass


class Torch(Clock):
    KERNELS = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION",
               "math": "MATH"}
    DEVICE = "cpu"

    def __init__(self, torch, threads):
        self.torch = torch
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        torch.manual_seed(1)
        self.tensors = {}

    def introduction(self):
        capability = self.torch.backends.cpu.get_cpu_capability()
        return f"PyTorch {self.torch.__version__}, {capability}, threads: {self.torch.get_num_threads()}"

    def inputs(self, dtype, b, hq, sq, d, hk, sk, dv):
        """q, k and v, which the variants of a case share."""
        key = (dtype, b, hq, sq, d, hk, sk, dv)
        if key not in self.tensors:
            kind = {"f32": self.torch.float32, "f16": self.torch.float16, "bf16": self.torch.bfloat16}[dtype]
            shapes = ((b, hq, sq, d), (b, hk, sk, d), (b, hk, sk, dv))
            self.tensors[key] = [self.torch.randn(shape, device=self.DEVICE).to(kind) for shape in shapes]
        return self.tensors[key]

    def most_memory(self):
        return memory_available() / 2, "half of the available memory"

    def check_memory(self, b, hq, sq, sk):
        """The math variant keeps every score in memory, more than once."""
        needed = 3 * 4 * b * hq * sq * sk
        most, what = self.most_memory()
        if needed > most:
            raise Refused(f"needs {needed / 2**20:.0f} MiB for scores, and {what} is {most / 2**20:.0f} MiB")

    def case(self, dtype, *words):
        """A function that attends, after its result was looked at, and the context that picks the kernel."""
        torch = self.torch
        *sizes, causal = (int(word) for word in words[:-1])
        b, hq, sq, d, hk, sk, dv = sizes
        backend = None
        if words[-1] != "default":
            backend = getattr(torch.nn.attention.SDPBackend, self.KERNELS[words[-1]])
        if causal and sq != sk:
            raise Refused("PyTorch aligns a causal mask at the top left, fastattn at the bottom right")
        if words[-1] == "math":
            self.check_memory(b, hq, sq, sk)
        q, k, v = self.inputs(dtype, *sizes)
        options = {"is_causal": bool(causal)}
        if hq != hk:
            options["enable_gqa"] = True

        def attend():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

        def context():
            return torch.nn.attention.sdpa_kernel([backend]) if backend is not None else nullcontext()

        with context(), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                out = attend()
            except RuntimeError as error:
                # Why a kernel does not serve a case, PyTorch says in warnings.
                reasons = [str(error), *(str(warning.message) for warning in caught)]
                raise Refused("; ".join(text.split(" (Triggered")[0] for text in reasons)) from None
        # A NaN is not below the limit either.
        below = out.float().abs() <= 1.01 * v.float().abs().max()
        if out.shape != (b, hq, sq, dv) or not bool(below.all()):
            raise Refused("wrong result: o is not a mean of rows of v")
        return attend, context

    def drop(self):
        self.tensors.clear()


class TorchCuda(Torch):
    DEVICE = "cuda"
    # What the GPU is kept busy with while a call is on its way there: longer than Python needs for one.
    COVER_CYCLES = 500000

    def __init__(self, torch, threads):
        super().__init__(torch, threads)
        if not torch.cuda.is_available():
            raise Refused(f"PyTorch {torch.__version__} finds no CUDA device")
        torch.set_float32_matmul_precision("highest")  # an f32 product is one, not of TF32 numbers

    def introduction(self):
        torch = self.torch
        return (f"PyTorch {torch.__version__}, {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, "
                f"cuDNN {torch.backends.cudnn.version()}, no TF32 in products of the math kernel")

    def most_memory(self):
        return 0.9 * self.torch.cuda.mem_get_info()[0], "nine tenths of the GPU's free memory"

    def seconds(self, function, warm, count):
        for _ in range(warm):
            function()
        self.torch.cuda.synchronize()
        return median_of(self.by_clock, function, count), median_of(self.by_events, function, count)

    def by_clock(self, function, clock=time.perf_counter):
        start = clock()
        function()
        self.torch.cuda.synchronize()
        return clock() - start

    def by_events(self, function):
        """From the start of a call's first kernel to the end of its last: the call waits behind other work on
        the GPU, so that what Python takes to make it is not counted."""
        cuda = self.torch.cuda
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        cuda._sleep(self.COVER_CYCLES)
        begin.record()
        function()
        end.record()
        cuda.synchronize()
        return 1e-3 * begin.elapsed_time(end)

    def drop(self):
        super().drop()
        self.torch.cuda.empty_cache()  # others want memory of this GPU too


def open_torch(threads, device="cpu"):
    warnings.simplefilter("ignore")
    try:
        import torch
        import torch.nn.attention
    except ImportError as error:
        raise Refused(f"cannot import PyTorch: {error}") from None
    return {"cpu": Torch, "cuda": TorchCuda}[device](torch, threads)


def serve(peer, requests, answer):
    cases = {}
    for line in requests:
        command, *words = line.split()
        try:
            if command == "case":
                cases.pop(words[0], None)
                cases[words[0]] = peer.case(*words[1:])
                answer("ok prepared")
            elif command == "run":
                function, context = cases[words[0]]
                with context():
                    times = peer.seconds(function, int(words[1]), int(words[2]))
                answer(" ".join(["ok", *(f"{seconds:.9e}" for seconds in times)]))
            elif command == "drop":
                cases.clear()
                peer.drop()
                answer("ok dropped")
            else:
                raise Refused("expected a line that starts with case, run or drop")
        except Refused as refusal:
            answer(f"no {refusal}")
        except (RuntimeError, MemoryError, TypeError, ValueError, LookupError) as error:
            answer(f"no {type(error).__name__}: {error}")


def main():
    # What a library prints must not pass for an answer.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(text):
        channel.write(" ".join(text.split()) + "\n")
        channel.flush()

    try:
        peer = {"openblas": OpenBlas, "torch": open_torch}[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])
    except Refused as refusal:
        answer(f"no {refusal}")
        return 1
    answer(f"ok {peer.introduction()}")
    gc.disable()
    serve(peer, sys.stdin, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
