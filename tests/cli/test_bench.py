#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn bench`, whose path is in FASTATTN_COMMAND. What it measures is not judged."""

import json
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import Case, ComputingCase, address_space, call, devices, serves_pages  # noqa: E402

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

    def test_kv_types(self):
        shape = ("bench", "--shape", "B1,H1,S16,D32")
        self.usage(*shape, "--kv-type", "q9", mentions=("--kv-type is 'q9'", "q8_0", "iq4_nl"))
        self.usage(*shape, "--kv-type", "q8_0,", mentions=("--kv-type is ''",))
        self.usage(*shape, "--kv-type", "u4", mentions=("--kv-type is u4, expected its scales",))
        self.usage(*shape, "--kv-type", "q8_0,f64", mentions=("--kv-type is 'f64'",))
        for scaling in ("group", "group0", "tokens", "token4", ""):
            self.usage(*shape, "--kv-type", f"i8:{scaling}", mentions=(f"'i8:{scaling}'", "channelN"))
        self.usage(*shape, "--kv-type", "u1", mentions=("--kv-type is u1, expected its scales",))
        self.usage(*shape, "--kv-type", "u2u1", mentions=("--kv-type is u2u1, expected its scales",))
        self.usage(*shape, "--kv-type", "bitmap_f16", mentions=("--kv-type is 'bitmap_f16', expected a part",))
        for kept in ("0", "0.0", "1.5", "-1", "577", "half", "1e1", ""):
            self.usage(*shape, "--kv-type", f"f32,bitmap_f16:{kept}", mentions=(f"'bitmap_f16:{kept}'", "0.5"))

    def test_pages(self):
        shape = ("bench", "--shape", "B1,H1,S16,D16")
        self.usage(*shape, "--page=-1", mentions=("--page is -1",))
        self.usage("bench", "--suite", "tiny", "--page", "4294967296", mentions=("--page is 4294967296",))
        self.usage(*shape, "--page", "16", "--scatter=-2", mentions=("--scatter is -2",))
        self.usage(*shape, "--scatter", "7", mentions=("--scatter is 7", "--page"))

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
        self.assertEqual(text.splitlines()[-1].split()[7], "32x64/2")
        self.assertTrue(plot.read_text(encoding="utf-8").startswith("<svg "))

    def test_pages(self):
        if not serves_pages():
            self.skipTest("no device that computes with pages")
        case = ("--shape", "B2,H4,S3,D16,HK2,SK37", "--causal", "--page", "8")
        for more, seed in (((), None), (("--scatter", "7"), 7)):
            text, results = self.bench(*case, *more)
            self.assertEqual([results[0][name] for name in ("len_kv", "page", "scatter")], [37, 8, seed])
            self.assertEqual(text.splitlines()[-1 - text.count("no ratio")].split()[4:6], ["8", str(seed or "-")])
        plain = self.bench("--shape", "B1,H1,S1,D1")[1][0]
        self.assertEqual([plain[name] for name in ("page", "scatter")], [None, None])

    def test_kv_types_are_timed(self):
        case = ("--shape", "B1,H4,S1,D64,HK2,SK50", "--dtype", "f16", "--kv-type", "q8_0,q4_0", "--no-standard")
        if call("plan", *case[:6], "--backend", "auto").returncode != 0:
            self.skipTest("no device that computes with formats of caches")
        text, results = self.bench(*case)
        self.assertEqual([results[0][name] for name in ("dtype", "dtype_k", "dtype_v")], ["f16", "q8_0", "q4_0"])
        self.assertEqual(text.splitlines()[-1].split()[0], "f16:q8_0,q4_0")

    def test_scales_are_timed(self):
        for kv, each in (("i8:token,u4:group32", ("i8:token", "u4:group32")), ("u2:channel25", ("u2:channel25",) * 2),
                         ("e4m3:head,e2m1:group16", ("e4m3:head", "e2m1:group16")), ("i8:tensor", ("i8:tensor",) * 2),
                         ("u2u1:channel25,u1:token", ("u2u1:channel25", "u1:token")),
                         ("bitmap_f16:0.5,q8_0", ("bitmap_f16:0.5", "q8_0")), ("bitmap_f16:64", ("bitmap_f16:64",) * 2),
                         ("i2:head,bitmap_f16:1.0", ("i2:head", "bitmap_f16:1.0"))):
            case = ("--shape", "B2,H4,S1,D64,HK2,SK50", "--dtype", "f16", "--kv-type", kv)
            if call("plan", *case, "--backend", "openmp").returncode != 0:
                self.skipTest("no openmp")
            results = self.bench(*case, "--no-standard", "--no-peak", "--backend", "openmp")[1]
            self.assertEqual([results[0][name] for name in ("dtype_k", "dtype_v")], list(each))
            self.assertEqual([results[0][name] for name in ("peak_gbps", "peak_fraction")], [None, None])

    def test_rows_that_keep_a_part_are_that_long(self):
        """8 bytes of bitmap and 16 halves: a row of k has 40 bytes instead of 256."""
        case = ("--shape", "B1,H1,S1,D64,SK5000", "--no-standard", "--backend", "openmp")
        if call("plan", *case[:2], "--kv-type", "bitmap_f16:0.25", *case[3:]).returncode != 0:
            self.skipTest("no openmp")
        result = self.bench(*case, "--kv-type", "bitmap_f16:0.25,f32")[1][0]
        bytes = 4 * 2 * 64 + 5000 * (8 + 2 * 16 + 4 * 64)
        self.assertAlmostEqual(result["gbps"] * result["ms_median"] * 1e6 / bytes, 1, 4)
        # So many rows that some of them are checked, of some heads.
        self.bench("--shape", "B2,H4,S64,D64,HK2,SK2000", *case[2:], "--kv-type", "bitmap_f16:0.3")

    def test_pages_and_gigabytes(self):
        """q, k, v and o once, without what is left of a last page, and the table."""
        if not serves_pages():
            self.skipTest("no device that computes with pages")
        result = self.bench("--shape", "B2,H4,S3,D16,HK2,SK37", "--page", "8", "--no-standard")[1][0]
        bytes = 4 * 2 * 16 * (2 * 4 * 3 + 2 * 2 * 37) + 4 * 2 * 5
        self.assertAlmostEqual(result["gbps"] * result["ms_median"] * 1e6 / bytes, 1, 4)

    def test_suite_with_pages(self):
        if not serves_pages():
            self.skipTest("no device that computes with pages")
        text, results = self.bench("--suite", "overhead", "--page", "4", "--no-standard")
        self.assertEqual([result["ms_median"] is None for result in results], [False, True])
        self.assertIn("not served: fa_attention_host: it takes no page table", text)

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
