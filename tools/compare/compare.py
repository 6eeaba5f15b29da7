#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times attention in fastattn, PyTorch and OpenBLAS (as sgemm), in turn on one machine. See --help."""

import argparse
import os
import platform
import re
import signal
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
from cases import DTYPES, SUITES, Case, parse_shape  # noqa: E402
from prepare import ROOT, Missing, build_worker, say, torch_python  # noqa: E402
from report import SGEMM_SIZE, SUMMARIES, Result, Table, save  # noqa: E402
from text import plain  # noqa: E402
from workers import Died, Lane, Refused, Worker, environment, newer_core, processor_flags  # noqa: E402

PEERS = ("ours", "openblas", "torch")
HOST_BACKENDS = ("openmp", "null")  # whose runs are over when the call returns, on this machine's own memory
DEFAULT_SUITES = {"cpu": ("prefill", "decode"), "cuda": ("gpu",)}
DEFAULT_PEERS = {"cpu": PEERS, "cuda": ("ours", "torch")}

# Kernels of PyTorch's scaled_dot_product_attention: what each device has, and what is timed unless told.
VARIANTS = {"cpu": ("default", "flash", "math"),
            "cuda": ("default", "flash", "efficient", "cudnn", "math")}
DEFAULT_VARIANTS = {
    "cpu": dict.fromkeys(DTYPES, VARIANTS["cpu"]),
    "cuda": {"f32": ("efficient", "math"), "f16": VARIANTS["cuda"][1:], "bf16": VARIANTS["cuda"][1:]},
}
PEERS_SCRIPT = Path(__file__).resolve().parent / "peers.py"

DESCRIPTION = """\
Times the same attention in fastattn and in PyTorch's scaled_dot_product_attention on the CPU, and beside
them OpenBLAS's sgemm, which is the rate of this machine's matrix products; or, with --backends and
--torch-device cuda, in several of fastattn's backends and in PyTorch's CUDA kernels. Each is a process of its
own; they take turns (A B C A B C ...), one at work while the others sleep, and the time of each is the median
over the turns of the median of a turn's runs. fastattn's results are checked first, against double precision;
of long ones a sample of rows.

fastattn is built first (in --build), unless that folder was brought from elsewhere. PyTorch is installed with
pip in a virtual environment (--venv), once: several GB from PyPI, far less with --torch-index
https://download.pytorch.org/whl/cpu, which has a build for CPUs alone; pip's own PIP_INDEX_URL works too.
What cannot be had is named and left out.
"""

EPILOG = f"""\
suites:
  prefill    B1 H8, S 512 to 4096, D 64 and 128, full and causal, each dtype
  decode     one row, heads 32/8, D128, 16384 keys, each dtype
  short      1 to 64 rows against 4096 keys, heads 32/8, D128, each dtype; all of a dtype in turn: time over
             the straight line from S 1 to S 64, and whether it grows with S
  dims       head dims 1 to 576/512, S 1024, H8, f32, all in turn: rate over that of the powers of two around
  tiny       S 1 to 64, H 1 and 8, D64, f32: microseconds per call (PyTorch's include its Python call)
  gpu        B2 H16, S 2048 to 8192, and B1 S 16384, D 64 and 128, full and causal; one row, heads 32/8, D128,
             B16 with 4096 keys and B1 with 16384; f32 and f16

columns:
  ours       fastattn; several backends stand side by side, each under its name
  GFLOP/s    of fastattn: 2 (D + DV) operations per visible pair of query and key, halved for causal squares
  GB/s       of fastattn: q, k, v and o, each moved once
  sgemm      GFLOP/s of OpenBLAS with matrices of {SGEMM_SIZE} x {SGEMM_SIZE}, f32, in the same turns
  of sgemm   GFLOP/s over sgemm, whatever the dtype
  torch ...  PyTorch: 'default' is its own choice of kernel, the others are forced: 'efficient' is xformers',
             'math' is standard attention, matrix product, softmax, matrix product
  ratio      PyTorch's time over fastattn's: above 1, fastattn is faster; with several backends over each
  wall ms    of fastattn on a GPU, from the call to its end as this machine sees it. The other times are then
             by the GPU's clock: events around the kernels of single calls

Exit status: 0 done, 1 fastattn or a worker failed, 2 the command line is wrong.

examples:
  tools/compare/run.sh --suite short,decode --json short.json
  tools/compare/run.sh --shape B1,H8,S2048,D128 --causal --dtype bf16
  tools/compare/run.sh --peers ours,openblas --isa avx2
  tools/compare/run.sh --backends opencl --torch-device cuda --venv none --json gpu.json
"""


