#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rewrites a model's attention to the operators of the domain `fastattn`.

    python rewrite.py model.onnx rewritten.onnx [--pattern]

Nodes Attention (ONNX), MultiHeadAttention and GroupQueryAttention (com.microsoft) get the domain `fastattn`. With
--pattern, MatMul, Softmax and MatMul with a scale and a mask between them become Attention too: so exporters write
attention for opsets before 23. Where an Attention has its heads by transposing (batch, rows, heads * dim), it takes
that as it is.
What the operators do not serve stays as it is; the script says why. Needs the package onnx.

A session knows the domain after SessionOptions.register_custom_ops_library("libfastattn-onnxruntime.so").
"""
import argparse
import sys

import onnx
from onnx import helper, numpy_helper, shape_inference

DOMAIN = "fastattn"
HEADS_FIRST = [0, 2, 1, 3]  # of (batch, rows, heads, dim), and back
# Per operator: its own domain, attributes that are served, inputs and outputs that are not.
OPERATORS = {
    "Attention": ("", {"is_causal", "q_num_heads", "kv_num_heads", "scale", "softcap", "softmax_precision",
                       "qk_matmul_output_mode", "left_window_size", "right_window_size"}, {}, {3: "qk_matmul_output"}),
    "MultiHeadAttention": ("com.microsoft", {"num_heads", "scale", "unidirectional", "mask_filter_value"},
                           {8: "past_sequence_length", 9: "cache_indirection"}, {3: "qk"}),
    "GroupQueryAttention": ("com.microsoft", {"num_heads", "kv_num_heads", "scale", "softcap", "do_rotary",
                                              "rotary_interleaved", "local_window_size", "smooth_softmax", "causal",
                                              "qk_output", "k_quant_type", "v_quant_type", "sliding_window_cache",
                                              "kv_cache_bit_width", "qk_norm_epsilon", "q_norm_epsilon",
                                              "k_norm_epsilon"},
                            {12: "k_scale", 13: "v_scale", 14: "q_norm_weight", 15: "k_norm_weight"},
                            {3: "output_qk"}),
}
ONLY = {"qk_output": (0,), "k_quant_type": (b"NONE",), "v_quant_type": (b"NONE",), "sliding_window_cache": (0,),
        "softmax_precision": (1, 10, 16)}
MOST_DIMS = 576  # of a head
TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def attributes_of(node):
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


class Graph:
    """A graph with what is asked of it: who makes a value, who takes it, its type and sizes, its number if constant."""

    def __init__(self, graph, inferred):
        self.graph = graph
        self.types = {value.name: value.type.tensor_type
                      for value in list(inferred.value_info) + list(inferred.input) + list(inferred.output)}
        fed = {value.name for value in graph.input}  # an initializer is only a default then
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in fed}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.index()

    def index(self):
        self.maker, self.takers = {}, {}
        for node in self.graph.node:
            for name in node.output:
                self.maker[name] = node
            for name in inner_names(node):
                self.takers.setdefault(name, []).append(node)
        for value in self.graph.output:
            self.takers.setdefault(value.name, []).append(None)

    def made_by(self, name, *operators):
        """The node of one of these operators that makes a value, or None."""
        node = self.maker.get(name)
        return node if node is not None and node.domain == "" and node.op_type in operators else None

    def only_taker(self, name, *operators):
        """The node that alone takes a value, if it is one of these operators, or None."""
        takers = self.takers.get(name, [])
        node = takers[0] if len(takers) == 1 else None
        return node if node is not None and node.domain == "" and node.op_type in operators else None

    def number(self, name):
        """The one number that a constant consists of, or None."""
        tensor = self.constants.get(name)
        if tensor is None or any(size != 1 for size in tensor.dims):
            return None
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return float(numpy_helper.to_array(tensor).ravel()[0])

    def sizes(self, name):
        """Per axis a number, a symbol or None; None if nothing is known."""
        if name in self.constants:
            return list(self.constants[name].dims)
        kind = self.types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return [axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None for axis in kind.shape.dim]

    def type(self, name):
        kind = self.types.get(name)
        return kind.elem_type if kind is not None and kind.elem_type else None

    def new_name(self, name):
        while any(name in names for names in (self.maker, self.takers, self.types, self.constants)):
            name += "_"
        return name

    def replace(self, old, new):
        """`new` stands where the last of `old` stood. What nobody takes any more goes."""
        nodes = list(self.graph.node)
        place = max(index for index, node in enumerate(nodes) if any(node is one for one in old))
        kept = [[node] if not any(node is one for one in old) else [] for node in nodes]
        kept[place] = list(new)
        self.set_nodes([node for group in kept for node in group])

    def set_nodes(self, nodes):
        while True:
            wanted = {value.name for value in self.graph.output}
            wanted |= {name for node in nodes for name in inner_names(node)}
            alive = [node for node in nodes if any(name in wanted for name in node.output)]
            if len(alive) == len(nodes):
                break
            nodes = alive
        fixed = {value.name for value in self.graph.input}
        used = [tensor for tensor in self.graph.initializer if tensor.name in wanted | fixed]
        if len(used) < len(self.graph.initializer):
            used = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in used]
            del self.graph.initializer[:]
            self.graph.initializer.extend(used)
            self.constants = {name: tensor for name, tensor in self.constants.items() if name in wanted}
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        self.index()


def subgraphs(node):
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def inner_names(node):
    """All names that a node takes, its subgraphs included."""
    yield from (name for name in node.input if name)
    for graph in subgraphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from inner_names(inner)


def name_at(names, index):
    """The name of a node's input or output, or "" if it is left out."""
    return names[index] if len(names) > index else ""


