# SPDX-License-Identifier: Apache-2.0
"""ONNX's own tests of Attention, of all opsets, with its own tolerances, on the operator of the domain `fastattn`.

Those that ask for qk_matmul_output must be refused by its name; then they run without it. DECLINED are not computed.
"""
import unittest
import warnings

from harness import BF16, F32, ROUNDING, helper, np, onnx, session
from onnx.reference import ReferenceEvaluator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    CASES = [case for case in collect_testcases("Attention") if not case.name.endswith("_expanded")]
REFUSED = "qk_matmul_output"
DECLINED = {"test_attention_local_window_gqa_rank4_mask": "attribute softmax_precision is 11; softmax is .* in float"}


def in_our_domain(case):
    """The case's model with the node in our domain. bfloat16, which NumPy lacks, comes and goes as float."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[0])
    node.domain = "fastattn"
    node.name = case.name
    del graph.node[:]
    for value in graph.input:
        if value.type.tensor_type.elem_type == BF16:
            value.type.tensor_type.elem_type = F32
            graph.node.append(helper.make_node("Cast", [value.name], [value.name + "_bf16"], to=BF16))
            node.input[:] = [name + "_bf16" if name == value.name else name for name in node.input]
    after = []
    for value in graph.output:
        if value.type.tensor_type.elem_type == BF16:
            value.type.tensor_type.elem_type = F32
            after.append(helper.make_node("Cast", [value.name + "_bf16"], [value.name], to=F32))
            node.output[:] = [name + "_bf16" if name == value.name else name for name in node.output]
    graph.node.extend([node] + after)
    model.opset_import.append(helper.make_opsetid("fastattn", 1))
    model.ir_version = min(model.ir_version, 10)
    return model, node


def in_double(case, inputs):
    """What ONNX's reference computes in double precision from the case's inputs in bfloat16."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for value in list(model.graph.input) + list(model.graph.output):
        if value.type.tensor_type.elem_type == BF16:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    feed = {value.name: array.astype(np.float64) if array.dtype.name == "bfloat16" else array
            for value, array in zip(model.graph.input, inputs)}
    return ReferenceEvaluator(model).run(None, feed)


class Nodes(unittest.TestCase):
    def without_scores(self, model):
        """Sees that the model is refused by name, and takes the output away."""
        with self.assertRaisesRegex(Exception, f"output {REFUSED} is not served: scores"):
            session(model)
        name = next(node for node in model.graph.node if node.op_type == "Attention").output
        kept = [value for value in model.graph.output if value.name not in (name[3], name[3].removesuffix("_bf16"))]
        del name[3:]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    def check(self, case):
        model, node = in_our_domain(case)
        named = [value.name for value in model.graph.output]
        if len(node.output) > 3:
            self.without_scores(model)
        if case.name in DECLINED:
            with self.assertRaisesRegex(Exception, DECLINED[case.name]):
                session(model)
            return
        ours = [value.name for value in model.graph.output]
        ready = session(model)
        for inputs, outputs in case.data_sets:
            arrays = [np.asarray(array) for array in inputs]
            small = any(array.dtype.name == "bfloat16" for array in arrays)
            feed = {value.name: np.ascontiguousarray(array).astype(np.float32 if array.dtype.name == "bfloat16"
                                                                   else array.dtype)
                    for value, array in zip(model.graph.input, arrays)}
            # ONNX's results in bfloat16 carry the roundings of each step, more than its tolerance. Of positive values
            # ours has two at most: of the weights, where a kernel rounds them, and of the output.
            wanted = dict(zip(named, in_double(case, arrays) if small else outputs))
            rtol = 2 * ROUNDING[BF16] if small else case.rtol
            for name, got in zip(ours, ready.run(None, feed)):
                want = np.asarray(wanted[name])
                self.assertEqual(got.shape, want.shape)
                np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol,
                                           atol=case.atol, err_msg=name)

    def test_all(self):
        self.assertGreater(len(CASES), 60)
        for case in CASES:
            with self.subTest(case.name):
                self.check(case)


if __name__ == "__main__":
    unittest.main()
