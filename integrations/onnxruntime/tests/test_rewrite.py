# SPDX-License-Identifier: Apache-2.0
"""The script that rewrites models: what it takes, what it leaves and why, and that results stay."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

from harness import F16, F32, helper, np, onnx, session

SCRIPT = pathlib.Path(__file__).parent.parent / "rewrite.py"
sys.path.insert(0, str(SCRIPT.parent))
import rewrite

BATCH, ROWS, HEADS, DIM = 2, 5, 3, 8


def model_of(nodes, inputs, outputs, constants=(), opset=18):
    """inputs, outputs: sizes by name. constants: arrays by name."""
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info(name, F32, sizes) for name, sizes in inputs.items()],
        [helper.make_tensor_value_info(name, F32, sizes) for name, sizes in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in dict(constants).items()])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 10
    return model


def node(operator, inputs, output, **attributes):
    return helper.make_node(operator, inputs.split(), output.split(), **attributes)


FOUR = ["batch", HEADS, "rows", DIM]


def pattern(scale=("Mul", 0.25), mask=True, softmax_axis=-1, extra_output="", keys="heads"):
    """Attention as exporters write it."""
    nodes = [node("Transpose", "k", "kt", perm=[0, 1, 3, 2] if keys == "heads" else [0, 2, 3, 1]),
             node("MatMul", "q kt", "s0"), node(scale[0], "s0 c", "s1")]
    if mask:
        nodes.append(node("Add", "s1 m", "s2"))
    nodes += [node("Softmax", "s2" if mask else "s1", "w", axis=softmax_axis), node("MatMul", "w v", "y")]
    inputs = {"q": FOUR, "k": FOUR if keys == "heads" else ["batch", "rows", HEADS, DIM], "v": FOUR}
    if mask:
        inputs["m"] = ["batch", 1, "rows", "rows"]
    outputs = {"y": FOUR} | ({extra_output: ["batch", HEADS, "rows", "rows"]} if extra_output else {})
    return model_of(nodes, inputs, outputs, {"c": np.float32(scale[1])})


class Rewrite(unittest.TestCase):
    def same(self, model, report):
        sizes = {"batch": BATCH, "rows": ROWS}
        random = np.random.default_rng(0)
        feed = {value.name: random.standard_normal([axis.dim_value or sizes[axis.dim_param]
                                                    for axis in value.type.tensor_type.shape.dim], dtype=np.float32)
                for value in model.graph.input}
        before = session(model).run(None, feed)
        done = rewrite.rewrite(model, pattern=True)
        self.assertEqual({name: done[name] for name in report}, report)
        for old, new in zip(before, session(model).run(None, feed)):
            np.testing.assert_allclose(new, old, rtol=0, atol=1e-5)  # another operator would be wrong by far more
        return model

    def test_pattern(self):
        one = {"fused": 1, "kept": []}
        for options in ({}, {"scale": ("Div", 4.0)}, {"mask": False}, {"keys": "rows"}, {"softmax_axis": 3}):
            model = self.same(pattern(**options), one)
            self.assertEqual({n.op_type for n in model.graph.node} - {"Transpose"}, {"Attention"})
            self.assertEqual(len(model.graph.initializer), 0)

    def test_pattern_left_alone(self):
        for options in (*({"extra_output": name} for name in ("s0", "s1", "s2", "w")), {"softmax_axis": 2}):
            done = self.same(pattern(**options), {"fused": 0})
            self.assertEqual({n.op_type for n in done.graph.node} & {"Attention"}, set())

    def test_sizes_left_alone(self):
        """MatMul repeats what has size 1 and takes fewer axes; Attention does not."""
        four = [BATCH, HEADS, ROWS, DIM]
        for name, sizes in (("k", [1, HEADS, ROWS, DIM]), ("v", [1, HEADS, ROWS, DIM]), ("k", [BATCH, 1, ROWS, DIM]),
                            ("v", [BATCH, 1, ROWS, DIM]), ("v", [HEADS, ROWS, DIM]), ("q", [1, HEADS, ROWS, DIM]),
                            ("q", [HEADS, ROWS, DIM]), ("k", [HEADS, ROWS, DIM]), ("m", [3, 1, 1, 1, ROWS])):
            model = pattern()
            for value in model.graph.input:
                wanted = sizes if value.name == name else [BATCH, 1, ROWS, ROWS] if value.name == "m" else four
                value.CopyFrom(helper.make_tensor_value_info(value.name, F32, wanted))
            if name == "k" and len(sizes) == 3:
                model.graph.node[0].attribute[0].ints[:] = [0, 2, 1]
            model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", F32, None))
            with self.subTest(name=name, sizes=sizes):
                self.assertEqual(rewrite.rewrite(model, pattern=True)["fused"], 0)

    def test_mask_of_more_rows(self):
        """One row of queries, whose scores a mask repeats."""
        model = pattern()
        for value in model.graph.input:
            if value.name == "q":
                value.CopyFrom(helper.make_tensor_value_info("q", F32, [BATCH, HEADS, 1, DIM]))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", F32, None))
        self.assertEqual(rewrite.rewrite(model, pattern=True)["fused"], 0)

    def test_shared_keys(self):
        """Two attentions with one transpose of the keys, which both turn back."""
        model = pattern(keys="rows", mask=False)
        nodes = [node("MatMul", "q kt", "t0"), node("Mul", "t0 c", "t1"), node("Softmax", "t1", "tw", axis=-1),
                 node("MatMul", "tw v", "z")]
        model.graph.node.extend(nodes)
        model.graph.output.append(helper.make_tensor_value_info("z", F32, FOUR))
        self.same(model, {"fused": 2, "kept": []})

    def test_default_is_no_constant(self):
        """An initializer that is an input too is what a session may be fed something else for."""
        model = pattern()
        model.graph.input.append(helper.make_tensor_value_info("c", F32, []))
        self.assertEqual(rewrite.rewrite(model, pattern=True)["fused"], 0)

    def test_external_data(self):
        """Numbers that lie in a file beside the model are not read."""
        model = pattern()
        scale = model.graph.initializer[0]
        scale.ClearField("raw_data")
        scale.data_location = onnx.TensorProto.EXTERNAL
        scale.external_data.add(key="location", value="nowhere.bin")
        self.assertEqual(rewrite.rewrite(model, pattern=True)["fused"], 0)

    def test_without_transposes(self):
        shape, flat = np.array([0, 0, HEADS, DIM]), np.array([0, 0, HEADS * DIM])
        nodes = []
        for name in "qkv":
            nodes += [node("Reshape", f"{name} shape", f"{name}4"),
                      node("Transpose", f"{name}4", f"{name}t", perm=[0, 2, 1, 3])]
        nodes += [node("Attention", "qt kt vt", "o", is_causal=1), node("Transpose", "o", "ot", perm=[0, 2, 1, 3]),
                  node("Reshape", "ot flat", "y")]
        rows = ["batch", "rows", HEADS * DIM]
        model = model_of(nodes, {name: rows for name in "qkv"}, {"y": rows}, {"shape": shape, "flat": flat}, opset=23)
        self.same(model, {"renamed": 1, "folded": 1, "kept": []})
        self.assertEqual([one.op_type for one in model.graph.node], ["Attention"])

    def test_kept(self):
        def kept(reason, operator, domain, inputs, outputs, sizes=(), types=(), **attributes):
            nodes = [helper.make_node(operator, inputs.split(" "), outputs.split(" "), domain=domain, **attributes)]
            sizes = {name: dict(sizes).get(name) for name in inputs.split(" ") if name}
            model = model_of(nodes, sizes, {}, opset=23)
            for value in model.graph.input:
                value.type.tensor_type.elem_type = dict(types).get(value.name, F32)
            with self.subTest(reason):
                report = rewrite.rewrite(model)
                self.assertEqual(report["renamed"], 0)
                self.assertIn(reason, report["kept"][0])
                self.assertEqual(model.graph.node[0].domain if model.graph.node else domain, domain)

        kept("output qk_matmul_output", "Attention", "", "q k v", "y   s")
        kept("attribute softmax_precision is 11", "Attention", "", "q k v", "y", softmax_precision=11)
        kept("attribute other", "Attention", "", "q k v", "y", other=1)
        kept("input past_sequence_length", "MultiHeadAttention", "com.microsoft", "q k v      p", "y", num_heads=3)
        kept("input k_scale", "GroupQueryAttention", "com.microsoft", "q k v   l t      s", "y", num_heads=3)
        kept("output pk of another type", "Attention", "", "q k v", "y pk", types={"k": F16})
        kept("output pv of another type", "Attention", "", "q k v", "y pk pv", types={"v": F16})
        kept("output pv of another type", "MultiHeadAttention", "com.microsoft", "q kv", "y  pv", types={"kv": F16},
             num_heads=3)
        kept("attribute mask_filter_value is -1.0", "MultiHeadAttention", "com.microsoft", "q k v", "y", num_heads=3,
             mask_filter_value=-1.0)
        kept("attribute unidirectional", "MultiHeadAttention", "com.microsoft", "q k v", "y", num_heads=3,
             unidirectional=1, sizes={"q": [2, 5, 24], "k": [2, 4, 24], "v": [2, 4, 24]})
        kept("input key_padding_mask of 8 numbers", "MultiHeadAttention", "com.microsoft", "q k v  p", "y",
             num_heads=3, sizes={"q": [2, 5, 24], "p": [8]}, types={"p": onnx.TensorProto.INT32})
        kept("input attn_mask of type INT64", "Attention", "", "q k v m", "y", types={"m": onnx.TensorProto.INT64})
        kept("head size 600", "Attention", "", "q k v", "y", sizes={"q": [1, 1, 2, 600]})
        kept("head size 600", "MultiHeadAttention", "com.microsoft", "q k v", "y", sizes={"q": [1, 2, 1800]},
             num_heads=3)
        kept("attribute k_quant_type", "GroupQueryAttention", "com.microsoft", "q k v   l t", "y",
             k_quant_type="PER_TENSOR")

    def test_old_softmax(self):
        """Before opset 13 Softmax flattened its axes."""
        model = pattern()
        model.opset_import[0].version = 12
        self.assertEqual(rewrite.rewrite(model, pattern=True)["fused"], 0)

    def test_subgraph(self):
        branches = {}
        for name, causal in (("then_branch", 1), ("else_branch", 0)):
            branches[name] = helper.make_graph([node("Attention", "q q q", name, is_causal=causal)], name, [],
                                               [helper.make_tensor_value_info(name, F32, None)])
        nodes = [node("ReduceSum", "q", "sum", keepdims=0), node("Greater", "sum zero", "which"),
                 node("If", "which", "y", **branches)]
        self.same(model_of(nodes, {"q": FOUR}, {"y": None}, {"zero": np.float32(0)}, opset=23), {"renamed": 2})

    def test_command(self):
        with tempfile.TemporaryDirectory() as folder:
            old, new = pathlib.Path(folder) / "old.onnx", pathlib.Path(folder) / "new.onnx"
            onnx.save(pattern(), old)
            command = [sys.executable, SCRIPT, old, new]
            self.assertEqual(subprocess.run(command, capture_output=True).returncode, 1)  # nothing without --pattern
            done = subprocess.run(command + ["--pattern"], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stdout), (0, "0 renamed, 1 fused, 0 without transposes\n"))
            session(onnx.load(new))


if __name__ == "__main__":
    unittest.main()