def why_not_sizes(node, graph):
    """why_not() of what depends on several attributes, types or sizes, as far as they are known."""
    attributes = attributes_of(node)
    query, key = (graph.sizes(name_at(node.input, index)) or [] for index in (0, 1))
    heads = attributes.get("q_num_heads", 0) if node.op_type == "Attention" else attributes.get("num_heads", 0)
    dim = query[3] if len(query) == 4 else query[4] if len(query) == 5 else None
    if len(query) == 3 and isinstance(query[2], int) and heads and name_at(node.input, 1):
        dim = query[2] // heads
    if isinstance(dim, int) and dim > MOST_DIMS:
        return f"head size {dim}"
    mask = name_at(node.input, 3)
    if node.op_type == "Attention" and graph.type(mask) not in (None, onnx.TensorProto.BOOL, *TYPES):
        return f"input attn_mask of type {onnx.TensorProto.DataType.Name(graph.type(mask))}"
    if node.op_type == "MultiHeadAttention":
        if attributes.get("mask_filter_value", -10000.0) > -10000:
            return f"attribute mask_filter_value is {attributes['mask_filter_value']}"
        rows, keys = (sizes[1] if len(sizes) == 3 else None for sizes in (query, key))
        if attributes.get("unidirectional") and isinstance(rows, int) and isinstance(keys, int) and rows != keys:
            return f"attribute unidirectional with {rows} rows and {keys} keys"
        padding = graph.sizes(name_at(node.input, 4)) or []
        if len(padding) == 1 and isinstance(padding[0], int) and query and isinstance(query[0], int):
            if padding[0] != query[0]:
                return f"input key_padding_mask of {padding[0]} numbers"
    return ""


def why_not(node, graph):
    """Why the operator does not serve a node, or "" if it does."""
    _, served, inputs, outputs = OPERATORS[node.op_type]
    for name, value in attributes_of(node).items():
        if name not in served:
            return f"attribute {name}"
        if name in ONLY and value not in ONLY[name]:
            return f"attribute {name} is {value}"
    for index, name in inputs.items():
        if name_at(node.input, index):
            return f"input {name}"
    for index, name in outputs.items():
        if name_at(node.output, index):
            return f"output {name}"
    kind = graph.type(node.input[0])
    if kind is not None and kind not in TYPES:
        return f"type {onnx.TensorProto.DataType.Name(kind)}"
    # All outputs are of the type of the first input.
    key, value = name_at(node.input, 1), name_at(node.input, 2)
    for index, rows in ((1, key), (2, value or key)):
        if name_at(node.output, index) and kind and graph.type(rows) not in (None, kind):
            return f"output {node.output[index]} of another type than the first input"
    return why_not_sizes(node, graph)


def rename(graph, report):
    """Gives nodes our domain."""
    for node in graph.graph.node:
        if node.op_type in OPERATORS and node.domain in (OPERATORS[node.op_type][0], "ai.onnx"):
            reason = why_not(node, graph)
            if reason:
                report["kept"].append(f"{node.op_type} {node.name or node.output[0]}: {reason}")
            else:
                node.domain = DOMAIN
                report["renamed"] += 1


def unscaled(graph, name):
    """A value without the constant factor that is its last step. Returns (value, factor, nodes passed)."""
    node = graph.made_by(name, "Mul", "Div")
    if node is None or len(graph.takers[name]) != 1:
        return name, 1.0, []
    for index in (0, 1) if node.op_type == "Mul" else (1,):
        number = graph.number(node.input[index])
        if number:
            return node.input[1 - index], number if node.op_type == "Mul" else 1 / number, [node]
    return name, 1.0, []


