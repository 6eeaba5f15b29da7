# SPDX-License-Identifier: Apache-2.0
"""Results as tables for people and as JSON for machines."""

import json
import statistics
from dataclasses import asdict, dataclass

from cases import SLACK, falls, of_neighbours, over_line, ratio
from text import plain, put

SGEMM_SIZE = 2048


@dataclass
class Result:
    """One case: the lane of each that was to time it, which of them are fastattn's, and the lane of sgemm,
    whose turns they shared."""

    case: object
    lanes: dict
    ours: list
    sgemm: object = None

    def seconds(self, name):
        lane = self.lanes.get(name)
        return statistics.median(lane.turns) if lane and lane.turns else None

    def wall(self, name):
        lane = self.lanes.get(name)
        return statistics.median(lane.walls) if lane and lane.walls else None

    def rate(self, name):
        return ratio(self.case.flops, self.seconds(name))

    def speedup(self, name, ours):
        return ratio(self.seconds(name), self.seconds(ours))

    @property
    def sgemm_rate(self):
        if not self.sgemm or not self.sgemm.turns:
            return None
        return 2 * SGEMM_SIZE**3 / statistics.median(self.sgemm.turns)


def number(value, digits, factor=1.0, suffix=""):
    return "-" if value is None else f"{factor * value:.{digits}f}{suffix}"


class Table:
    """Prints a row per case, and below it, once each, why something gave no number."""

    def __init__(self, ours, peers, sgemm, on_gpu, unit="ms"):
        self.ours, self.peers, self.sgemm, self.on_gpu, self.unit = ours, peers, sgemm, on_gpu, unit
        self.reasons = []

    def columns(self):
        """(title, width) of each; a width below 0 is of words, which stand at the left."""
        alone = len(self.ours) == 1
        found = [("dtype", -5), ("shape", -28), ("mask", -6)]
        for name in self.ours:
            found += [("kernel" if alone else f"{name} kernel", -16), (f"{name} {self.unit}", 11)]
            found += [(f"wall {self.unit}", 11)] if self.on_gpu else []
            found += [("GFLOP/s", 9), ("GB/s", 8)]
        found += [("sgemm", 9), ("of sgemm", 10)] if self.sgemm else []
        for name in self.peers:
            found += [(f"{name} {self.unit}", max(11, len(name) + 4))]
            found += [("ratio" if alone else f"over {ours}", 10) for ours in self.ours]
        return found

    def line(self, cells):
        return " ".join(f"{cell:<{-width}}" if width < 0 else f"{cell:>{width}}"
                        for cell, (_, width) in zip(cells, self.columns())).rstrip()

    def header(self):
        print(self.line([title for title, _ in self.columns()]), flush=True)

    def note(self, reason, fresh):
        """The number under which a reason stands below the table."""
        if reason not in self.reasons:
            self.reasons.append(reason)
            fresh.append(reason)
        return self.reasons.index(reason) + 1

    def mark(self, name, lane, fresh):
        """What stands where the time of a lane that failed would be."""
        return f"failed [{self.note(f'{name}: {lane.error}', fresh)}]"

    def in_unit(self, seconds):
        return number(seconds, *((2, 1e6) if self.unit == "us" else (4, 1e3)))

    def time(self, result, name, fresh):
        lane = result.lanes.get(name)
        if lane is None:
            return "-"
        if lane.error:
            return self.mark(name, lane, fresh)
        if lane.worker.on_gpu and lane.turns and not lane.by_device:
            self.note(f"{name}: has no clock of the device, so its times are those of this machine's", fresh)
        return self.in_unit(result.seconds(name))

    def row(self, result):
        case, fresh = result.case, []
        cells = [case.dtype, case.shape, "causal" if case.causal else "full"]
        for name in self.ours:
            cells += [result.lanes[name].kernel or "-", self.time(result, name, fresh)]
            cells += [self.in_unit(result.wall(name))] if self.on_gpu else []
            cells += [number(result.rate(name), 1, 1e-9),
                      number(ratio(case.bytes, result.seconds(name)), 2, 1e-9)]
        if self.sgemm:
            sgemm = result.sgemm
            cells += [self.mark("sgemm", sgemm, fresh) if sgemm.error else number(result.sgemm_rate, 1, 1e-9),
                      number(ratio(result.rate(self.ours[0]), result.sgemm_rate), 1, 100, " %")]
        for name in self.peers:
            cells += [self.time(result, name, fresh)]
            cells += [number(result.speedup(name, ours), 2, 1, "x") for ours in self.ours]
        print(self.line(cells))
        for reason in fresh:
            print(f"      [{self.reasons.index(reason) + 1}] {plain(reason)}")


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
    """What is known of a lane. Its ratio is to fastattn's first backend; where there are more, to each."""
    lane = result.lanes[name]
    if lane.error:
        return {"error": lane.error}
    about = {"kernel": lane.kernel}
    if name not in result.ours:
        about = {"ratio": result.speedup(name, result.ours[0])}
        if len(result.ours) > 1:
            about["ratios"] = {ours: result.speedup(name, ours) for ours in result.ours}
    return {"ms": scaled(result.seconds(name), 1e3), "turns_ms": [1e3 * turn for turn in lane.turns],
            "clock": "device" if lane.by_device else "wall", "wall_ms": scaled(result.wall(name), 1e3),
            "gflops": scaled(result.rate(name), 1e-9),
            "gbps": scaled(ratio(result.case.bytes, result.seconds(name)), 1e-9), **about}


def case_object(result):
    case, ours = result.case, result.ours[0]
    found = {
        **asdict(case), "shape": case.shape, "flops": case.flops, "bytes": case.bytes,
        "gbps": scaled(ratio(case.bytes, result.seconds(ours)), 1e-9),
        "peers": {name: lane_object(result, name) for name in result.lanes},
    }
    if result.sgemm:
        found["sgemm"] = {"error": result.sgemm.error} if result.sgemm.error else {
            "gflops": scaled(result.sgemm_rate, 1e-9),
            "fraction": ratio(result.rate(ours), result.sgemm_rate)}
    return found


def save(path, about, results, summaries):
    found = {**about, "cases": [case_object(result) for result in results], "summaries": summaries}
    put(path, json.dumps(found, indent=1) + "\n")