def words_of(allowed):
    """An argparse type: some of `allowed`, comma-separated, in the order of `allowed`."""
    def parse(text):
        chosen = text.split(",")
        for word in chosen:
            if word not in allowed:
                raise argparse.ArgumentTypeError(
                    f"{word!r} is unknown, expected some of {', '.join(allowed)} with commas between")
        return tuple(word for word in allowed if word in chosen)
    return parse


def backends(text):
    """An argparse type: devices as fastattn names them, comma-separated."""
    chosen = text.split(",")
    for name in chosen:
        if not re.fullmatch(r"[a-z0-9_]+(:.+)?", name) or chosen.count(name) > 1:
            raise argparse.ArgumentTypeError(
                f"{text!r}, expected devices such as opencl or opencl:1, each once, with commas between")
    return tuple(chosen)


def venv(text):
    return None if text == "none" else Path(text)


def integer(low, high):
    def parse(text):
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number from {low} to {high}")
        return int(text)
    return parse


def seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}, expected more than 0 and at most 3600 seconds")
    return value


def shape(text):
    try:
        return parse_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def is_file_place(path):
    """Whether a file can be put there, asked before minutes are spent on what is to be in it."""
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        return not os.path.isdir(path) and os.access(path, os.W_OK)
    return os.access(os.path.dirname(path), os.W_OK)


def available_cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="run.sh", description=DESCRIPTION, epilog=EPILOG,
                                     allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--suite", type=words_of(tuple(SUITES)), metavar="NAMES",
        help=f"{', '.join(SUITES)}, with commas between; without --shape {','.join(DEFAULT_SUITES['cpu'])}, "
             f"with --torch-device cuda {','.join(DEFAULT_SUITES['cuda'])}")
    add("--shape", type=shape, action="append", metavar="SHAPE",
        help="B1,H8,S2048,D128[,HK8][,SK2048][,DV128] instead of a suite; more than once for more")
    add("--causal", action="store_true", help="of --shape: mask what lies behind each row")
    add("--dtype", type=words_of(DTYPES), metavar="TYPES",
        help=f"some of {','.join(DTYPES)}; f32 of --shape, in a suite its own")
    add("--peers", type=words_of(PEERS), metavar="NAMES",
        help=f"who takes part: ours and some of the rest of {','.join(PEERS)}; all, on cuda without openblas")
    add("--backends", type=backends, default=("openmp",), metavar="NAMES",
        help="fastattn's devices, such as opencl,vulkan,cuda; openmp")
    add("--torch-device", choices=list(VARIANTS), default="cpu", help="PyTorch's device; cpu")
    add("--torch-variants", type=words_of(VARIANTS["cuda"]), metavar="NAMES",
        help=f"some of {','.join(VARIANTS['cpu'])}; all; on cuda of {','.join(VARIANTS['cuda'])}; all that "
             "serve the dtype but default")
    add("--threads", type=integer(1, 1024), default=available_cpus(), metavar="N",
        help="of each process; the CPUs that this one may use")
    add("--isa", choices=["avx2"], help="keep every process to this instruction set")
    add("--min-time", type=seconds, default=0.5, metavar="SECONDS",
        help="how long each process works on each case, all turns together; 0.5")
    add("--turns", type=integer(1, 1000), default=5, metavar="N", help="how often each has its turn; 5")
    add("--json", metavar="FILE", help="also write the results there")
    add("--build", type=Path, default=ROOT / "build", metavar="FOLDER",
        help="Meson build folder to build fastattn in; build")
    add("--worker", type=Path, metavar="FILE", help="fastattn's compare-worker where it is built already")
    add("--openblas", metavar="FILE", help="OpenBLAS's shared library, where it is not found by itself")
    add("--venv", type=venv, default=ROOT / "build-compare", metavar="FOLDER",
        help="virtual environment with PyTorch, or to install it in; none for that of the python3 that runs "
             "this; build-compare")
    add("--torch-index", metavar="URL", help="package index to install PyTorch from, instead of pip's own")
    options = parser.parse_args(arguments)
    check(parser, options)
    return options


