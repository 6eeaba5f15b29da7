# SPDX-License-Identifier: Apache-2.0
"""Results as tables for people and as JSON for machines."""

import json
import os
import statistics
from dataclasses import asdict, dataclass

from cases import SLACK, falls, of_neighbours, over_line, ratio

SGEMM_SIZE = 2048


@dataclass
class Result:
    """One case: the lane of each peer that was to time it, and that of sgemm, whose turns they shared."""

    case: object
    lanes: dict
    sgemm: object = None

    def seconds(self, name):
        lane = self.lanes.get(name)
        return statistics.median(lane.turns) if lane and lane.turns else None

    def rate(self, name="ours"):
        return ratio(self.case.flops, self.seconds(name))

    def speedup(self, name):
        return ratio(self.seconds(name), self.seconds("ours"))

    @property
    def sgemm_rate(self):
        if not self.sgemm or not self.sgemm.turns:
            return None
        return 2 * SGEMM_SIZE**3 / statistics.median(self.sgemm.turns)


def number(value, digits, factor=1.0, suffix=""):
    return "-" if value is None else f"{factor * value:.{digits}f}{suffix}"


class Table:
    """Prints a row per case, and below it, once each, why something gave no number."""

    def __init__(self, peers, sgemm, unit="ms"):
        self.peers, self.sgemm, self.unit = peers, sgemm, unit
        self.reasons = []

    def columns(self):
        """(title, width) of each; the first four are words."""
        found = [("dtype", 5), ("shape", 28), ("mask", 6), ("kernel", 16)]
        found += [(f"ours {self.unit}", 11), ("GFLOP/s", 9), ("GB/s", 8)]
        found += [("sgemm", 9), ("of sgemm", 10)] if self.sgemm else []
        for name in self.peers:
            found += [(f"{name} {self.unit}", max(11, len(name) + 4)), ("ratio", 10)]
        return found

    def line(self, cells):
        return " ".join(f"{cell:<{width}}" if i < 4 else f"{cell:>{width}}"
                        for i, (cell, (_, width)) in enumerate(zip(cells, self.columns()))).rstrip()

    def header(self):
        print(self.line([title for title, _ in self.columns()]), flush=True)

    def mark(self, name, lane, fresh):
        """What stands where the time of a lane that failed would be."""
        reason = f"{name}: {lane.error}"
        if reason not in self.reasons:
            self.reasons.append(reason)
            fresh.append(reason)
        return f"failed [{self.reasons.index(reason) + 1}]"

    def time(self, result, name, fresh):
        lane = result.lanes[name]
        if lane.error:
            return self.mark(name, lane, fresh)
        return number(result.seconds(name), *((2, 1e6) if self.unit == "us" else (4, 1e3)))

    def row(self, result):
        case, fresh = result.case, []
        seconds = result.seconds("ours")
        cells = [case.dtype, case.shape, "causal" if case.causal else "full",
                 result.lanes["ours"].kernel or "-", self.time(result, "ours", fresh),
                 number(result.rate(), 1, 1e-9), number(ratio(case.bytes, seconds), 2, 1e-9)]
        if self.sgemm:
            sgemm = result.sgemm
            cells += [self.mark("sgemm", sgemm, fresh) if sgemm.error else number(result.sgemm_rate, 1, 1e-9),
                      number(ratio(result.rate(), result.sgemm_rate), 1, 100, " %")]
        for name in self.peers:
            cells += [self.time(result, name, fresh), number(result.speedup(name), 2, 1, "x")]
        print(self.line(cells))
        for reason in fresh:
            print(f"      [{self.reasons.index(reason) + 1}] {reason}")


# --- What several cases tell together: printed behind their table, returned for the JSON. ---

def print_wide(title, label, heads, rows):
    print(f"\n{title}")
    width = max(len(name) for name, _ in rows)
    print("  ".join([f"  {label:<{width}}", *(f"{head:>7}" for head in heads)]))
    for name, cells in rows:
        print("  ".join([f"  {name:<{width}}", *(f"{cell:>7}" for cell in cells)]))


