#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of docs/gallery.md anew.

    figures.py BUILD            measures with BUILD/tools/fastattn, some ten minutes, and writes docs/figures/
                                after each round, so that it may be stopped
    figures.py --draw BUILD     draws what was measured last, which docs/figures/measured.json holds
    figures.py --check BUILD    writes nothing; exit status 1 where a picture would change

Nothing else should run beside a measurement; a picture says where other programs did. Each of ROUNDS rounds goes
through all cases, so that what disturbs the machine for a while disturbs all alike. What is drawn is the median of the
rounds.
"""
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from chart import COLOURS, FAINT, Chart  # noqa: E402

FIGURES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "figures"
ROUNDS = 5
TYPES = ["f32", "f16", "bf16"]

# Of the null backend, whose blocks are the same on every machine.
TILES = {
    "tiles-causal": ["--causal", "bottom-right"],
    "tiles-window": ["--causal", "bottom-right", "--window-left", "512"],
    "tiles-prefix": ["--causal", "bottom-right", "--prefix", "600"],
    "tiles-packed": ["--causal", "bottom-right", "--packed", "300,1200,548"],
    "tiles-lists": ["--causal", "bottom-right", "--density", "0.25", "--list-block", "64"],
}
TILE_SHAPE = ["--shape", "B1,H1,S2048,D64", "--block-q", "64", "--block-kv", "64", "--backend", "null"]

# From the fewest operations for a byte to the most.
ROOFLINE = {
    "1 row, a head of k and v for each head": "B1,H32,S1,D128,SK8192",
    "1 row, 4 heads to one of k and v": "B1,H32,S1,D128,HK8,SK16384",
    "4 rows, likewise": "B1,H32,S4,D128,HK8,SK16384",
    "16 rows, likewise": "B1,H32,S16,D128,HK8,SK16384",
    "512 rows and keys": "B1,H8,S512,D128",
    "2048 rows and keys": "B1,H8,S2048,D128",
}
CONTEXTS = [1024, 4096, 16384, 32768]
FORMATS = ["f16", "bf16", "e4m3", "q8_0", "q4_0", "i8:token", "u2:group32"]


def bits(result):
    """Of an element of the cache, scales included; what else is moved is next to nothing."""
    moved = 1e6 * result["gbps"] * result["ms_median"]
    return round(8 * moved / (2 * result["heads_kv"] * result["len_kv"] * result["dim"]), 2)


def bench(command, *arguments):
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        subprocess.run([command, "bench", *arguments, "--backend", "openmp", "--no-standard", "--min-time", "0.1",
                        "--json", report], check=True, stdout=subprocess.DEVNULL)
        return json.loads(report.read_text(encoding="utf-8"))[0]


def median(results, field):
    return float(f"{statistics.median(result[field] for result in results):.4g}")


def measure(command):
    """What is known after each round."""
    peaks, roofline, decode, load = [], {}, {}, os.getloadavg()[0]
    for done in range(ROUNDS):
        print(f"round {done + 1} of {ROUNDS}", flush=True)
        peaks.append(bench(command, "--shape", "B1,H1,S1,D1"))
        for name, shape in ROOFLINE.items():
            for dtype in TYPES:
                found = bench(command, "--no-peak", "--shape", shape, "--dtype", dtype)
                roofline.setdefault((name, dtype), []).append(found)
        for context in CONTEXTS:
            for kind in FORMATS:
                found = bench(command, "--no-peak", "--shape", f"B1,H32,S1,D128,HK8,SK{context}", "--dtype", "f16",
                              "--kv-type", kind)
                decode.setdefault((kind, context), []).append(found)
        yield summary(peaks, roofline, decode) | {"load_before": round(load, 1)}


def summary(peaks, roofline, decode):
    ceilings = {f"f32, {peaks[0]['peak_isa']}": median(peaks, "peak_f32_tflops")}
    for isa in peaks[0]["peak_bf16_tflops"]:
        ceilings[f"bf16, {isa}"] = statistics.median(peak["peak_bf16_tflops"][isa] for peak in peaks)
    return {
        "device": peaks[0]["device"],
        "threads": len(os.sched_getaffinity(0)),
        "rounds": len(peaks),
        "gflops": {name: float(f"{1e3 * rate:.4g}") for name, rate in ceilings.items()},
        "gbps": median(peaks, "peak_gbps"),
        "roofline": {name: {dtype: {field: median(roofline[name, dtype], field) for field in ("tflops", "gbps")}
                            for dtype in TYPES} for name in ROOFLINE},
        "bits": {kind: bits(decode[kind, CONTEXTS[-1]][0]) for kind in FORMATS},
        "decode_ms": {kind: {str(context): median(decode[kind, context], "ms_median") for context in CONTEXTS}
                      for kind in FORMATS},
    }


def machine(measured):
    """For the line below a title. A machine with a load of its own measures that."""
    busy = measured["load_before"] > 0.5
    beside = f", beside other programs (load {measured['load_before']:.0f}): no measure of speed" if busy else ""
    return f"{measured['device']}, {measured['threads']} threads{beside}"


def powers(base, low, high, text):
    ticks, value = [], low
    while value <= high * 1.001:
        ticks.append((value, text(value)))
        value *= base
    return ticks


def steps(low, high):
    """1, 2 and 5 times the powers of ten between the two."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [first * 10.0**exponent for exponent in exponents for first in (1, 2, 5)]
    return [(value, number(value)) for value in values if low <= value <= high]


