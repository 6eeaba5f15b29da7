# SPDX-License-Identifier: Apache-2.0
"""What a call of Python costs beside the same call of C: medians in microseconds, for a problem of one key.

The call of C is fa_plan_run_host() of a plan that exists. What stands beside it is attention() with all that belongs to
it: reading arrays, finding the plan, making the result. All include the two readings of the clock.
"""

import statistics
import time

import fastattn
import numpy as np


def median(call, rounds=20000):
    times = []
    for _ in range(rounds // 10):
        call()
    for _ in range(rounds):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def main():
    q = np.ones((1, 1, 1, 64), np.float32)
    out = np.empty_like(q)
    cases = {"numpy": lambda: fastattn.attention(q, q, q), "numpy, out": lambda: fastattn.attention(q, q, q, out=out)}
    try:
        import torch

        t, t_out = torch.from_numpy(q), torch.empty(q.shape)
        cases |= {"torch": lambda: fastattn.attention(t, t, t), "torch, out": lambda: fastattn.attention(t, t, t, out=t_out),
                  "torch's own": lambda: torch.nn.functional.scaled_dot_product_attention(t, t, t)}
    except ImportError:
        pass
    nothing = median(lambda: None)
    c = statistics.median([time for _ in range(20) for time in fastattn._core.time_runs(q, q, q)]) / 1000
    print(f"C, fa_plan_run_host  {c:6.2f} us")
    for name, call in cases.items():
        whole = median(call) - nothing
        print(f"{name:19}  {whole:6.2f} us, {whole - c:6.2f} more")


if __name__ == "__main__":
    main()