def untransposed(graph, name, made):
    """The keys whose transpose `name` is, as (batch, heads, keys, dim): a value that is there, or the output of a
    Transpose that is added to `made`."""
    node, keys = graph.made_by(name, "Transpose"), graph.new_name(name + "_keys")
    if node is not None:
        perm = list(attributes_of(node).get("perm", []))
        if len(perm) == 4:
            perm[2:] = perm[:1:-1]
            if perm == [0, 1, 2, 3]:
                return node.input[0]
            made.append(helper.make_node("Transpose", [node.input[0]], [keys], perm=perm))
            return keys
    # PyTorch's exporter: Reshape to (-1, a, b), Transpose, Reshape to (..., b, a). a and b are the keys' last sizes.
    last = graph.made_by(name, "Reshape")
    turn = graph.made_by(last.input[0], "Transpose") if last is not None else None
    first = graph.made_by(turn.input[0], "Reshape") if turn is not None else None
    if first is not None and list(attributes_of(turn).get("perm", [])) == [0, 2, 1]:
        flat, full = graph.made_by(first.input[1], "Concat"), graph.made_by(last.input[1], "Concat")
        if flat is not None and full is not None and len(flat.input) == 3 and len(full.input) == 3:
            sizes = [graph.made_by(part, "Slice") for part in flat.input[1:]]
            shapes = [graph.made_by(part.input[0], "Shape") if part is not None else None for part in sizes]
            if list(full.input[1:]) == list(flat.input[:0:-1]) and graph.number(flat.input[0]) == -1 and all(
                    shape is not None and shape.input[0] == first.input[0] for shape in shapes):
                return first.input[0]
    made.append(helper.make_node("Transpose", [name], [keys], perm=[0, 1, 3, 2]))
    return keys


def differ(one, other):
    """Whether two sizes are known to be two, or one of them to be 1, which MatMul and Add repeat."""
    known = isinstance(one, int) and isinstance(other, int)
    return None not in (one, other) and one != other and (known or 1 in (one, other))


def repeats(query, keys, value, mask, scores):
    """Whether MatMul or Add repeat what Attention does not, by the sizes. keys are (batch, heads, dim, rows)."""
    if any(sizes is None or len(sizes) != 4 for sizes in (query, keys, value)):
        return True
    if differ(query[0], keys[0]) or differ(query[0], value[0]) or differ(keys[1], value[1]):
        return True
    if differ(query[1], keys[1]) and keys[1] != 1:
        return True
    return any(size != 1 and differ(size, full) for size, full in zip(mask[::-1], scores[::-1]))


def fuse_one(graph, softmax):
    """MatMul, scale, mask, Softmax, MatMul as one Attention. Returns whether that was possible."""
    sizes = graph.sizes(softmax.input[0]) or graph.sizes(softmax.output[0])
    if sizes is None or len(sizes) != 4 or attributes_of(softmax).get("axis", -1) not in (-1, 3):
        return False
    old, mask, factor, value = [softmax], "", 1.0, softmax.input[0]
    add = graph.made_by(value, "Add")
    if add is not None and graph.only_taker(value, "Softmax") is not None:
        scores = [index for index in (0, 1) if graph.made_by(unscaled(graph, add.input[index])[0], "MatMul")]
        mask_sizes = graph.sizes(add.input[1 - scores[0]]) if len(scores) == 1 else None
        if mask_sizes is None or len(mask_sizes) > 4 or not mask_sizes or mask_sizes[-1] in (None, 1):
            return False
        value, mask = add.input[scores[0]], add.input[1 - scores[0]]
        old.append(add)
    value, number, passed = unscaled(graph, value)
    factor *= number
    old += passed
    first = graph.made_by(value, "MatMul")
    if first is None or len(graph.takers[value]) != 1:
        return False
    query, number, _ = unscaled(graph, first.input[0])
    factor *= number
    keys, number, _ = unscaled(graph, first.input[1])
    factor *= number
    old.append(first)

    weights = softmax.output[0]
    takers = graph.takers.get(weights, [])
    if len(takers) == 2:  # PyTorch's exporter: Where(IsNaN(weights), 0, weights), for rows that see nothing
        guard = next((node for node in takers if node is not None and node.op_type == "IsNaN"), None)
        choice = graph.only_taker(guard.output[0], "Where") if guard is not None else None
        if choice is None or graph.number(choice.input[1]) != 0 or choice.input[2] != weights:
            return False
        old += [guard, choice]
        weights = choice.output[0]
    second = graph.only_taker(weights, "MatMul")
    if second is None or second.input[0] != weights:
        return False
    old.append(second)
    mask_sizes = graph.sizes(mask) if mask else []
    if repeats(graph.sizes(query), graph.sizes(keys), graph.sizes(second.input[1]), mask_sizes,
               graph.sizes(value) or sizes):
        return False
    new = []
    keys = untransposed(graph, keys, new)
    inputs = [query, keys, second.input[1]] + ([mask] if mask else [])
    new.append(helper.make_node("Attention", inputs, [second.output[0]], name=softmax.name, domain=DOMAIN,
                                scale=factor))
    graph.replace(old, new)
    return True


