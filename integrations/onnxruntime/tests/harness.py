# SPDX-License-Identifier: Apache-2.0
"""What the tests of the operators for ONNX Runtime share: models of one node, an oracle, its error bound.

FASTATTN_ONNXRUNTIME_LIBRARY names the library. Where a Python package is missing, the test is skipped (exit 77).
"""
import os
import sys

try:
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import helper
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

LIBRARY = os.environ["FASTATTN_ONNXRUNTIME_LIBRARY"]
F32, F16, BF16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
# Half of the distance between 1 and the next number.
ROUNDING = {F32: 2.0**-24, F16: 2.0**-11, BF16: 2.0**-8}


def session(model, threads=0):
    """A session in which the domain `fastattn` is known."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(LIBRARY)
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def model_of(domain, operator, feeds, outputs, attributes, opset=21, dtype=F32):
    """A model of one node, and what to feed it.

    `feeds` gives inputs by name, in the operator's order; None is an input that is left out. Floating inputs are given
    in f32 and become `dtype` in the model; outputs come back in f32. An output of "" is left out.
    """
    nodes, inputs, names, feed = [], [], [], {}
    for name, array in feeds.items():
        if array is None:
            names.append("")
            continue
        inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
        feed[name] = array
        if array.dtype == np.float32 and dtype != F32:
            nodes.append(helper.make_node("Cast", [name], [name + "_t"], to=dtype))
            names.append(name + "_t")
        else:
            names.append(name)
    while names and names[-1] == "":
        names.pop()
    end = "" if dtype == F32 else "_t"
    raw = [output + end if output else "" for output in outputs]
    while raw and raw[-1] == "":
        raw.pop()
    nodes.append(helper.make_node(operator, names, raw, domain=domain, name="node", **attributes))
    shown = [output for output in outputs if output]
    if end:
        nodes += [helper.make_node("Cast", [output + end], [output], to=F32) for output in shown]
    graph = helper.make_graph(nodes, "graph", inputs,
                              [helper.make_tensor_value_info(output, F32, None) for output in shown])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("fastattn", 1),
              helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 10
    return model, feed


def run(domain, operator, feeds, outputs, attributes, **rest):
    """Runs a model of one node. Returns its outputs, in f32."""
    model, feed = model_of(domain, operator, feeds, outputs, attributes, **rest)
    return session(model).run(None, feed)


def rounded(array, dtype):
    """`array` as it is after a conversion to `dtype`, in f32."""
    if dtype == F32:
        return array
    if dtype == F16:
        return array.astype(np.float16).astype(np.float32)
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def attention(q, k, v, visible, dtype, scale=None, bias=None, softcap=0.0, sinks=None, q_size=None, turned=False):
    """Attention in double precision. q, k, v are (batch, heads, rows, dim). Returns (output, bound).

    The bound is what arithmetic in f32 on operands of `dtype` may be wrong, u = 2^-24 being f32's rounding:
     - a score is a sum of D products, wrong by (D + 4) u sum|q k| scale, and by a few u of what is added to it.
       Operands that were `turned` (rotated) were rounded to dtype after that. q_size is what |q| was made of.
     - weights are then wrong by a factor of 1 + 2 * that + (T + 8) u, T being the keys: exp, sum, division. They may be
       rounded to dtype.
     - the output is rounded to dtype.
    """
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    dim, keys = q.shape[3], k.shape[2]
    scale = 1 / np.sqrt(dim) if scale is None else scale
    scores = scale * (q @ k.transpose(0, 1, 3, 2))
    size = abs(scale) * (np.abs(q if q_size is None else q_size) @ np.abs(k).transpose(0, 1, 3, 2))
    unit, own = ROUNDING[F32], ROUNDING[dtype]
    wrong = size * ((dim + 4) * unit + (4 * own if turned else 0))
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
        wrong = wrong + 8 * unit * np.abs(scores)
    if bias is not None:
        scores = scores + bias
        wrong = wrong + unit * np.abs(np.where(np.isfinite(scores), scores, 0))
    scores = np.where(visible, scores, -np.inf)
    top = scores.max(axis=-1, keepdims=True) if keys else np.full(scores.shape[:3] + (1,), -np.inf)
    if sinks is not None:
        top = np.maximum(top, np.asarray(sinks, np.float64).reshape(1, -1, 1, 1))
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(np.asarray(sinks, np.float64).reshape(1, -1, 1, 1) - top)
    weights = weights / np.where(total == 0, 1, total)
    wrong = np.where(np.isfinite(scores), wrong, 0).max(axis=-1, keepdims=True)
    out = weights @ v
    rounding = own if dtype != F32 else 0
    bound = (weights @ np.abs(v)) * (2 * wrong + (keys + 8) * unit + rounding) + own * np.abs(out) + 2.0**-24
    return out, bound


def join_heads(x):
    """(batch, heads, rows, dim) as (batch, rows, heads * dim)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def split_heads(x, heads):
    """(batch, rows, heads * dim) as (batch, heads, rows, dim)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(0, 2, 1, 3)
