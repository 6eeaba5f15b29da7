#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times attention in fastattn, PyTorch and OpenBLAS (as sgemm), in turn on one machine. See --help."""

import argparse
import os
import platform
import signal
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
from cases import DTYPES, SUITES, Case, parse_shape  # noqa: E402
from prepare import ROOT, Missing, build_worker, say, torch_python  # noqa: E402
from report import SGEMM_SIZE, SUMMARIES, Result, Table, save  # noqa: E402
from workers import Died, Lane, Refused, Worker, environment  # noqa: E402

PEERS = ("ours", "openblas", "torch")
VARIANTS = ("default", "flash", "math")
DEFAULT_SUITES = ("prefill", "decode")
PEERS_SCRIPT = Path(__file__).resolve().parent / "peers.py"

DESCRIPTION = """\
Times the same attention in fastattn and in PyTorch's scaled_dot_product_attention on the CPU, and beside
them OpenBLAS's sgemm, which is the rate of this machine's matrix products. Each is a process of its own; they
take turns (A B C A B C ...), one at work while the others sleep, and the time of each is the median over the
turns of the median of a turn's runs.

fastattn is built first (in --build). PyTorch is installed with pip in a virtual environment (--venv), once:
several GB from PyPI, far less with --torch-index https://download.pytorch.org/whl/cpu, which has a build for
CPUs alone; pip's own PIP_INDEX_URL works too. What cannot be had is named and left out.
"""