def growth(fallen, complete):
    if not fallen:
        return "yes" if complete else "yes, as far as there are times"
    length, shorter, share = min(fallen, key=lambda fall: fall[2])
    others = f", and {len(fallen) - 1} more" if len(fallen) > 1 else ""
    return f"no, S {length} takes {100 * (1 - share):.0f} % less than S {shorter}{others}"


def short_summary(results, names):
    dtype, lengths = results[0].case.dtype, [result.case.len_q for result in results]
    rows, verdicts, found = [], [], {}
    for name in names:
        times = [result.seconds(name) for result in results]
        if not any(times):
            continue
        line, fallen = over_line(lengths, times), falls(lengths, times)
        rows.append((name, [number(value, 2) for value in line]))
        verdicts.append(f"  {name}: {growth(fallen, None not in times)}")
        found[name] = {"over_line": line, "falls": [{"len_q": length, "below": shorter, "share": share}
                                                    for length, shorter, share in fallen]}
    if rows:
        span = f"S {lengths[0]} to S {lengths[-1]}"
        print_wide(f"time over the straight line from {span}, {dtype}", "S", lengths, rows)
        print(f"time grows with S (falls of up to {100 * SLACK:.0f} % do not count), {dtype}:")
        print("\n".join(verdicts) + "\n", flush=True)
    return {"suite": "short", "dtype": dtype, "len_q": lengths, "peers": found}


def dims_summary(results, names):
    dtype, pairs = results[0].case.dtype, [(result.case.dim, result.case.dim_v) for result in results]
    heads = [str(d) if d == dv else f"{d}/{dv}" for d, dv in pairs]
    rows, found = [], {}
    for name in names:
        rates = [result.rate(name) for result in results]
        if not any(rates):
            continue
        near = of_neighbours(pairs, rates)
        rows.append((f"{name}, GFLOP/s", [number(rate, 1, 1e-9) for rate in rates]))
        rows.append(("  over the power of two below", [number(below, 2) for below, _ in near]))
        rows.append(("  over the power of two above", [number(above, 2) for _, above in near]))
        found[name] = {"gflops": [None if rate is None else 1e-9 * rate for rate in rates],
                       "over_below": [below for below, _ in near], "over_above": [above for _, above in near]}
    if rows:
        print_wide(f"rate by head dim, {dtype}", "D", heads, rows)
        print(flush=True)
    return {"suite": "dims", "dtype": dtype, "dims": heads, "peers": found}


SUMMARIES = {"short": short_summary, "dims": dims_summary}


# --- JSON ---

def scaled(value, factor):
    return None if value is None else factor * value


def lane_object(result, name):
    lane = result.lanes[name]
    if lane.error:
        return {"error": lane.error}
    about = {"kernel": lane.kernel} if name == "ours" else {"ratio": result.speedup(name)}
    return {"ms": scaled(result.seconds(name), 1e3), "turns_ms": [1e3 * turn for turn in lane.turns],
            "gflops": scaled(result.rate(name), 1e-9), **about}


def case_object(result):
    case = result.case
    found = {
        **asdict(case), "shape": case.shape, "flops": case.flops, "bytes": case.bytes,
        "gbps": scaled(ratio(case.bytes, result.seconds("ours")), 1e-9),
        "peers": {name: lane_object(result, name) for name in result.lanes},
    }
    if result.sgemm:
        found["sgemm"] = {"error": result.sgemm.error} if result.sgemm.error else {
            "gflops": scaled(result.sgemm_rate, 1e-9), "fraction": ratio(result.rate(), result.sgemm_rate)}
    return found


def save(path, about, results, summaries):
    """Puts the file in place whole, or leaves what was there."""
    part = f"{path}.part{os.getpid()}"
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump({**about, "cases": [case_object(result) for result in results], "summaries": summaries},
                      file, indent=1)
            file.write("\n")
        os.replace(part, path)
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise
