#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of `fastattn cooperate`: what it prints is what fa_cooperate_place() finds, which tests/unit holds to its model; and what
it runs is right, which the command checks itself."""

import json
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays as it is
sys.path.insert(0, str(Path(__file__).resolve().parent))
from frame import Case, call, can_run  # noqa: E402

# The machine and the model of tests/unit/test_cooperate.c, 8 x V100 of 16 GiB.
PAPER = """--context 262144 --layers 40 --heads 40 --dim 128 --weights 76 --activations 0.5 --activations-token 11520
    --devices 8 --device-memory 17.179869184 --host-memory 549.755813888 --device-bandwidth 800 --host-bandwidth 200
    --link-bandwidth 6 --device-tflops 60 --host-tflops 1.5""".split()
SMALL = "--context 1000 --layers 4 --heads 8 --heads-kv 2 --dim 64".split()


class Placement(Case):
    def place(self, *arguments, code=0):
        return json.loads(self.expect_printed(code, *arguments, "--json"))

    def expect_printed(self, code, *arguments):
        """A context that does not fit fails, and still prints what does."""
        done = call("cooperate", *arguments)
        self.assertEqual((done.returncode, done.stderr), (code, ""), arguments)
        return done.stdout

    def test_paper(self):
        found = self.place(*PAPER)
        self.assertTrue(found["fits"])
        self.assertEqual((found["layers_device"], found["layers_host"]), (4, 36))
        self.assertEqual(found["layer_bytes"], 2 * 262144 * 5 * 128 * 2)
        self.assertLess(found["context_device"], 262144)
        self.assertGreater(found["context_longest"], 262144)
        text = self.expect_printed(0, *PAPER)
        self.assertIn("placement  4 layers on the devices, 36 on the host, of 40", text)
        host = found["layer_bytes"] * 8 * 40 * found["split_host"] * 1e-9
        self.assertIn(f"of each layer's keys on the host, {host:.2f} GB, where both compute", text)
        fastest = [line for line in text.splitlines() if line.endswith("fastest")]
        self.assertEqual(len(fastest), 1)
        self.assertTrue(fastest[0].startswith(found["decode_way"]))

    def test_too_long(self):
        longest = self.place(*PAPER)["context_longest"]
        for context, code in ((longest, 0), (longest + 1, 1)):
            found = self.place("--context", str(context), *PAPER[2:], code=code)
            self.assertEqual(found["fits"], code == 0)
            self.assertEqual(found["context_longest"], longest)
        self.assertIn("it does not fit", self.expect_printed(1, "--context", str(longest + 1), *PAPER[2:]))

    def test_streams(self):
        """The V100s' links are slow: a little of each layer pays, and memory that both read leaves less."""
        found = self.place(*PAPER)
        self.assertGreater(found["stream_host"], 0)
        self.assertLess(found["decode_stream"], found["split"]["decode"])
        self.assertIn("of the keys are copied to the devices meanwhile", self.expect_printed(0, *PAPER))
        less = self.place(*PAPER, "--memory-bandwidth", "220")
        self.assertLess(found["decode_stream"], less["decode_stream"])

    def test_types(self):
        plain = self.place(*SMALL)["layer_bytes"]
        self.assertEqual(plain, 1000 * 2 * (64 + 64) * 2)
        self.assertEqual(self.place(*SMALL, "--kv-type", "q8_0,f32")["layer_bytes"], 1000 * 2 * (2 * 34 + 256))
        self.assertEqual(self.place(*SMALL, "--kv-type", "i8:token", "--kv-bytes", "264")["layer_bytes"], 264000)
        self.assertEqual(self.place(*SMALL, "--dim-v", "32", "--sequences", "3")["layer_bytes"], 3000 * 2 * 96 * 2)

    def test_refusals(self):
        self.usage("cooperate", mentions=("--context is missing",))
        self.usage("cooperate", *SMALL[2:], mentions=("--context is missing",))
        self.usage("cooperate", *SMALL, "--kv-type", "i8:token", mentions=("--kv-bytes",))
        self.usage("cooperate", *SMALL, "--kv-type", "q9", mentions=("--kv-type is 'q9'",))
        self.usage("cooperate", *SMALL, "--weights=-1", mentions=("--weights is -1",))
        self.usage("cooperate", *SMALL, "--kv-bytes=-1", mentions=("--kv-bytes is -1",))
        self.usage("cooperate", *SMALL, "--link-bandwidth", "0", mentions=("machine.link_bandwidth is 0",))
        self.usage("cooperate", *SMALL, "--devices", "3", mentions=("model.heads_kv is 2", "machine.devices, 3"))
        self.usage("cooperate", "--context", "268435457", *SMALL[2:], mentions=("context is 268435457",))


