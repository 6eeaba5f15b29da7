#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn bench`, whose path is in FASTATTN_COMMAND. What it measures is not judged."""

import json
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import Case, ComputingCase, address_space, call, devices  # noqa: E402

SUITES = ("quick", "prefill", "decode", "blocks", "dims", "tiny", "overhead", "gpu")


class Usage(Case):
    def test_suites_are_listed(self):
        self.expect(0, "bench", "--help", mentions=[f"  {name} " for name in SUITES])
        self.usage("bench", "--suite", "all", mentions=("'all'", ", ".join(SUITES[:-1]), SUITES[-1]))

    def test_options(self):
        shape = ("bench", "--shape", "B1,H1,S16,D16")
        self.usage(*shape, "--suite", "quick", mentions=("--shape", "--suite"))
        self.usage("bench", "--causal", mentions=("--causal", "--shape"))
        for name in ("block-q", "block-kv", "splits"):
            self.usage(*shape, f"--{name}=-1", mentions=(f"--{name} is -1",))
            self.usage(*shape, f"--{name}", "4294967296", mentions=(f"--{name} is 4294967296",))
            self.usage(*shape, f"--{name}", "x", mentions=(f"--{name} is 'x'",))
            self.usage("bench", "--suite", "tiny", f"--{name}=-1", mentions=(f"--{name} is -1",))
        self.usage("bench", "--suite", "blocks", "--block-kv", "64", mentions=("--block-kv", "blocks"))
        self.usage(*shape, "--min-time", "0", mentions=("--min-time is 0",))

    def test_what_cannot_be_drawn(self):
        plot = self.path("x.svg")
        self.usage("bench", "--suite", "overhead", "--plot", plot, mentions=("--plot", "overhead"))
        self.assertFalse(plot.exists())


class Bench(ComputingCase):
    def bench(self, *arguments, env=None):
        file = self.path("results.json")
        done = self.expect(0, "bench", *arguments, "--min-time", "0.001", "--json", file, env=env)
        return done.stdout, json.loads(file.read_text(encoding="utf-8"))

    def test_overhead(self):
        text, results = self.bench("--suite", "overhead")
        self.assertEqual([result["call"] for result in results], ["run", "host"])
        for result in results:
            self.assertEqual((result["len_q"], result["dim"], result["dtype"]), (1, 1, "f32"))
            self.assertGreater(result["ms_median"], 0)
            self.assertIn(result["clock"], ("wall", "device"))
            self.assertGreater(result["ms_wall"], 0)
        self.assertIsNone(results[1]["ratio_standard"])
        rows = text.splitlines()[-2:]
        for row, call in zip(rows, ("run", "host")):
            self.assertEqual(row.split()[:4], ["f32", "B1,H1,S1,D1", "full", call])

    def test_blocks_are_taken_and_drawn(self):
        plot = self.path("x.svg")
        blocks = ("--block-q", "32", "--block-kv", "64", "--splits", "2", "--plot", plot)
        text, results = self.bench("--shape", "B1,H2,S64,D16,SK256", "--causal", *blocks)
        self.assertEqual([results[0][name] for name in ("block_q", "block_kv", "splits")], [32, 64, 2])
        self.assertEqual(text.splitlines()[-1].split()[5], "32x64/2")
        self.assertTrue(plot.read_text(encoding="utf-8").startswith("<svg "))

    def test_what_a_case_needs_is_compared_with_memory(self):
        limit = address_space(1536 << 20)
        if not limit or not any(device["backend"] == "openmp" for device in devices()):
            self.skipTest("addresses cannot be limited, or built without the openmp backend")
        env = {"FASTATTN_THREADS": "1", "OMP_NUM_THREADS": "1"}
        arguments = ("bench", "--backend", "openmp", "--shape", "B1,H1,S1,D64,SK4194304", "--min-time", "0.001")
        done = call(*arguments, env=env, preexec_fn=limit)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(
            done.stdout, r"not served: data: needs about 40\d\d\.\d MiB, and \d+\.\d MiB are available \(RLIMIT_AS\)"
        )

    def test_ceilings(self):
        """Those of the instruction set that is left are the only ones."""
        env = {"FASTATTN_ISA": "scalar", "FASTATTN_THREADS": "1"}
        text, results = self.bench("--suite", "tiny", "--dtype", "bf16", "--backend", "openmp", env=env)
        self.assertIn("f32 multiply-adds (scalar)", text)
        self.assertNotIn("bf16 dot products", text)
        self.assertEqual(len(results), 12)
        for result in results:
            self.assertTrue(result["kernel"].startswith("scalar-"), result["kernel"])
            self.assertEqual((result["peak_isa"], result["peak_bf16_tflops"]), ("scalar", {}))
            self.assertEqual(result["peak_tflops"], result["peak_f32_tflops"])
            self.assertTrue(result["block_q"] > 0 and result["block_kv"] > 0)


if __name__ == "__main__":
    unittest.main()
