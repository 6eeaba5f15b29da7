# SPDX-License-Identifier: Apache-2.0
"""The plan cache, threads, signals and memory; the command; stubs and docstrings."""

import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import unittest

import fastattn
import numpy as np
from test_values import problem

try:
    import torch
except ImportError:
    torch = None


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Process(unittest.TestCase):
    def test_plan_cache(self):
        q, k, v = problem()
        before = fastattn.plan_cache_info()
        for scale in (0.71, 0.72, 0.71, 0.72):
            fastattn.attention(q, k, v, scale=scale)
        after = fastattn.plan_cache_info()
        self.assertEqual((after["hits"] - before["hits"], after["misses"] - before["misses"]), (2, 2))
        # Lists count by their contents.
        lens = np.array([3, 4])
        for change in (0, 0, 1):
            lens[0] += change
            fastattn.attention(q, k, v, lens_kv=lens, scale=0.73)
        self.assertEqual(fastattn.plan_cache_info()["misses"] - after["misses"], 2)
        fastattn.plan_cache_resize(3)
        self.assertEqual(fastattn.plan_cache_info()["currsize"], 3)
        for scale in (0.1, 0.2, 0.3, 0.1, 0.4, 0.1):  # 0.1 stays: it is used again
            fastattn.attention(q, k, v, scale=scale)
        misses = fastattn.plan_cache_info()["misses"]
        fastattn.attention(q, k, v, scale=0.1)
        self.assertEqual(fastattn.plan_cache_info()["misses"], misses)
        fastattn.attention(q, k, v, scale=0.2)
        self.assertEqual(fastattn.plan_cache_info()["misses"], misses + 1)
        fastattn.plan_cache_resize(0)
        fastattn.attention(q, k, v)
        self.assertEqual(fastattn.plan_cache_info()["currsize"], 0)
        for wrong, kind in ((-1, ValueError), ("x", TypeError)):
            with self.assertRaises(kind):
                fastattn.plan_cache_resize(wrong)
        fastattn.plan_cache_resize(256)

    def test_threads(self):
        q, k, v = problem(rows=40, keys=50)
        fastattn.plan_cache_resize(2)  # so that plans go while others run them
        cases = [({"scale": s, "return_lse": True}, fastattn.attention(q, k, v, scale=s)) for s in (0.1, 0.2, 0.3, 0.4)]
        plan = fastattn.Plan(q, k, v, mask="causal")
        want = plan.run(q, k, v)
        wrong = []
        def work(seed):
            order = np.random.default_rng(seed)
            for _ in range(150):
                arguments, expected = cases[order.integers(4)]
                if not np.array_equal(fastattn.attention(q, k, v, **arguments)[0], expected):
                    wrong.append(arguments)
                if not np.array_equal(plan.run(q, k, v), want):
                    wrong.append("plan")
        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        fastattn.plan_cache_resize(256)
        self.assertEqual(wrong, [])

    def test_others_run_meanwhile(self):
        q = np.ones((1, 8, 1024, 128), np.float32)
        fastattn.attention(q, q, q)
        ticks, done = [0], threading.Event()
        def count():
            while not done.is_set():
                ticks[0] += 1
                time.sleep(0.0005)
        counter = threading.Thread(target=count)
        counter.start()
        time.sleep(0.01)
        before = ticks[0]
        fastattn.attention(q, q, q)
        during = ticks[0] - before
        done.set()
        counter.join()
        self.assertGreater(during, 0)

    def test_interrupt(self):
        code = ("import fastattn, numpy as np\nq = np.ones((1, 2, 64, 64), np.float32)\nprint('ready', flush=True)\n"
                "try:\n    while True: fastattn.attention(q, q, q)\nexcept KeyboardInterrupt:\n    print('stopped')\n")
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                                 env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        self.assertEqual(child.stdout.readline(), "ready\n")
        time.sleep(0.2)
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.communicate(timeout=60)[0], "stopped\n")
        self.assertEqual(child.returncode, 0)

    @unittest.skipUnless(hasattr(os, "fork"), "nothing forks here")
    def test_fork(self):
        q, k, v = problem()
        want = fastattn.attention(q, k, v)
        drivers = [str(d) for d in fastattn.devices() if d.available and d.backend in ("cuda", "opencl", "vulkan")]
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            right = False
            try:
                right = np.array_equal(fastattn.attention(q, k, v), want)
                for device in drivers:
                    try:
                        fastattn.attention(q, k, v, device=device)
                        right = False
                    except (fastattn.NoDeviceError, fastattn.DeviceLostError) as error:
                        right &= "after fork()" in str(error)
            finally:
                os._exit(not right)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_leaks(self):
        q, k, v = problem()
        kinds = [(q, k, v)]
        if torch is not None:
            kinds.append(tuple(map(torch.from_numpy, (q, k, v))))
        big = np.zeros((4, 8, 256, 64), np.float32)
        keep = np.ones((9, 13), bool)
        lens = [5, 13]
        def once(three):
            fastattn.attention(*three, mask="causal", return_lse=True, attn_mask=keep, lens_kv=lens)
            fastattn.Plan(*three, dynamic_lengths=True).run(*three, lens_kv=lens)
            fastattn.merge(*[[x, x] for x in fastattn.attention(*three, return_lse=True)])
            fastattn.attention(big, big[:1], big[:1], page_table=np.zeros((4, 1), np.int32))
            for wrong in ({"lens_kv": [1]}, {"device": "tpu"}, {"attn_mask": 3}, {"mask": "x"}, {"out": three[0]}):
                try:
                    fastattn.attention(*three, **wrong)
                except (fastattn.Error, TypeError):
                    pass
            cache = fastattn.Cache(2, 2, 16, max_length=20, page_size=4)
            cache.append(three[1], three[2])
            cache.attend(three[0])
        for three in kinds:
            for _ in range(30):
                once(three)
            gc.collect()
            counts, memory = [sys.getrefcount(x) for x in (*three, keep, lens, None)], resident()
            for _ in range(150):
                once(three)
            gc.collect()
            for before, now in zip(counts[:-1], [sys.getrefcount(x) for x in (*three, keep, lens)]):
                self.assertEqual(before, now)
            self.assertLess(abs(sys.getrefcount(None) - counts[-1]), 100)
            # 150 rounds make 150 results of 2 MiB and more.
            self.assertLess(resident() - memory, 32 << 20)

    def test_documented(self):
        for name in fastattn.__all__:
            if name != "__version__":
                self.assertTrue(getattr(fastattn, name).__doc__, name)
        for function in (fastattn.attention, fastattn.supports, fastattn.Plan, fastattn.Plan.run):
            inspect.signature(function)
        self.assertIn("mask", inspect.signature(fastattn.attention).parameters)

    def test_command(self):
        done = subprocess.run([sys.executable, "-m", "fastattn", "--version"], capture_output=True, text=True,
                              env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
        if done.returncode == 2:
            self.assertIn("built without the command", done.stderr)
        else:
            self.assertEqual(done.returncode, 0)
            self.assertIn(fastattn.__version__, done.stdout)


if __name__ == "__main__":
    unittest.main()