EPILOG = f"""\
suites:
  prefill    B1 H8, S 512 to 4096, D 64 and 128, full and causal, each dtype
  decode     one row, heads 32/8, D128, 16384 keys, each dtype
  short      1 to 64 rows against 4096 keys, heads 32/8, D128, each dtype; all of a dtype in turn: time over
             the straight line from S 1 to S 64, and whether it grows with S
  dims       head dims 1 to 576/512, S 1024, H8, f32, all in turn: rate over that of the powers of two around
  tiny       S 1 to 64, H 1 and 8, D64, f32: microseconds per call (PyTorch's include its Python call)

columns:
  GFLOP/s    of fastattn: 2 (D + DV) operations per visible pair of query and key, halved for causal squares
  GB/s       of fastattn: q, k, v and o, each moved once
  sgemm      GFLOP/s of OpenBLAS with matrices of {SGEMM_SIZE} x {SGEMM_SIZE}, f32, in the same turns
  of sgemm   GFLOP/s over sgemm, whatever the dtype
  torch ...  PyTorch: 'default' is its own choice of kernel, 'flash' and 'math' are forced
  ratio      PyTorch's time over fastattn's: above 1, fastattn is faster

Exit status: 0 done, 1 fastattn or a worker failed, 2 the command line is wrong.

examples:
  tools/compare/run.sh --suite short,decode --json short.json
  tools/compare/run.sh --shape B1,H8,S2048,D128 --causal --dtype bf16
  tools/compare/run.sh --peers ours,openblas --isa avx2
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
    return not os.path.isdir(path) and os.access(os.path.dirname(path) or ".", os.W_OK)


def available_cpus():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="run.sh", description=DESCRIPTION, epilog=EPILOG,
                                     allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--suite", type=words_of(tuple(SUITES)), metavar="NAMES",
        help=f"{', '.join(SUITES)}, with commas between; without --shape {','.join(DEFAULT_SUITES)}")
    add("--shape", type=shape, action="append", metavar="SHAPE",
        help="B1,H8,S2048,D128[,HK8][,SK2048][,DV128] instead of a suite; more than once for more")
    add("--causal", action="store_true", help="of --shape: mask what lies behind each row")
    add("--dtype", type=words_of(DTYPES), metavar="TYPES",
        help=f"some of {','.join(DTYPES)}; f32 of --shape, in a suite its own")
    add("--peers", type=words_of(PEERS), default=PEERS, metavar="NAMES",
        help=f"who takes part: ours and some of the rest of {','.join(PEERS)}; all")
    add("--torch-variants", type=words_of(VARIANTS), default=VARIANTS, metavar="NAMES",
        help=f"some of {','.join(VARIANTS)}; all")
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
    add("--venv", type=Path, default=ROOT / "build-compare", metavar="FOLDER",
        help="virtual environment with PyTorch, or to install it in; build-compare")
    add("--torch-index", metavar="URL", help="package index to install PyTorch from, instead of pip's own")
    options = parser.parse_args(arguments)
    if options.suite and options.shape:
        parser.error("--suite and --shape are both given, expected one of the two")
    if options.causal and not options.shape:
        parser.error("--causal without --shape: a suite has its own masks")
    if "ours" not in options.peers:
        parser.error(f"--peers is {','.join(options.peers)}, expected ours among them")
    if options.isa and platform.machine() not in ("x86_64", "AMD64"):
        parser.error(f"--isa is {options.isa}, which this {platform.machine()} has not")
    if options.json and not is_file_place(options.json):
        parser.error(f"--json is {options.json!r}, expected a file in a folder that can be written to")
    return options


def list_groups(options):
    if options.shape:
        return [[Case("shape", dtype, *sizes, options.causal)]
                for sizes in options.shape for dtype in options.dtype or ("f32",)]
    return [group for name in options.suite or DEFAULT_SUITES for group in SUITES[name](options.dtype)]


def start_workers(options, workers):
    """Starts every peer in `workers`, a dict that fills; returns why those that are not in it are not."""
    env = environment(options.threads, options.isa)
    absent = {}

    def start(name, what, command):
        try:
            workers[name] = Worker(what, [str(part) for part in command], env)
        except Refused as reason:
            absent[name] = str(reason)

    threads = str(options.threads)
    start("ours", "fastattn", [options.worker or build_worker(options.build)])
    if "openblas" in options.peers:
        library = [options.openblas] if options.openblas else []
        start("openblas", "OpenBLAS", [sys.executable, PEERS_SCRIPT, "openblas", threads, *library])
    if "torch" in options.peers:
        try:
            python = torch_python(options.venv, options.torch_index)
            start("torch", "PyTorch", [python, PEERS_SCRIPT, "torch", threads])
        except Missing as reason:
            absent["torch"] = str(reason)
    return absent


def print_introductions(options, workers, absent):
    for name in options.peers:
        told = workers[name].introduction if name in workers else f"NOT COMPARED: {absent[name]}"
        print(f"{name + ':':<10} {told}")
    print(f"{'turns:':<10} {options.turns}, {options.min_time:g} s of each in all"
          f"{', every process kept to ' + options.isa if options.isa else ''}\n", flush=True)


def time_group(options, workers, group):
    """All cases of a group by everyone, in turn."""
    sgemm = Lane("sgemm", workers["openblas"], 0, str(SGEMM_SIZE)) if "openblas" in workers else None
    results = []
    slot = 0
    for case in group:
        lanes = {"ours": Lane("ours", workers["ours"], len(results), case.words)}
        for variant in options.torch_variants if "torch" in workers else ():
            lanes[f"torch {variant}"] = Lane(variant, workers["torch"], slot, f"{case.words} {variant}")
            slot += 1
        results.append(Result(case, lanes, sgemm))
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
    names = ["ours"] + [f"torch {variant}" for variant in options.torch_variants if "torch" in workers]
    results, summaries = [], []
    suite = None
    for group in list_groups(options):
        if group[0].suite != suite:
            suite = group[0].suite
            table = Table(names[1:], "openblas" in workers, "us" if suite == "tiny" else "ms")
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
            summaries.append(SUMMARIES[suite](timed, names))
    return results, summaries


def run(options, workers):
    absent = start_workers(options, workers)
    if "ours" in absent:
        raise Missing(f"fastattn's worker: {absent['ours']}")
    print_introductions(options, workers, absent)
    results, summaries = compare(options, workers)
    if options.json:
        about = {
            "threads": options.threads, "isa": options.isa, "turns": options.turns,
            "min_time": options.min_time, "sgemm_size": SGEMM_SIZE,
            "about": {name: worker.introduction for name, worker in workers.items()}, "not_compared": absent,
        }
        save(options.json, about, results, summaries)
    broken = sum(bool(result.lanes["ours"].error) for result in results)
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
