#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the operators of `fastattn` beside ONNX Runtime's own, on this machine, run by run in turn.

    python bench.py nodes                 # MultiHeadAttention, GroupQueryAttention and Attention, each alone
    python bench.py model.onnx            # a model of (input_ids, attention_mask) as it is, and rewritten

FASTATTN_ONNXRUNTIME_LIBRARY names the library. Prints medians, and the median of the ratios of neighbouring runs.
"""
import argparse
import os
import statistics
import time

import numpy as np
import onnx
import onnxruntime
from onnx import helper

import rewrite


def session(model, threads):
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(os.environ["FASTATTN_ONNXRUNTIME_LIBRARY"])
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def seconds(ready, feed):
    begin = time.perf_counter()
    ready.run(None, feed)
    return time.perf_counter() - begin


def compare(name, theirs, ours, feed, runs):
    for ready in (theirs, ours):
        ready.run(None, feed)
    pairs = [(seconds(theirs, feed), seconds(ours, feed)) for _ in range(runs)]
    left, right = (statistics.median(side) * 1e3 for side in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:44} {left:10.3f} ms {right:10.3f} ms {ratio:8.2f} x", flush=True)


def node_model(domain, operator, feed, inputs, outputs, attributes):
    values = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
              for name, array in feed.items()]
    node = helper.make_node(operator, inputs, outputs, domain=domain, **attributes)
    graph = helper.make_graph([node], "graph", values, [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24), helper.make_opsetid("fastattn", 1),
                                                    helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 10
    return model


def nodes(options):
    random = np.random.default_rng(0)
    normal = lambda *shape: random.standard_normal(shape, dtype=np.float32)

    def both(name, domain, operator, feed, inputs, outputs, **attributes):
        sessions = [session(node_model(where, operator, feed, inputs, outputs, attributes), options.threads)
                    for where in (domain, "fastattn")]
        compare(name, *sessions, feed, options.runs)

    for batch, rows in (1, 128), (8, 128), (1, 512), (1, 2048):
        width = 12 * 32
        feed = {name: normal(batch, rows, width) for name in ("query", "key", "value")}
        both(f"MultiHeadAttention B{batch} H12 S{rows} D32", "com.microsoft", "MultiHeadAttention", feed, list(feed),
             ["output"], num_heads=12)
        feed = {name: normal(batch, 12, rows, 32) for name in ("Q", "K", "V")}
        both(f"Attention B{batch} H12 S{rows} D32 causal", "", "Attention", feed, list(feed), ["Y"], is_causal=1)
    angles = np.arange(8192)[:, None] * 10000.0 ** (-np.arange(32) / 32)
    table = {"cos_cache": np.cos(angles).astype(np.float32), "sin_cache": np.sin(angles).astype(np.float32)}
    for rows, past in (512, 0), (2048, 0), (1, 512), (1, 4096):
        total = rows + past
        feed = {"query": normal(1, rows, 9 * 64), "key": normal(1, rows, 3 * 64), "value": normal(1, rows, 3 * 64)}
        if past:
            feed |= {"past_key": normal(1, 3, past, 64), "past_value": normal(1, 3, past, 64)}
        feed |= {"seqlens_k": np.array([total - 1], np.int32), "total_sequence_length": np.array([total], np.int32)}
        feed |= table
        order = ["query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length", "cos_cache",
                 "sin_cache"]
        both(f"GroupQueryAttention H9/3 S{rows} past {past} D64 rotary", "com.microsoft", "GroupQueryAttention", feed,
             [name if name in feed else "" for name in order], ["output", "present_key", "present_value"], num_heads=9,
             kv_num_heads=3, do_rotary=1)


def model(options):
    theirs, ours = onnx.load(options.what), onnx.load(options.what)
    print(rewrite.rewrite(ours, pattern=True))
    sessions = session(theirs, options.threads), session(ours, options.threads)
    random = np.random.default_rng(0)
    for batch, rows in (1, 16), (1, 128), (1, 512), (8, 128), (16, 256):
        feed = {"input_ids": random.integers(1000, 20000, (batch, rows)),
                "attention_mask": np.ones((batch, rows), np.int64)}
        compare(f"batch {batch}, {rows} tokens", *sessions, feed, options.runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", help='"nodes", or an ONNX file')
    parser.add_argument("--runs", type=int, default=31)
    parser.add_argument("--threads", type=int, default=0, help="of each session; 0: ONNX Runtime's default")
    options = parser.parse_args()
    print(f"{'':44} {'ONNX Runtime':>13} {'fastattn':>13} {'faster':>10}")
    (nodes if options.what == "nodes" else model)(options)


if __name__ == "__main__":
    main()
