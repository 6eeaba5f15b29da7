#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the `fastattn` command, whose path is in FASTATTN_COMMAND; those of `run` and `bench` are apart."""

import json
import os
import re
import sys
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import DATA, Case, call, can_run, devices  # noqa: E402

COMMANDS = ("devices", "run", "plan", "conform", "bench", "cooperate")


class Frame(Case):
    def test_help(self):
        self.expect(0, "--help", mentions=("Usage: fastattn", *COMMANDS, "Exit codes"))

    def test_version(self):
        self.assertRegex(self.expect(0, "--version").stdout, r"^fastattn \d+\.\d+\.\d+\n$")

    def test_without_command(self):
        done = call()
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertIn("Usage: fastattn", done.stderr)

    def test_unknown_command(self):
        self.usage("rnu", mentions=("'rnu'", *COMMANDS))
        self.usage("--check", mentions=("'--check'",))

    def test_help_of_each_command(self):
        for command in COMMANDS:
            with self.subTest(command):
                self.expect(
                    0,
                    command,
                    "--help",
                    mentions=(f"Usage: fastattn {command}", "Examples:", "Options:", "--help", "Exit codes:"),
                )

    def test_usage_errors_of_each_command(self):
        for command in COMMANDS:
            with self.subTest(command):
                self.usage(command, "--no-such-option", mentions=(command, "--no-such-option"))
                self.usage(command, "stray", mentions=("'stray'",))

    def test_full_standard_output(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full here")
        for arguments in (["--help"], ["--version"], ["devices"], ["devices", "--json"], ["plan", "--help"]):
            with self.subTest(arguments), open("/dev/full", "w", encoding="utf-8") as full:
                done = call(*arguments, stdout=full)
                self.assertEqual(done.returncode, 1, arguments)
                self.assertIn("standard output", done.stderr)


class Devices(Case):
    def test_table_and_json_agree(self):
        table = self.expect(0, "devices").stdout
        listed = devices()
        self.assertTrue(listed)
        for device in listed:
            self.assertIn(f"{device['backend']}:{device['index']}", table)
            self.assertIn(device["name"], table)
            self.assertEqual(device["available"], device["reason"] == "")
            self.assertIn(device["reason"], table)
            self.assertEqual(device["available"], bool(device["kernels"]))
            for kernel in device["kernels"]:
                self.assertIn(kernel, table)

    def test_every_backend_is_listed(self):
        """Also those that were left out of this build, with what they lacked."""
        self.assertEqual(
            {device["backend"] for device in devices()}, {"openmp", "cuda", "opencl", "vulkan", "null"}
        )


class Backends(Case):
    """Names that do not exist, for each command that takes one."""

    ARGUMENTS = {
        "plan": ["--shape", "B1,H1,S16,D16"],
        "run": [*(x for name in "qkv" for x in (f"--{name}", DATA / f"{name}.npy")), "--check"],
        "conform": [],
        "bench": ["--shape", "B1,H1,S16,D16"],
    }

    def test_unknown_backend_lists_what_exists(self):
        names = {device["backend"] for device in devices()}
        for command, arguments in self.ARGUMENTS.items():
            with self.subTest(command):
                self.failure(command, *arguments, "--backend", "no-such", mentions=("no-such", *names))

    def test_missing_device(self):
        first = devices()[0]["backend"]
        for command, arguments in self.ARGUMENTS.items():
            with self.subTest(command):
                self.failure(command, *arguments, "--backend", f"{first}:99", mentions=(f"{first}:99",))

    def test_environment(self):
        self.expect(
            1, "plan", *self.ARGUMENTS["plan"], env={"FASTATTN_BACKEND": "no-such"}, mentions=("no-such",)
        )

    def test_unknown_kernel(self):
        for command in ("plan", "run"):
            with self.subTest(command):
                arguments = [command, *self.ARGUMENTS[command], "--kernel", "no-such-kernel"]
                self.failure(*arguments, mentions=("no-such-kernel",))


class Conform(Case):
    def names(self, *arguments):
        listed = self.expect(0, "conform", "--backend", "openmp", "--list", "--filter", "*-tile:*", *arguments)
        return [line.split(":", 1)[1] for line in listed.stdout.splitlines()]

    def setUp(self):
        super().setUp()
        if not can_run("openmp"):
            self.skipTest("openmp cannot run here")

    def test_caches_are_named(self):
        plain = set(self.names())
        for arguments, end in (
            (("--kv-type", "q8_0"), "/kv-type=q8_0"),
            (("--kv-type", "q8_0,i8:token", "--page", "16"), "/kv-type=q8_0,i8:token/page=16"),
            (("--page", "16", "--scatter", "3"), "/page=16/scatter=3"),
        ):
            with self.subTest(arguments):
                names = self.names(*arguments)
                self.assertGreater(len(names), 100)
                for name in names:
                    self.assertTrue(name.endswith(end), name)
                    self.assertIn(name.removesuffix(end), plain)

    def test_cases_that_cannot_have_it_are_dropped(self):
        names = self.names("--kv-type", "q8_0")
        self.assertTrue(any("/d64" in name for name in names))
        self.assertFalse(any("/d40" in name or "packed-qkv" in name or "nan-k" in name for name in names))
        self.assertFalse(any(name.startswith("pages") for name in self.names("--page", "16")))
        self.assertFalse(any("seq-both" in name for name in self.names("--page", "16")))

    def test_caches_run(self):
        for arguments in (
            ("--kv-type", "q8_0,q4_0"),
            ("--kv-type", "i8:token,u4:group32", "--page", "16"),
            ("--kv-type", "u2:channel8,e4m3:head", "--page", "24", "--scatter", "3"),
            ("--kv-type", "u2u1:channel8,u1:token", "--page", "16"),
            ("--kv-type", "bitmap_f16:0.5,bitmap_f16:24"),
            ("--page", "5"),
        ):
            with self.subTest(arguments):
                done = self.expect(
                    0, "conform", "--backend", "openmp", "--filter", "*-tile:lengths-causal-br/*", *arguments
                )
                self.assertRegex(done.stdout, r"\n[1-9]\d* passed, 0 failed, ")

    def test_caches_that_are_refused(self):
        self.usage("conform", "--kv-type", "q9", mentions=("--kv-type is 'q9'",))
        for rows in ("fp8_ds_mla", "q8_0,fp8_ds_mla:token"):
            self.usage("conform", "--kv-type", rows, mentions=("--kv-type is fp8_ds_mla", "latent-row"))
        self.usage("conform", "--kv-type", "i8", mentions=("--kv-type is i8", "channelN"))
        self.usage("conform", "--kv-type", "f16,q8_0:head", mentions=("--kv-type is q8_0 with scales",))
        self.usage("conform", "--scatter", "3", mentions=("--scatter is 3", "--page"))
        self.usage("conform", "--page=-1", mentions=("--page is -1",))
        self.usage("conform", "--kv-type", "bitmap_f16", mentions=("--kv-type is 'bitmap_f16', expected a part",))
        # A group of 7 keys in pages of 16.
        arguments = ("conform", "--backend", "null", "--kv-type", "i8:channel7", "--page", "16")
        self.usage(*arguments, mentions=("no case that can have --kv-type i8:channel7 --page 16",))


class Plan(Case):
    def plan(self, *arguments):
        return json.loads(self.expect(0, "plan", *arguments, "--json").stdout)

    def test_text(self):
        done = self.expect(
            0,
            "plan",
            "--shape",
            "B2,H8,S512,D64,HK2",
            "--causal=bottom-right",
            mentions=("B2,H8,S512,D64,HK2", "level 1", "level 2", "work list", "compulsory", "lower bound"),
        )
        for mark in "·/█":
            self.assertIn(mark, done.stdout)

    def test_json(self):
        plan = self.plan("--shape", "B2,H8,S512,D64,HK2", "--dtype", "f16", "--causal", "bottom-right")
        self.assertEqual((plan["sequences"], plan["heads_kv"]), (2, 2))
        self.assertEqual(plan["pairs"], 2 * 8 * 512 * 513 // 2)
        self.assertEqual(plan["flops"], plan["pairs"] * 4 * 64)
        self.assertEqual(plan["bytes_compulsory"], 2 * 2 * 512 * 64 * (8 + 8 + 2 + 2))
        for field in ("block_q", "block_kv", "tile_q", "tile_kv", "tile_d", "splits", "items", "syncs"):
            self.assertGreater(plan[field], 0, field)

    def check_cells(self, plan, rows, keys, sees):
        """The picture against every pair of a row and a key."""
        tiles, group = plan["tiles"], plan["group"]
        block_q, block_kv = plan["block_q"], plan["block_kv"]
        self.assertEqual(tiles["rows"], -(-rows * group // block_q))
        self.assertEqual(tiles["columns"], -(-keys // block_kv))
        marks = []
        for r in range(tiles["rows"]):
            line = ""
            for c in range(tiles["columns"]):
                packed = range(r * block_q, min((r + 1) * block_q, rows * group))
                columns = range(c * block_kv, min((c + 1) * block_kv, keys))
                seen = {sees(i // group, j) for i in packed for j in columns}
                line += "/" if len(seen) == 2 else "█" if True in seen else "·"
            marks.append(line)
        self.assertEqual(tiles["cells"], marks)

    def test_picture(self):
        blocks = ("--block-q", "32", "--block-kv", "32")
        plan = self.plan("--shape", "B1,H2,S200,D32,SK333,HK1", "--causal", "bottom-right", *blocks)
        self.check_cells(plan, 200, 333, lambda i, j: j <= i + 133)
        plan = self.plan("--shape", "B1,H1,S200,D32,SK333", "--causal", "top-left", "--prefix", "70", *blocks)
        self.check_cells(plan, 200, 333, lambda i, j: j <= i or j < 70)
        windows = ("--window-left", "80", "--window-right", "40", *blocks)
        plan = self.plan("--shape", "B1,H1,S300,D32", *windows)
        self.check_cells(plan, 300, 300, lambda i, j: i - 80 < j < i + 40)
        plan = self.plan("--shape", "B1,H1,S200,D32,SK333", "--align", "top-left", *windows)
        self.check_cells(plan, 200, 333, lambda i, j: i - 80 < j < i + 40)

    def test_scaled_picture(self):
        shape = ("--shape", "B1,H1,S4096,D32", "--causal=bottom-right", "--block-q=16", "--block-kv=16")
        tiles = self.plan(*shape)["tiles"]
        self.assertEqual((len(tiles["cells"]), len(tiles["cells"][0])), (32, 64))
        self.assertGreater(tiles["rows"], 32)
        for row, line in enumerate(tiles["cells"]):
            self.assertEqual(line, "█" * 2 * row + "//" + "·" * (62 - 2 * row))
        text = self.expect(0, "plan", *shape, mentions=("several blocks", "3968  ")).stdout
        self.assertEqual(text.splitlines()[-1].split()[-1], tiles["cells"][-1])

    def svg_areas(self, *arguments):
        """The area that each class of tiles has in the picture, in parts of the square of both axes."""
        self.expect(0, "plan", *arguments, "--svg", self.path("tiles.svg"))
        colours = {"#ffffff": "skip", "#fb8f44": "partial", "#54aeff": "full"}
        areas = dict.fromkeys(colours.values(), 0.0)
        for path in ElementTree.parse(self.path("tiles.svg")).iter("{http://www.w3.org/2000/svg}path"):
            for width, height in re.findall(r"h([\d.]+)v([\d.]+)h-", path.get("d")):
                areas[colours[path.get("fill")]] += float(width) * float(height) / 380**2
        return areas

    def test_svg(self):
        shape = ("--shape", "B1,H1,S256,D32", "--causal", "top-left", "--block-q", "32", "--block-kv", "32")
        areas = self.svg_areas(*shape)
        for tile, cells in (("full", 28), ("partial", 8), ("skip", 28)):
            self.assertAlmostEqual(areas[tile], cells / 64, delta=1e-3)
        areas = self.svg_areas(*shape, "--packed", "64,0,128,64")
        for tile, cells in (("full", 8), ("partial", 8), ("skip", 8)):
            self.assertAlmostEqual(areas[tile], cells / 64, delta=1e-3)
        # Heads that are packed into a block's rows; fewer rows than keys.
        grouped = ("--shape", "B1,H4,S64,D32,HK1,SK256", "--block-q", "32", "--block-kv", "32")
        self.assertAlmostEqual(sum(self.svg_areas(*grouped).values()), 0.25, delta=1e-3)
        self.usage("plan", *shape, "--packed", "64,,64", mentions=("--packed is '64,,64'",))
        self.usage("plan", *shape, "--packed", "64", "--page", "16", mentions=("--packed", "--page"))
        self.usage("plan", *shape, "--svg", "-", "--threads", "2", mentions=("--svg", "--threads"))
        self.failure("plan", *shape, "--packed", "64,256", mentions=("cu_rows_q[2] is 320",))

    def test_long_sequences_are_sampled(self):
        shape = ("--shape", "B1,H1,S16,D16,SK1048576", "--block-kv", "16")
        self.expect(0, "plan", *shape, mentions=("some of them were looked at", "█" * 64))

    def test_splits(self):
        self.assertEqual(self.plan("--shape", "B1,H1,S1,D64,SK4096", "--splits", "4")["splits"], 4)

    def test_pages(self):
        """Blocks do not depend on pages; the last page is not full."""
        if not can_run("null"):
            self.skipTest("built without the null backend")
        shape = ("--shape", "B3,H8,S40,D32,HK2,SK100", "--causal", "bottom-right", "--backend", "null")
        plain, paged = self.plan(*shape), self.plan(*shape, "--page", "16")
        for field in ("sequences", "blocks_full", "blocks_partial", "pairs", "flops", "tiles"):
            self.assertEqual(paged[field], plain[field], field)
        self.assertEqual(self.plan(*shape, "--page", "16", "--scatter", "7"), paged)
        self.assertEqual(self.plan(*shape, "--page", "0"), plain)
        self.expect(0, "plan", *shape, "--page", "16", mentions=("SK100 f32, pages of 16 keys on null",))
        cached = (*shape, "--kv-type", "i8:token,f16", "--page", "16")
        self.expect(0, "plan", *cached, mentions=("SK100 f32:i8:token,f16, pages of 16 keys on null",))
        few = (*shape, "--kv-type", "u2u1:channel16,u1:head", "--page", "16")
        self.expect(0, "plan", *few, mentions=("SK100 f32:u2u1:channel16,u1:head, pages",))

    def test_rows_that_keep_a_part(self):
        shape = ("--shape", "B1,H2,S1,D64", "--kv-type")
        if call("plan", *shape, "bitmap_f16:0.5", "--backend", "openmp").returncode != 0:
            self.skipTest("no openmp")
        openmp = ("--backend", "openmp")
        self.expect(0, "plan", *shape, "bitmap_f16:0.5,bitmap_f16:8", *openmp,
                    mentions=("f32:bitmap_f16:0.5,bitmap_f16:8 on openmp",))
        for kept, same in (("32", "0.5"), ("64", "1.0"), ("1", "0.001")):
            plans = [self.plan(*shape, f"bitmap_f16:{x}", *openmp) for x in (kept, same)]
            for plan in plans:
                del plan["problem"]
            self.assertEqual(*plans)
        self.usage("plan", *shape, "bitmap_f16:65", mentions=("bitmap_f16:65, expected at most 64 elements",))
        self.usage("plan", *shape, "bitmap_f16:0.5", "--v-in-k", mentions=("expected another with --v-in-k",))

    def test_pages_that_are_refused(self):
        good = ("plan", "--shape", "B1,H1,S16,D16")
        self.usage(*good, "--page=-1", mentions=("--page is -1",))
        self.usage(*good, "--scatter", "7", mentions=("--scatter is 7", "--page"))
        self.usage(*good, "--page", "4", "--scatter=-2", mentions=("--scatter is -2",))
        many = ("plan", "--shape", "B30,H1,S1,D16,SK9000000000000000000", "--page", "1")
        self.failure(*many, mentions=("k.shape", "more elements"))

    def threads(self, *arguments, env=None):
        return json.loads(self.expect(0, "plan", *arguments, "--json", env=env).stdout)["schedules"]

    def test_threads(self):
        if not can_run("openmp"):
            self.skipTest("built without the openmp backend")
        shape = ("--backend", "openmp", "--shape", "B1,H8,S1024,D64")
        lines = self.threads(*shape, "--threads", "1,2,8-10,64", env={"FASTATTN_THREADS": "no number"})
        self.assertEqual([line["threads"] for line in lines], [1, 2, 8, 9, 10, 64])
        self.assertEqual(lines[0]["speedup"], 1)
        for line in lines:
            self.assertTrue(1 <= line["workers"] <= min(line["threads"], line["items"]), line)
            self.assertTrue(1 <= line["speedup"] <= 1.5 * line["threads"], line)
            self.assertGreaterEqual(line["imbalance"], 1)
            self.assertAlmostEqual(line["speedup"] * line["seconds"], lines[0]["seconds"])
        text = self.expect(0, "plan", *shape, "--threads", "3,5", mentions=("imbalance", "speed-up")).stdout
        self.assertEqual([line.split()[0] for line in text.splitlines()[-2:]], ["3", "5"])
        one = self.threads("--backend", "openmp", "--shape", "B1,H1,S4,D16", "--threads", "64")
        self.assertEqual((one[0]["workers"], one[0]["imbalance"]), (1, 1))
        self.assertEqual(
            self.plan(*shape, "--block-q", "64")["items"],
            self.threads(*shape, "--block-q", "64", "--threads", "1")[0]["items"],
        )

    def schemes(self, *arguments):
        found = json.loads(self.expect(0, "plan", *arguments, "--json").stdout)["schemes"]
        return {scheme["scheme"]: scheme for scheme in found}

    def test_ranks(self):
        if not can_run("openmp"):
            self.skipTest("built without the openmp backend")
        step = ("--backend", "openmp", "--shape", "B1,H32,S1,D64,HK8,SK262144")
        found = self.schemes(*step, "--ranks", "1,2-1024", "--link", "1,100")
        self.assertEqual(sorted(found), ["context", "heads"])
        self.assertEqual([line["ranks"] for line in found["context"]["ranks"]], [2**n for n in range(11)])
        self.assertEqual([line["ranks"] for line in found["heads"]["ranks"]], [1, 2, 4, 8, 16, 32])
        for scheme in found.values():
            self.assertEqual((scheme["ranks"][0]["speedup"], scheme["ranks"][0]["link"]), (1, 0))
            for line in scheme["ranks"]:
                self.assertAlmostEqual(line["speedup"] * line["seconds"], scheme["ranks"][0]["seconds"])
        self.assertGreater(found["context"]["ranks"][1]["speedup"], 1.5)
        # Over a link that takes a second, nothing scales, and that is why.
        slow = self.schemes(*step, "--ranks", "2", "--link", "1e6,100")
        self.assertEqual([slow[name]["scales_to"] for name in ("heads", "context")], [1, 1])
        self.assertEqual((slow["heads"]["why"], slow["context"]["why"]), ("latency of sums", "latency of gathers"))
        # A prompt goes round a ring, here one that sends a byte a microsecond.
        prompt = ("--backend", "openmp", "--shape", "B1,H8,S4096,D64", "--causal", "bottom-right", "--ranks", "3,5")
        ring = self.schemes(*prompt, "--link", "0,1e-3")["ring"]
        self.assertEqual([line["chunks"] for line in ring["ranks"]], [3, 5])
        self.assertEqual(ring["why"], "blocks travel for longer than they are computed with")
        text = self.expect(0, "plan", *prompt, "--width", "64", mentions=("width 64", "10 us and 50 GB/s")).stdout
        self.assertEqual(sum(line.startswith("scales to ") for line in text.splitlines()), 2)

    def test_bad_ranks(self):
        shape = ("plan", "--shape", "B1,H1,S16,D16")
        for text in ("0", "2-", "1025", "a"):
            self.usage(*shape, f"--ranks={text}", mentions=("--ranks", f"part '{text}'"))
        for text in ("5", "5,", ",5", "-1,5", "5,0", "5,-1", "5,6,7", "nan,1", "5,inf", "1us,2"):
            self.usage(*shape, "--ranks", "2", f"--link={text}", mentions=("--link is", "microseconds"))
        self.usage(*shape, "--ranks", "2", "--width=-1", mentions=("--width is -1",))
        self.usage(*shape, "--link", "10,50", mentions=("--link is given without --ranks",))
        self.usage(*shape, "--width", "16", mentions=("--width is given without --ranks",))
        self.usage(*shape, "--ranks", "2", "--threads", "2", mentions=("--threads does not go with --ranks",))
        longer = ("plan", "--shape", "B1,H1,S16,D16,SK32", "--ranks", "2")
        self.usage(*longer, "--causal", "top-left", mentions=("--causal is 'top-left'",))
        self.usage(*shape, "--ranks", "2", "--window-left", "4", mentions=("--window-left",))
        self.usage(*shape, "--ranks", "2", "--kv-type", "i8:token", mentions=("--kv-type",))

    def test_bad_threads(self):
        shape = ("plan", "--shape", "B1,H1,S16,D16", "--threads")
        for text in ("0", "a", "1-", "-3", "4-2", "1025", "99999999999999999999", "1 2", "1.5", "0x2"):
            self.usage(*shape[:-1], f"--threads={text}", mentions=("--threads", f"part '{text}'"))
        for text in ("1,", ",1", "1,,2"):
            self.usage(*shape, text, mentions=(f"'{text}'", "part ''", "1 to 1024"))
        self.usage(*shape, "1-1024,7", mentions=("at most 1024",))
        if can_run("null"):
            self.failure(*shape, "1,2", "--backend", "null", mentions=("--threads", "null:0", "4 units"))

    def test_usage(self):
        self.usage("plan", mentions=("--shape",))
        for shape, part in (("B1,H8,S0,D128", "S0"), ("B1,H8,S9,D9,X1", "X1"), ("B1,H8,S9", "part D")):
            self.usage("plan", "--shape", shape, mentions=("--shape", part))
        good = ("plan", "--shape", "B1,H1,S16,D16")
        self.usage(*good, "--dtype", "f64", mentions=("--dtype", "'f64'", "f32, f16 or bf16"))
        self.usage(*good, "--causal", "yes", mentions=("--causal", "'yes'", "top-left or bottom-right"))
        self.usage(*good, "--splits", "-1", mentions=("--splits", "-1"))
        self.usage(*good, "--block-q", "4294967296", mentions=("--block-q", "4294967296"))

    def test_refused_problems(self):
        self.failure("plan", "--shape", "B1,H8,S16,D16,HK3", mentions=("8", "3"))
        self.failure("plan", "--shape", "B1,H1,S16,D5000", mentions=("5000",))
        self.failure("plan", "--shape", "B1,H1,S9,D9", "--window-left", "-5", mentions=("window_left", "-5"))
        self.failure("plan", "--shape", "B9000000000000,H9000000,S9000000,D16", mentions=("90000",))


if __name__ == "__main__":
    unittest.main()
