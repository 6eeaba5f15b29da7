#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of tools/compare. fastattn's worker, built, is FASTATTN_COMPARE_WORKER; other workers are played."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
COMPARE = Path(__file__).resolve().parent.parent.parent / "tools" / "compare"
sys.path.insert(0, str(COMPARE))
from compare import start_openblas  # noqa: E402
from cases import SUITES, Case, falls, of_neighbours, over_line, parse_shape, ratio  # noqa: E402
from workers import newer_core, processor_flags  # noqa: E402

WORKER = os.environ.get("FASTATTN_COMPARE_WORKER", "compare-worker")
SHAPE = "B1,H2,S10,D100"
FLOPS = 4 * 2 * 10 * 10 * 100

# A worker that follows a script: what it answers to each kind of request, one after the other, and the last
# one ever after. As a virtual environment's Python it also says that it has PyTorch. What the script says under a
# device's name is for that device.
PLAYER = """#!{python}
import os, signal, sys, time
if sys.argv[1:2] == ["-c"]:
    sys.exit(0)
script = {script!r}
script = {{**script, **script.get(sys.argv[1] if len(sys.argv) > 1 else "", {{}})}}
print(script.get("hello", "ok a player"), flush=True)
for line in sys.stdin:
    kind = line.split()[0]
    answers = script.get(kind, ["ok it"])
    answer = answers.pop(0) if len(answers) > 1 else answers[0]
    if answer == "die":
        print("my last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if answer == "sleep":
        print("asleep", os.getpid(), file=open({note!r}, "w"), flush=True)
        time.sleep(600)
    print(answer, flush=True)
"""

# As much of PyTorch as peers.py uses, with a GPU whose clock is `now`, in ms: waiting work takes 1000, attention
# what its kernel takes.
TORCH = """
import types
from contextlib import contextmanager

__version__ = "2.x"
float32, float16, bfloat16 = "f32", "f16", "bf16"
version = types.SimpleNamespace(cuda="13.0")
now, kernel, log = 0, None, []

class Tensor:
    def __init__(self, shape, kind=float32):
        self.shape, self.kind = tuple(shape), kind
    def to(self, kind):
        return Tensor(self.shape, kind)
    def float(self):
        return self
    abs = all = float
    def max(self):
        return 1
    def __le__(self, limit):
        return self

def randn(shape, device):
    assert device == "cuda"
    return Tensor(shape)

def ignore(*arguments):
    pass

set_num_threads = set_grad_enabled = manual_seed = set_float32_matmul_precision = ignore

class Event:
    def __init__(self, enable_timing):
        self.at = None
    def record(self):
        self.at = now
    def elapsed_time(self, end):
        return end.at - self.at

def wait(cycles):
    global now
    now += 1000

cuda = types.SimpleNamespace(
    is_available=lambda: {gpu!r}, get_device_name=lambda: "a GPU", synchronize=ignore, empty_cache=ignore,
    mem_get_info=lambda: (1 << 20, 1 << 30), Event=Event, _sleep=wait)
backends = types.SimpleNamespace(cudnn=types.SimpleNamespace(version=lambda: 91000))

class SDPBackend:
    FLASH_ATTENTION, EFFICIENT_ATTENTION, CUDNN_ATTENTION, MATH = 8, 12, 20, 40

@contextmanager
def sdpa_kernel(chosen):
    global kernel
    kernel = chosen[0]
    yield
    kernel = None

def attend(q, k, v, is_causal, enable_gqa=False):
    global now
    if kernel == SDPBackend.CUDNN_ATTENTION and q.shape[3] > 64:
        raise RuntimeError("No available kernel.")
    now += kernel
    return Tensor((*q.shape[:3], v.shape[3]))

import sys
functional = types.SimpleNamespace(scaled_dot_product_attention=attend)
nn = types.ModuleType("torch.nn")
nn.functional, nn.attention = functional, types.ModuleType("torch.nn.attention")
nn.attention.SDPBackend, nn.attention.sdpa_kernel = SDPBackend, sdpa_kernel
nn.__path__ = []
sys.modules["torch.nn"], sys.modules["torch.nn.attention"] = nn, nn.attention
__path__ = []
"""