def check(parser, options):
    """What options say together."""
    options.peers = options.peers or DEFAULT_PEERS[options.torch_device]
    if options.suite and options.shape:
        parser.error("--suite and --shape are both given, expected one of the two")
    if options.causal and not options.shape:
        parser.error("--causal without --shape: a suite has its own masks")
    if "ours" not in options.peers:
        parser.error(f"--peers is {','.join(options.peers)}, expected ours among them")
    if "openblas" in options.peers and options.torch_device != "cpu":
        parser.error(f"--peers has openblas, which runs on the CPU, and --torch-device is "
                     f"{options.torch_device}")
    for variant in options.torch_variants or ():
        if variant not in VARIANTS[options.torch_device]:
            parser.error(f"--torch-variants has {variant}, which PyTorch does not have on "
                         f"{options.torch_device}, expected some of "
                         f"{','.join(VARIANTS[options.torch_device])}")
    if options.isa and platform.machine() not in ("x86_64", "AMD64"):
        parser.error(f"--isa is {options.isa}, which this {platform.machine()} has not")
    if options.json and not is_file_place(options.json):
        parser.error(f"--json is {options.json!r}, expected a file in a folder that can be written to")
    options.names = list(options.backends) if len(options.backends) > 1 else ["ours"]
    options.on_gpu = options.torch_device != "cpu" or any(
        backend.partition(":")[0] not in HOST_BACKENDS for backend in options.backends)


def list_groups(options):
    if options.shape:
        return [[Case("shape", dtype, *sizes, options.causal)]
                for sizes in options.shape for dtype in options.dtype or ("f32",)]
    return [group for name in options.suite or DEFAULT_SUITES[options.torch_device]
            for group in SUITES[name](options.dtype)]


def variants_of(options, case):
    """The kernels of PyTorch that are to time a case."""
    return options.torch_variants or DEFAULT_VARIANTS[options.torch_device][case.dtype]


def start_openblas(command, env, flags):
    """Its worker. It is told what to take the processor for where it does not know it, unless the user tells it."""
    worker = Worker("OpenBLAS", command, env)
    took = re.search(r", core (\w+),", worker.introduction)
    core = newer_core(took[1], flags) if took and "OPENBLAS_CORETYPE" not in env else None
    if core is None:
        return worker
    worker.close()
    worker = Worker("OpenBLAS", command, {**env, "OPENBLAS_CORETYPE": core})
    worker.introduction += f"; told OPENBLAS_CORETYPE={core}, by itself it takes this processor for {took[1]}"
    return worker


def start_workers(options, workers):
    """Starts every peer in `workers`, a dict that fills; returns why those that are not in it are not."""
    env = environment(options.threads, options.isa)
    absent = {}

    def start(name, make, *arguments):
        try:
            workers[name] = make(*arguments)
        except Refused as reason:
            absent[name] = str(reason)

    threads = str(options.threads)
    ours = options.worker or build_worker(options.build)
    for name, backend in zip(options.names, options.backends):
        what = "fastattn" if name == "ours" else f"fastattn on {name}"
        on_gpu = backend.partition(":")[0] not in HOST_BACKENDS
        start(name, Worker, what, [str(ours), backend], env, on_gpu)
    if "openblas" in options.peers:
        library = [options.openblas] if options.openblas else []
        command = [sys.executable, str(PEERS_SCRIPT), "openblas", threads, *library]
        start("openblas", start_openblas, command, env, processor_flags())
    if "torch" in options.peers:
        try:
            python = torch_python(options.venv, options.torch_index)
            command = [str(python), str(PEERS_SCRIPT), "torch", threads, options.torch_device]
            start("torch", Worker, "PyTorch", command, env, options.torch_device != "cpu")
        except Missing as reason:
            absent["torch"] = str(reason)
    return absent