class Run(Case):
    ARGUMENTS = (*SMALL, "--run", "--home", "openmp", "--away", "openmp", "--min-time", "0.01")

    def setUp(self):
        super().setUp()
        if not can_run("openmp"):
            self.skipTest("openmp cannot run here")

    def run_ok(self, *arguments):
        done = self.expect(0, "cooperate", *self.ARGUMENTS, *arguments, "--json")
        return json.loads(done.stdout)["measured"]

    def test_half(self):
        for types in ("f16", "q8_0", "f32,e4m3"):
            with self.subTest(types):
                found = self.run_ok("--home-keys", "500", "--kv-type", types)
                self.assertEqual(found["keys_away"] + found["keys_home"], 1000)
                self.assertGreaterEqual(found["keys_away"], 500)
                for way in ("copy", "host", "split", "all_home", "measured_away", "measured_home"):
                    self.assertGreater(found[way], 0, way)
                self.assertLess(found["max_error"], 0.01)
                self.assertTrue(found["home"].startswith("openmp:0"))

    def test_streamed(self):
        """Half of the keys that are not home, in pieces, in both formats."""
        for types in ("f16", "q8_0"):
            with self.subTest(types):
                found = self.run_ok("--home-keys", "400", "--kv-type", types, "--stream-share", "0.5")["stream"]
                self.assertEqual(found["keys_streamed"], 300)
                self.assertGreaterEqual(found["keys_away"], 300)
                self.assertEqual(found["keys_away"] + found["keys_home"], 700)
                for name in ("seconds", "seconds_stream", "modelled_stream", "measured_stream"):
                    self.assertGreater(found[name], 0, name)
        done = self.expect(0, "cooperate", *self.ARGUMENTS, "--home-keys", "400", "--stream-share", "1")
        self.assertRegex(done.stdout, r"(?m)^stream .* keys away, .*; 600 streamed, .* home, ")

    def test_prefill(self):
        found = self.run_ok("--home-keys", "400", "--prompt", "300", "--kv-type", "q8_0")["prefill"]
        self.assertEqual(found["tokens"], 300)
        self.assertGreater(found["device"], 0)
        self.assertGreater(found["host"], 0)
        self.assertIn("one of the device, for 20 tokens",
                      self.expect(0, "cooperate", *self.ARGUMENTS, "--prompt", "20").stdout)

    def test_all_and_sequences(self):
        self.assertEqual(self.run_ok("--home-keys", "1000")["home_keys"], 1000)
        found = self.run_ok("--home-keys", "1", "--sequences", "3", "--dim-v", "32")
        self.assertEqual(found["keys_away"] + found["keys_home"], 3000)
        # As the placement has it: all layers, so all keys, are at home.
        self.assertEqual(self.run_ok()["home_keys"], 1000)

    def test_text(self):
        done = self.expect(0, "cooperate", *self.ARGUMENTS, "--home-keys", "500", mentions=("measured   one layer",))
        self.assertIn("500 of 1000 keys in home memory at most", done.stdout)

    def test_refusals(self):
        self.usage("cooperate", *self.ARGUMENTS, "--home-keys", "1001", mentions=("--home-keys is 1001",))
        self.usage("cooperate", *self.ARGUMENTS, "--kv-bytes", "9", mentions=("--kv-bytes is 9",))
        self.usage("cooperate", *self.ARGUMENTS, "--prompt", "1001", mentions=("--prompt is 1001",))
        self.usage("cooperate", *self.ARGUMENTS, "--stream-memory=-1", mentions=("--stream-memory is -1",))
        self.failure("cooperate", *self.ARGUMENTS, "--stream-share", "2", mentions=("stream_share is 2",))
        self.failure("cooperate", *SMALL, "--run", "--home", "no-such", mentions=("no-such",))
        self.failure("cooperate", *SMALL, "--run", "--home", "openmp", "--away", "no-such", mentions=("no-such",))


if __name__ == "__main__":
    unittest.main()