class Arithmetic(unittest.TestCase):
    def test_shape(self):
        self.assertEqual(parse_shape("B1,H8,S2048,D128"), (1, 8, 2048, 128, 8, 2048, 128))
        self.assertEqual(parse_shape("SK7,D3,DV5,B2,H4,HK2,S6"), (2, 4, 6, 3, 2, 7, 5))
        for text in ("B1,H8,S2048,D128", "B2,H4,S6,D3,HK2,SK7,DV5", "B1,H32,S1,D576,HK1,SK16384,DV512"):
            self.assertEqual(Case("shape", "f32", *parse_shape(text)).shape, text)

    def test_wrong_shapes(self):
        for text, mention in (("", "''"), ("B1,H8,S4", "part D"), ("B1,H8,S4,D4,X1", "'X1'"),
                              ("B1,H8,S0,D4", "'S0'"), ("B1,H8,S4,D4,S5", "'S5'"), ("B1,H8,S-4,D4", "'S-4'"),
                              ("B1,H8,S4,D", "'D'"), ("B1,H8,S\u0664,D4", "expected B, H")):
            with self.assertRaisesRegex(ValueError, mention):
                parse_shape(text)

    def case(self, text, causal=False, dtype="f32"):
        return Case("shape", dtype, *parse_shape(text), causal)

    def test_flops(self):
        self.assertEqual(self.case("B1,H8,S512,D64").flops, 4 * 8 * 512 * 512 * 64)
        self.assertEqual(self.case("B1,H8,S512,D64", True).flops, 2 * 8 * 512 * 512 * 64)
        self.assertEqual(self.case("B3,H2,S5,D4,SK7,DV6").flops, 2 * 3 * 2 * 5 * 7 * (4 + 6))
        self.assertEqual(self.case("B1,H1,S4,D1,SK10", True).flops, 4 * (40 - 8))
        self.assertEqual(self.case("B1,H1,S10,D1,SK4", True).flops, 4 * 8)

    def test_bytes(self):
        self.assertEqual(self.case("B2,H4,S3,D8,HK2,SK5,DV6").bytes, 4 * 2 * (4 * 3 * 14 + 2 * 5 * 14))
        self.assertEqual(self.case("B1,H1,S1,D1", dtype="bf16").bytes, 2 * 4)

    def test_ratio(self):
        self.assertEqual((ratio(6, 3), ratio(None, 3), ratio(6, None)), (2, None, None))

    def test_over_line(self):
        self.assertEqual(over_line([1, 2, 3, 5], [1.0, 2.0, 6.0, 5.0]), [1, 1, 2, 1])
        self.assertEqual(over_line([1, 33, 64], [2.0, None, 4.0]), [1, None, 1])
        self.assertEqual(over_line([1, 33, 64], [None, 2.0, 4.0]), [None] * 3)

    def test_falls(self):
        self.assertEqual(falls([1, 2, 3], [1.0, 1.0, 2.0]), [])
        self.assertEqual(falls([1, 2, 3, 4], [1.0, 4.0, 3.0, 2.0]), [(3, 2, 0.75), (4, 2, 0.5)])
        self.assertEqual(falls([1, 2], [1.0, 0.99]), [])
        self.assertEqual(falls([1, 2], [1.0, 0.99], slack=0), [(2, 1, 0.99)])
        self.assertEqual(falls([1, 2, 3], [2.0, None, 1.0]), [(3, 1, 0.5)])
        self.assertEqual(falls([1, 2], [None, None]), [])

    def test_neighbours(self):
        pairs = [(1, 1), (8, 8), (16, 16), (24, 24), (32, 32), (36, 28), (40, 20), (512, 512), (576, 512)]
        rates = [1.0, 2.0, 4.0, 6.0, 8.0, 2.0, 6.0, 16.0, 8.0]
        none = (None, None)
        self.assertEqual(of_neighbours(pairs, rates), [
            (None, 0.25), (None, 0.5), none, (1.5, 0.75), none, none, (1.5, 0.75), none, (0.5, None)])
        self.assertEqual(of_neighbours([(16, 16), (17, 17), (32, 32)], [None, 2.0, 4.0]),
                         [none, (None, 0.5), none])

    def test_suites(self):
        sizes = {"prefill": (48, 48), "decode": (3, 3), "short": (3, 48), "dims": (1, 14), "tiny": (10, 10),
                 "gpu": (36, 36)}
        for name, suite in SUITES.items():
            groups = suite(None)
            self.assertEqual((len(groups), sum(map(len, groups))), sizes[name])
            self.assertEqual({case.suite for group in groups for case in group}, {name})
            for case in (case for group in suite(("bf16",)) for case in group):
                self.assertEqual((case.dtype, case.heads_q % case.heads_kv), ("bf16", 0))


    def test_cores_that_openblas_does_not_know(self):
        avx2, avx512 = {"sse2", "avx2", "fma"}, {"avx512" + part for part in ("f", "cd", "bw", "dq", "vl")}
        self.assertEqual(newer_core("Prescott", avx2), "Haswell")
        self.assertEqual(newer_core("Sandybridge", avx2 | avx512), "SkylakeX")
        self.assertEqual(newer_core("Nehalem", avx2 | avx512 - {"avx512vl"}), "Haswell")  # Xeon Phi has no VL
        for core, flags in (("Prescott", {"sse2"}), ("Prescott", set()), ("Zen", avx2 | avx512), ("ARMV8", avx2)):
            self.assertIsNone(newer_core(core, flags))

    def test_flags(self):
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
            file.write("processor : 0\nflags\t\t: fpu avx2 fma\n\nprocessor : 1\nflags : fpu\n")
            file.flush()
            self.assertEqual(processor_flags(file.name), {"fpu", "avx2", "fma"})
        self.assertEqual(processor_flags("/nowhere"), set())