def print_introductions(options, workers, absent):
    for name in (*options.names, *options.peers[1:]):
        told = workers[name].introduction if name in workers else f"NOT COMPARED: {absent[name]}"
        print(f"{name + ':':<10} {plain(told)}")
    print(f"{'turns:':<10} {options.turns}, {options.min_time:g} s of each in all"
          f"{', every process kept to ' + options.isa if options.isa else ''}\n", flush=True)


def time_group(options, workers, group):
    """All cases of a group by everyone, in turn."""
    sgemm = Lane("sgemm", workers["openblas"], 0, str(SGEMM_SIZE)) if "openblas" in workers else None
    results = []
    slot = 0
    for case in group:
        lanes = {name: Lane(name, workers[name], len(results), case.words)
                 for name in options.names if name in workers}
        for variant in variants_of(options, case) if "torch" in workers else ():
            lanes[f"torch {variant}"] = Lane(variant, workers["torch"], slot, f"{case.words} {variant}")
            slot += 1
        results.append(Result(case, lanes, [name for name in options.names if name in lanes], sgemm))
    for _ in range(options.turns):
        if sgemm:
            sgemm.take_turn(options.min_time / options.turns)
        for result in results:
            for lane in result.lanes.values():
                lane.take_turn(options.min_time / options.turns)
    for worker in workers.values():
        worker.ask("drop")
    return results


def compare(options, workers):
    """Times and prints everything; returns what --json wants."""
    ours = [name for name in options.names if name in workers]
    results, summaries = [], []
    suite = None
    groups = list_groups(options)
    for group in groups:
        if group[0].suite != suite:
            suite = group[0].suite
            used = {variant for other in groups if other[0].suite == suite
                    for variant in variants_of(options, other[0])}
            peers = [f"torch {variant}" for variant in VARIANTS[options.torch_device]
                     if variant in used and "torch" in workers]
            table = Table(ours, peers, "openblas" in workers, options.on_gpu,
                          "us" if suite == "tiny" else "ms")
            print(f"{suite}:" if not options.shape else "shapes:")
            table.header()
        if len(group) > 1 and sys.stderr.isatty():
            say(f"timing {len(group)} cases of {suite}, {group[0].dtype}, in turn")
        timed = time_group(options, workers, group)
        for result in timed:
            table.row(result)
        sys.stdout.flush()
        results += timed
        if suite in SUMMARIES:
            summaries.append(SUMMARIES[suite](timed, ours + peers))
    return results, summaries


def run(options, workers):
    absent = start_workers(options, workers)
    if not set(options.names) & set(workers):
        raise Missing(f"fastattn's worker: {'; '.join(absent[name] for name in options.names)}")
    print_introductions(options, workers, absent)
    results, summaries = compare(options, workers)
    if options.json:
        about = {
            "backends": options.backends, "torch_device": options.torch_device,
            "threads": options.threads, "isa": options.isa, "turns": options.turns,
            "min_time": options.min_time, "sgemm_size": SGEMM_SIZE,
            "about": {name: worker.introduction for name, worker in workers.items()}, "not_compared": absent,
        }
        save(options.json, about, results, summaries)
    broken = sum(any(result.lanes[name].error for name in result.ours) for result in results)
    if broken:
        say(f"fastattn failed in {broken} of {len(results)} cases")
    return 1 if broken else 0


def main(arguments):
    options = parse_arguments(arguments)
    # However this process is asked to end, its workers end with it.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    workers = {}
    try:
        return run(options, workers)
    except (Missing, Died, OSError) as error:
        sys.stdout.flush()
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        for worker in workers.values():
            worker.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