def fuse(graph, report):
    for softmax in [node for node in graph.graph.node if node.op_type == "Softmax" and node.domain == ""]:
        current = graph.maker.get(softmax.output[0])
        if current is not None and graph.type(softmax.input[0]) in TYPES:
            if fuse_one(graph, current):
                report["fused"] += 1
            else:
                report["kept"].append(f"Softmax {softmax.name or softmax.output[0]}: not the attention that is known")


def rows_of(graph, name):
    """(batch, rows, heads * dim) of which a value is the transposed heads, and their number; or None."""
    turn = graph.made_by(name, "Transpose")
    split = graph.made_by(turn.input[0], "Reshape") if turn is not None else None
    if split is None or list(attributes_of(turn).get("perm", [])) != HEADS_FIRST:
        return None
    flat, heads = graph.sizes(split.input[0]), graph.sizes(split.output[0])
    if not flat or not heads or len(flat) != 3 or len(heads) != 4 or flat[:2] != heads[:2] or None in flat[:2]:
        return None
    if not isinstance(flat[2], int) or not isinstance(heads[3], int) or heads[3] < 1 or flat[2] % heads[3]:
        return None
    return split.input[0], flat[2] // heads[3]


def fold(graph, report):
    """Attention of transposed heads becomes Attention of rows, if its output is transposed back."""
    for node in [node for node in graph.graph.node if node.op_type == "Attention" and node.domain == DOMAIN]:
        rows = [rows_of(graph, name) for name in node.input[:3]]
        current = graph.maker.get(node.output[0])
        back = graph.only_taker(node.output[0], "Transpose")
        if None in rows or rows[1][1] != rows[2][1] or back is None or any(node.input[4:]) or any(node.output[1:]):
            continue
        join = graph.only_taker(back.output[0], "Reshape")
        sizes, flat = (graph.sizes(join.output[0]), graph.sizes(rows[0][0])) if join is not None else (None, None)
        width = graph.sizes(rows[2][0])[2]
        if list(attributes_of(back).get("perm", [])) != HEADS_FIRST:
            continue
        if not sizes or len(sizes) != 3 or sizes[:2] != flat[:2]:
            continue
        if sizes[2] not in (None, width * rows[0][1] // rows[2][1]):
            continue
        new = onnx.NodeProto()
        new.CopyFrom(current)
        new.input[:3] = [name for name, _ in rows]
        new.output[0] = join.output[0]
        del new.attribute[:]
        known = attributes_of(current) | {"q_num_heads": rows[0][1], "kv_num_heads": rows[1][1]}
        new.attribute.extend(helper.make_attribute(name, value) for name, value in known.items())
        graph.replace([current, back, join], [new])
        report["folded"] += 1


def rewrite(model, pattern=False):
    """Rewrites a model in place. Returns how many nodes were `renamed`, `fused`, `folded`, and what was `kept`."""
    report = {"renamed": 0, "fused": 0, "folded": 0, "kept": []}
    opset = max([opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")], default=1)
    pattern = pattern and opset >= 13  # Softmax flattened its axes before
    inferred = shape_inference.infer_shapes(model, data_prop=True)

    def visit(graph, known):
        for node, twin in zip(graph.node, known.node):
            for inner, inner_twin in zip(subgraphs(node), subgraphs(twin)):
                visit(inner, inner_twin)
        view = Graph(graph, known)
        rename(view, report)
        if pattern:
            fuse(view, report)
        fold(view, report)

    visit(model.graph, inferred.graph)
    if report["renamed"] + report["fused"] and DOMAIN not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="the ONNX file to read")
    parser.add_argument("output", help="the ONNX file to write; in the folder of the model, if that has external data")
    parser.add_argument("--pattern", action="store_true", help="also MatMul, Softmax, MatMul")
    options = parser.parse_args()
    model = onnx.load(options.model, load_external_data=False)
    report = rewrite(model, options.pattern)
    onnx.save(model, options.output)
    print(f"{report['renamed']} renamed, {report['fused']} fused, {report['folded']} without transposes")
    for reason in report["kept"]:
        print("kept:", reason)
    return 0 if report["renamed"] + report["fused"] else 1


if __name__ == "__main__":
    sys.exit(main())