def number(value):
    return f"{value:g}"


def draw_roofline(measured):
    best = max(measured["gflops"].values())
    low, high = 0.25, 2048
    rates = [1e3 * case[dtype]["tflops"] for case in measured["roofline"].values() for dtype in TYPES]
    bottom, top = min(rates) / 1.5, 1.5 * best
    chart = Chart("Roofline", machine(measured),
                  ("operations for each byte of q, k, v and o", low, high, powers(4, low, high, number)),
                  ("GFLOP/s", bottom, top, steps(bottom, top)))
    names = []
    for name, rate in measured["gflops"].items():
        bend = rate / measured["gbps"]
        least = max(low, bottom / measured["gbps"])
        chart.line([(least, least * measured["gbps"]), (bend, rate), (high, rate)], FAINT, 1.5)
        names.append((rate, f"{name}: {rate:.0f}", FAINT))
    beside = 1.5
    chart.text(chart.x.place(beside) - 8, chart.y.place(beside * measured["gbps"]) - 4,
               f"{measured['gbps']:.1f} GB/s", "end", FAINT)
    chart.names(names)
    for dtype, colour in zip(TYPES, COLOURS):
        points = [(1e3 * case[dtype]["tflops"] / case[dtype]["gbps"], 1e3 * case[dtype]["tflops"])
                  for case in measured["roofline"].values()]
        chart.line(points, colour, 1, "3 3")
        chart.dots(points, colour)
        chart.text(chart.x.at + chart.x.length + 10, 330 + 18 * TYPES.index(dtype), f"● {dtype}", "start", colour)
    return chart.svg()


def draw_decode(measured):
    times = [ms for row in measured["decode_ms"].values() for ms in row.values()]
    bottom, top = min(times) / 1.3, max(times) * 1.3
    low, high = CONTEXTS[0], CONTEXTS[-1]
    chart = Chart("A step of decoding, for each format of the cache", machine(measured),
                  ("keys in the cache", low, high, powers(2, low, high, lambda keys: f"{keys // 1024}K")),
                  ("milliseconds", bottom, top, steps(bottom, top)))
    names = []
    for kind, colour in zip(FORMATS, COLOURS):
        points = [(int(context), ms) for context, ms in measured["decode_ms"][kind].items()]
        chart.line(points, colour)
        chart.dots(points, colour)
        names.append((points[-1][1], f"{kind}, {measured['bits'][kind]:g} bits", colour))
    chart.names(names)
    return chart.svg()


def draw(command, measured):
    pictures = {"roofline": draw_roofline(measured), "decode": draw_decode(measured)}
    with tempfile.TemporaryDirectory() as folder:
        for name, mask in TILES.items():
            picture = pathlib.Path(folder, f"{name}.svg")
            subprocess.run([command, "plan", *TILE_SHAPE, *mask, "--svg", picture], check=True,
                           stdout=subprocess.DEVNULL)
            pictures[name] = picture.read_text(encoding="utf-8")
    return pictures


def save(pictures):
    for name, picture in pictures.items():
        (FIGURES / f"{name}.svg").write_text(picture, encoding="utf-8")


def main():
    options, rest = [a for a in sys.argv[1:] if a.startswith("-")], [a for a in sys.argv[1:] if not a.startswith("-")]
    if len(rest) != 1 or options not in ([], ["--draw"], ["--check"]):
        raise SystemExit(__doc__)
    command, data = pathlib.Path(rest[0], "tools", "fastattn").resolve(), FIGURES / "measured.json"
    if not options:
        for measured in measure(command):
            data.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
            save(draw(command, measured))
        return 0
    pictures = draw(command, json.loads(data.read_text(encoding="utf-8")))
    if options == ["--draw"]:
        save(pictures)
        return 0
    stale = [name for name, picture in pictures.items() if (FIGURES / f"{name}.svg").read_text("utf-8") != picture]
    print("\n".join(f"docs/figures/{name}.svg is not what figures.py draws" for name in stale) or "all are as drawn")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