class Driver(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="fastattn-compare-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.json = self.folder / "results.json"
        self.note = self.folder / "note"

    def player(self, name, **script):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = PLAYER.format(python=sys.executable, script=script, note=str(self.note))
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def torch(self, **script):
        return ["--peers", "ours,torch", "--venv", self.player("venv/bin/python", **script).parent.parent]

    def command(self, *options, worker=WORKER):
        quick = ("--worker", worker, "--threads", 1, "--min-time", 0.003, "--turns", 3)
        return [sys.executable, str(COMPARE / "compare.py"), *map(str, (*quick, *options))]

    def compare(self, *options, code=0, worker=WORKER, env=None):
        done = subprocess.run(self.command(*options, worker=worker), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, encoding="utf-8", timeout=300,
                              env={**os.environ, **(env or {})})
        self.assertEqual(done.returncode, code, f"{done.stdout}{done.stderr}")
        return done.stderr if code else done.stdout

    def rows(self, text):
        return [line.split() for line in text.splitlines() if line.startswith(("f32 ", "f16 ", "bf16 "))]

    def test_openblas_is_told_the_core(self):
        script = self.folder / "openblas.py"
        script.write_text("import os, sys\n"
                          "core = os.environ.get('OPENBLAS_CORETYPE', 'Prescott')\n"
                          "print(f'ok OpenBLAS 0.0, core {core}, threads: 1', flush=True)\nsys.stdin.read()\n")
        own = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
        for env, flags, said in (
            (own, {"avx2", "fma"}, "core Haswell, threads: 1; told OPENBLAS_CORETYPE=Haswell, by itself it takes this "
                                   "processor for Prescott"),
            (own, {"sse2"}, "core Prescott, threads: 1"),
            ({**own, "OPENBLAS_CORETYPE": "Nehalem"}, {"avx2", "fma"}, "core Nehalem, threads: 1"),
        ):
            worker = start_openblas([sys.executable, str(script)], env, flags)
            worker.close()
            self.assertEqual(worker.introduction, f"OpenBLAS 0.0, {said}")

    def test_tiny_for_real(self):
        text = self.compare("--peers", "ours", "--suite", "tiny", "--json", self.json)
        self.assertIn("threads: 1", text.splitlines()[0])
        self.assertNotIn("sgemm", text)
        self.assertNotIn("torch", text)
        self.assertRegex(text, r"\ndtype shape +mask +kernel +ours us +GFLOP/s +GB/s\n")
        found = json.loads(self.json.read_text(encoding="utf-8"))
        self.assertEqual((found["threads"], found["turns"], found["not_compared"]), (1, 3, {}))
        rows = self.rows(text)
        self.assertEqual((len(rows), len(found["cases"])), (10, 10))
        for row, case in zip(rows, found["cases"]):
            ours = case["peers"]["ours"]
            self.assertEqual(row[:4], ["f32", case["shape"], "full", ours["kernel"]])
            self.assertEqual(len(row), 7)
            self.assertEqual(len(ours["turns_ms"]), 3)
            self.assertEqual(sorted(ours["turns_ms"])[1], ours["ms"])
            self.assertAlmostEqual(float(row[4]), 1e3 * ours["ms"], delta=0.006)
            for found_rate, work in ((ours["gflops"], case["flops"]), (case["gbps"], case["bytes"])):
                self.assertAlmostEqual(found_rate * ours["ms"] * 1e6 / work, 1)

    def test_each_dtype_and_mask_for_real(self):
        text = self.compare("--peers", "ours", "--shape", SHAPE, "--shape", "B2,H4,S3,D8,HK2,SK9,DV5",
                            "--dtype", "bf16,f32,f16", "--causal")
        self.assertEqual([row[:3] for row in self.rows(text)], [
            [dtype, shape, "causal"] for shape in (SHAPE, "B2,H4,S3,D8,HK2,SK9,DV5")
            for dtype in ("f32", "f16", "bf16")])

    def test_worker_for_real(self):
        requests = {
            "nonsense": "no expected a line",
            "case 0 f32 1 3 4 8 2 4 8 0": "no FA_INVALID: ",
            "case 0 i8 1 1 1 1 1 1 1 0": "no expected: case",
            "case 64 f32 1 1 1 1 1 1 1 0": "no expected: case",
            "case 0 f32 1 1 1 1": "no expected: case",
            "run 0 0 1": "no expected: run",
            "case 63 f32 1 2 4 8 2 4 8 0": "ok ",
            "run 63 1 3": "ok ",
            "run 63 0 0": "no expected: run",
            "drop": "ok ",
            "run 63 0 1": "no expected: run",
            # Too long for the oracle, which sees some of its rows.
            "case 1 f16 1 4 300 64 2 900 64 1": "ok ",
        }
        done = subprocess.run([WORKER], input="".join(f"{line}\n" for line in requests), encoding="utf-8",
                              stdout=subprocess.PIPE, timeout=60,
                              env={**os.environ, "FASTATTN_THREADS": "1", "OMP_NUM_THREADS": "1"})
        self.assertEqual(done.returncode, 0)
        hello, *answers = done.stdout.splitlines()
        self.assertTrue(hello.startswith("ok fastattn "), hello)
        self.assertEqual(len(answers), len(requests))
        for answer, (request, expected) in zip(answers, requests.items()):
            self.assertTrue(answer.startswith(expected), (request, answer))
            if request == "run 63 1 3":
                self.assertGreater(float(answer.split()[1]), 0)

    def test_worker_takes_a_device(self):
        for device, said in (("openmp:0", "ok fastattn .*, openmp:0, "), ("nowhere", "no FA_NO_DEVICE: .*nowhere"),
                             ("null", "ok .*null")):
            done = subprocess.run([WORKER, device], input="case 0 f32 1 1 4 8 1 4 8 0\n", encoding="utf-8",
                                  stdout=subprocess.PIPE, timeout=60)
            self.assertRegex(done.stdout, f"^{said}")
            if device == "null":
                self.assertIn("\nno wrong result of ", done.stdout)

    def test_median_of_turns_and_ratio(self):
        worker = self.player("worker", case=["ok our-tile"], run=["ok 9", "ok 0.002", "ok 0.008", "ok 0.004"])
        text = self.compare(*self.torch(run=["ok 0.01"]), "--torch-variants", "flash", "--shape", SHAPE,
                            "--json", self.json, worker=worker)
        self.assertRegex(text, r"kernel +ours ms +GFLOP/s +GB/s +torch flash ms +ratio\n")
        self.assertEqual(self.rows(text), [
            ["f32", SHAPE, "full", "our-tile", "4.0000", "0.0", "0.01", "10.0000", "2.50x"]])
        peers = json.loads(self.json.read_text(encoding="utf-8"))["cases"][0]["peers"]
        self.assertEqual(peers["ours"]["turns_ms"], [2, 8, 4])
        self.assertEqual((peers["ours"]["clock"], peers["ours"]["wall_ms"]), ("wall", 4))
        self.assertAlmostEqual(peers["ours"]["gflops"], FLOPS / 0.004 * 1e-9)
        self.assertAlmostEqual(peers["torch flash"]["ratio"], 2.5)

    def fake_torch(self, gpu=True):
        folder = self.folder / "site" / "torch"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(TORCH.replace("{gpu!r}", repr(gpu)), encoding="utf-8")
        return {"PYTHONPATH": str(folder.parent)}

    def test_backends_side_by_side(self):
        worker = self.player("worker", opencl={"case": ["ok a-tile"], "run": ["ok 0.005 0.004"]},
                             vulkan={"case": ["ok b-tile"], "run": ["ok 0.003 0.002"]},
                             cuda={"hello": "no FA_NO_DEVICE: none"})
        text = self.compare(*self.torch(run=["ok 0.01"]), "--torch-variants", "flash", "--shape", SHAPE,
                            "--backends", "opencl,vulkan,cuda", "--json", self.json, worker=worker)
        self.assertRegex(text, r"\ncuda: +NOT COMPARED: FA_NO_DEVICE: none\n")
        self.assertRegex(text, r"\ndtype shape +mask +opencl kernel +opencl ms +wall ms +GFLOP/s +GB/s "
                               r"vulkan kernel +vulkan ms +wall ms +GFLOP/s +GB/s +"
                               r"torch flash ms +over opencl +over vulkan\n")
        self.assertEqual(self.rows(text), [
            ["f32", SHAPE, "full", "a-tile", "4.0000", "5.0000", "0.0", "0.01",
             "b-tile", "2.0000", "3.0000", "0.0", "0.02", "10.0000", "2.50x", "5.00x"]])
        found = json.loads(self.json.read_text(encoding="utf-8"))
        peers = found["cases"][0]["peers"]
        self.assertEqual((found["backends"], found["not_compared"]),
                         (["opencl", "vulkan", "cuda"], {"cuda": "FA_NO_DEVICE: none"}))
        self.assertEqual((peers["vulkan"]["clock"], peers["vulkan"]["wall_ms"]), ("device", 3))
        self.assertEqual((peers["torch flash"]["clock"], peers["torch flash"]["ratio"]), ("wall", 2.5))
        self.assertEqual(peers["torch flash"]["ratios"], {"opencl": 2.5, "vulkan": 5})

    def test_pytorch_on_cuda(self):
        worker = self.player("worker", run=["ok 0.006 0.004"])
        shapes = ("--shape", SHAPE, "--shape", "B1,H2,S300,D64")
        text = self.compare("--torch-device", "cuda", "--venv", "none", *shapes, "--dtype", "f32,f16",
                            "--backends", "opencl", worker=worker, env=self.fake_torch())
        self.assertIn("torch:     PyTorch 2.x, a GPU, CUDA 13.0, cuDNN 91000", text)
        self.assertNotIn("sgemm", text)
        self.assertRegex(text, "torch flash ms +ratio +torch efficient ms +ratio +torch cudnn ms +ratio "
                               "+torch math ms +ratio\n")
        f32, f16, long_f32, long_f16 = (row[8:] for row in self.rows(text))
        self.assertEqual(f32, ["-", "-", "12.0000", "3.00x", "-", "-", "40.0000", "10.00x"])
        self.assertEqual(f16[:6], ["8.0000", "2.00x", "12.0000", "3.00x", "failed", "[1]"])
        self.assertEqual(long_f32, ["-", "-", "12.0000", "3.00x", "-", "-", "failed", "[2]", "-"])
        self.assertEqual(long_f16[4:6], ["20.0000", "5.00x"])
        self.assertIn("[1] torch cudnn: No available kernel.", text)
        self.assertIn("[2] torch math: needs 2 MiB for scores, and nine tenths of the GPU's free", text)

    def test_absent_cuda(self):
        options = ("--torch-device", "cuda", "--venv", "none", "--shape", SHAPE)
        worker = self.player("worker", run=["ok 0.01"])
        text = self.compare(*options, worker=worker, env=self.fake_torch(gpu=False))
        self.assertIn("torch:     NOT COMPARED: PyTorch 2.x finds no CUDA device", text)
        self.assertEqual(len(self.rows(text)[0]), 8)

    def test_absent_clock_is_told(self):
        text = self.compare("--backends", "opencl", "--peers", "ours", "--shape", SHAPE,
                            worker=self.player("worker", run=["ok 0.01"]))
        self.assertIn("[1] ours: has no clock of the device, so its times are those of this machine's", text)

    def test_build_folder_from_elsewhere(self):
        """What Meson made at another place, or only what came of it, is taken as it is."""
        folder = self.folder / "build"
        worker = self.player("build/tools/compare/compare-worker", hello="ok the one that was brought")
        command = [sys.executable, str(COMPARE / "compare.py"), "--peers", "ours", "--shape", SHAPE,
                   "--min-time", "0.001", "--turns", "1", "--build", str(folder)]
        for info in (None, {"directories": {"source": "/elsewhere", "build": "/elsewhere/build"}}, ["damaged"]):
            if info:
                (folder / "meson-info").mkdir(exist_ok=True)
                (folder / "meson-info" / "meson-info.json").write_text(json.dumps(info), encoding="utf-8")
            worker.write_text(PLAYER.format(
                python=sys.executable, script={"hello": "ok brought", "run": ["ok 0.01"]}, note=""), "utf-8")
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                                  timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"taking {worker} as it is", done.stderr)
            self.assertIn("ours:      brought", done.stdout)

    def test_summaries(self):
        worker = self.player("worker", run=["ok 0.5"])
        options = ("--peers", "ours", "--json", self.json, "--suite")
        text = self.compare(*options, "short,dims", "--dtype", "f16", worker=worker)
        self.assertRegex(text, r"\n  S +1 .* 64\n  ours( +1\.00){16}\n")
        self.assertIn("\n  ours: yes\n", text)
        self.assertIn("\n  ours, GFLOP/s ", text)
        short, dims = json.loads(self.json.read_text(encoding="utf-8"))["summaries"]
        self.assertEqual(short["peers"]["ours"], {"over_line": [1] * 16, "falls": []})
        self.assertEqual((short["len_q"][0], short["len_q"][-1]), (1, 64))
        below, above = (dict(zip(dims["dims"], dims["peers"]["ours"][key]))
                        for key in ("over_below", "over_above"))
        self.assertEqual((below["96"], above["96"], below["1"], above["1"]), (1.5, 0.75, None, 1 / 16))
        self.assertAlmostEqual(below["576/512"], 1088 / 1024)

    def test_fall_is_told(self):
        # The probe of each of 16 cases, then a turn: the second takes longest.
        times = ["ok 0.5"] * 17 + ["ok 2", "ok 0.5"]
        text = self.compare("--peers", "ours", "--suite", "short", "--dtype", "f16", "--turns", 1,
                            worker=self.player("worker", run=times))
        self.assertIn("\n  ours: no, S 3 takes 75 % less than S 2, and 13 more\n", text)

    def test_peer_refuses_a_case(self):
        options = ("--torch-variants", "flash,math", "--shape", SHAPE, "--shape", SHAPE, "--json", self.json)
        torch = self.torch(case=["no not with this", "ok it"], run=["ok 0.01"])
        text = self.compare(*torch, *options, worker=self.player("worker", run=["ok 0.005"]))
        first, second = self.rows(text)
        self.assertEqual(first[7:], ["failed", "[1]", "-", "10.0000", "2.00x"])
        self.assertEqual(second[7:], ["10.0000", "2.00x", "10.0000", "2.00x"])
        self.assertEqual(text.count("[1] torch flash: not with this"), 1)
        peers = json.loads(self.json.read_text(encoding="utf-8"))["cases"][0]["peers"]
        self.assertEqual(peers["torch flash"], {"error": "not with this"})

    def test_fastattn_refuses(self):
        worker = self.player("worker", run=["ok 0.01", "ok 0.01", "no FA_UNSUPPORTED: so"])
        options = ("--peers", "ours", "--shape", SHAPE, "--json", self.json)
        self.assertIn("failed in 1 of 1 cases", self.compare(*options, worker=worker, code=1))
        ours = json.loads(self.json.read_text(encoding="utf-8"))["cases"][0]["peers"]["ours"]
        self.assertEqual(ours, {"error": "FA_UNSUPPORTED: so"})

    def test_where_results_go(self):
        worker = self.player("worker", run=["ok 0.01"])
        link, target = self.folder / "link", self.folder / "target"
        link.symlink_to("target")
        target.write_text("what was here before", encoding="utf-8")
        target.chmod(0o600)
        self.compare("--peers", "ours", "--shape", SHAPE, "--json", link, worker=worker)
        self.assertTrue(link.is_symlink())
        self.assertEqual(target.stat().st_mode & 0o777, 0o600)
        self.assertEqual(len(json.loads(target.read_text(encoding="utf-8"))["cases"]), 1)
        device = os.stat("/dev/null").st_rdev
        self.compare("--peers", "ours", "--shape", SHAPE, "--json", "/dev/null", worker=worker)
        self.assertEqual(os.stat("/dev/null").st_rdev, device)

    def test_worker_dies(self):
        self.json.write_text("what was here before", encoding="utf-8")
        options = ("--shape", SHAPE, "--json", self.json)
        text = self.compare("--peers", "ours", *options, code=1,
                            worker=self.player("worker", run=["ok 0.01", "die"]))
        self.assertRegex(text, r"compare: fastattn was killed by SIGKILL while asked for 'run 0 \d+ \d+'")
        self.assertIn("my last words", text)
        text = self.compare(*self.torch(case=["die"]), *options, code=1,
                            worker=self.player("worker", run=["ok 0.01"]))
        self.assertIn("PyTorch was killed by SIGKILL while asked for 'case 0 f32 1 2 10 100 2 10 100 0", text)
        self.assertEqual(self.json.read_text(encoding="utf-8"), "what was here before")
        self.assertEqual(sorted(os.listdir(self.folder)), ["results.json", "venv", "worker"])

    def test_wrong_answers(self):
        for answer in ("ok nan", "ok 0", "ok", "ok fast", "1.0", "ok 1 0", "ok 1 1 1"):
            text = self.compare("--peers", "ours", "--shape", SHAPE, code=1,
                                worker=self.player("worker", run=[answer]))
            self.assertIn("fastattn answered", text)

    def test_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number.name):
                self.note.unlink(missing_ok=True)
                self.interrupt(number)

    def interrupt(self, number):
        worker = self.player("worker", run=["sleep"])
        process = subprocess.Popen(self.command("--peers", "ours", "--shape", SHAPE, worker=worker),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        while process.poll() is None and not (self.note.exists() and self.note.read_text().endswith("\n")):
            time.sleep(0.02)
        process.send_signal(number)
        _, text = process.communicate(timeout=60)
        self.assertEqual((process.returncode, text), (130, "compare: interrupted\n"))
        with self.assertRaises(ProcessLookupError):
            os.kill(int(self.note.read_text().split()[1]), 0)

    def test_absent_peers(self):
        (self.folder / "file").write_text("", encoding="utf-8")
        text = self.compare("--shape", SHAPE, "--venv", self.folder, "--openblas", self.folder / "none.so",
                            worker=self.player("worker", run=["ok 0.01"]))
        self.assertRegex(text, r"\nopenblas: +NOT COMPARED: cannot load OpenBLAS: .*none\.so")
        self.assertRegex(text, r"\ntorch: +NOT COMPARED: .* is there and no virtual environment;")
        self.assertEqual(len(self.rows(text)[0]), 7)

    def test_folder_of_others(self):
        (self.folder / "file").write_text("", encoding="utf-8")
        command = [sys.executable, str(COMPARE / "compare.py"), "--peers", "ours", "--build"]
        for folder in (self.folder, self.folder / "file"):
            done = subprocess.run([*command, folder], stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertRegex(done.stderr, "^compare: (.* is there and no Meson build f|Meson is not here)")
        self.assertEqual(os.listdir(self.folder), ["file"])

    def test_peer_without_pytorch(self):
        done = subprocess.run([sys.executable, "-E", "-S", COMPARE / "peers.py", "torch", "1"],
                              stdout=subprocess.PIPE, encoding="utf-8", timeout=60)
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stdout.startswith("no cannot import PyTorch: "), done.stdout)

    def test_absent_worker(self):
        self.assertIn("cannot start", self.compare("--peers", "ours", worker=self.folder / "none", code=1))
        refusing = self.player("worker", hello="no FA_NO_DEVICE: none")
        text = self.compare("--peers", "ours", worker=refusing, code=1)
        self.assertIn("fastattn's worker: FA_NO_DEVICE: none", text)

    def test_help(self):
        text = self.compare("--help")
        for word in (*SUITES, "--torch-index", "Exit status"):
            self.assertIn(word, text)

    def test_wrong_options(self):
        for options, mention in (
            (["--suite", "prefil"], "'prefil' is unknown"),
            (["--suite", "tiny", "--shape", SHAPE], "expected one of the two"),
            (["--causal"], "--causal without --shape"),
            (["--shape", "B1,H8"], "part S is missing"),
            (["--dtype", "f32,f64"], "'f64' is unknown, expected some of f32, f16, bf16"),
            (["--peers", "torch"], "expected ours among them"),
            (["--backends", "opencl,"], "'opencl,', expected devices such as opencl or opencl:1"),
            (["--backends", "opencl,opencl"], "each once"),
            (["--torch-device", "rocm"], "'rocm'"),
            (["--torch-variants", "cudnn"], "cudnn, which PyTorch does not have on cpu, expected some of default"),
            (["--torch-device", "cuda", "--peers", "ours,openblas"], "openblas, which runs on the CPU"),
            (["--threads", "0"], "whole number from 1 to 1024"),
            (["--turns", "1.5"], "whole number from 1 to 1000"),
            (["--min-time", "nan"], "at most 3600 seconds"),
            (["--isa", "sse"], "'sse'"),
            (["--json", str(self.folder)], "expected a file"),
            (["--json", str(self.folder / "none" / "x.json")], "expected a file"),
            (["--tur", "5"], "unrecognized arguments"),
        ):
            self.assertIn(mention, self.compare(*options, code=2), options)


if __name__ == "__main__":
    unittest.main()
