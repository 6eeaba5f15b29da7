# SPDX-License-Identifier: Apache-2.0
"""fastattn.torch: PyTorch's own samples, a grid of options, compile and export, and what is refused.

Skipped (exit 77) without torch or fastattn. FASTATTN_TEST_LONG=1 also compiles C++, and runs 5000 cases of the grid.
FASTATTN_TEST_DEVICE=cuda runs all of it there.
"""

import itertools
import os
import pathlib
import random
import re
import sys
import unittest

try:
    import torch
    import torch.nn.functional as F
    from torch.autograd import forward_ad

    import fastattn
    import fastattn.torch
    from torch_replacement import TestReplacement  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(77)

LONG = os.environ.get("FASTATTN_TEST_LONG") == "1"
DEVICE = torch.device(os.environ.get("FASTATTN_TEST_DEVICE", "cpu"))
TYPES = (torch.float32, torch.float16, torch.bfloat16)
PYTORCH = F.scaled_dot_product_attention
ours = fastattn.torch.scaled_dot_product_attention


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape, device=DEVICE).to(dtype)


def plain(
    q,
    k,
    v,
    dtype,
    *,
    mask="none",
    window=(-1, -1),
    softcap=0.0,
    slopes=None,
    lens=None,
    bias=None,
    sinks=None,
    scale=None,
):
    """Attention in the plainest way, every step in `dtype`. Rows that see nothing are 0."""
    rows, keys = q.shape[2], k.shape[2]
    groups = q.shape[1] // k.shape[1]
    q, k, v = q.to(dtype), k.to(dtype).repeat_interleave(groups, 1), v.to(dtype).repeat_interleave(groups, 1)
    scores = q * (q.shape[3] ** -0.5 if scale is None else scale) @ k.transpose(2, 3)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    length = torch.full((q.shape[0],), keys, device=q.device) if lens is None else lens.to(q.device)
    key = torch.arange(keys, device=q.device)
    position = (
        torch.arange(rows, device=q.device) + (length * 0 if mask == "causal_top_left" else length - rows)[:, None]
    )
    distance = key - position[:, :, None]  # (batch, rows, keys)
    if slopes is not None:
        scores = scores - slopes.to(q.device, dtype)[:, None, None] * distance[:, None].abs().to(dtype)
    seen = (key < length[:, None, None]).expand_as(distance)
    if mask != "none":
        seen = seen & (distance <= 0)
    if window[0] >= 0:
        seen = seen & (distance >= -window[0])
    if window[1] >= 0:
        seen = seen & (distance <= window[1])
    seen = seen[:, None]
    if bias is not None and bias.dtype == torch.bool:
        seen = seen & bias
    elif bias is not None:
        scores = scores + bias.to(dtype)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        column = sinks.to(q.device, dtype)[None, :, None, None].expand(*scores.shape[:3], 1)
        return torch.softmax(torch.cat([scores, column], -1), -1)[..., :-1] @ v
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v


class TestSamples(unittest.TestCase):
    """PyTorch's own samples of the function (OpInfo): each is served as PyTorch serves it, or is declined by name."""

    def test_opinfo(self):
        try:
            from torch.testing._internal.common_methods_invocations import op_db
        except ImportError as missing:
            raise unittest.SkipTest(str(missing)) from None
        (info,) = (op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
        served, declined = 0, {}
        for dtype in (*TYPES, torch.float64):
            for sample in info.sample_inputs(str(DEVICE), dtype):
                with self.subTest(dtype=dtype, sample=sample.summary()):
                    args, options = (sample.input, *sample.args), sample.kwargs
                    reasons = [
                        name
                        for name, applies in (
                            ("dropout_p", options["dropout_p"] > 0),
                            ("query.dtype", dtype == torch.float64),
                        )
                        if applies
                    ]
                    if reasons:
                        with self.assertRaisesRegex(NotImplementedError, reasons[0]):
                            ours(*args, **options)
                        declined[reasons[0]] = declined.get(reasons[0], 0) + 1
                        continue
                    served += 1
                    expected, found = PYTORCH(*args, **options), ours(*args, **options)
                    self.assertEqual((found.shape, found.dtype), (expected.shape, expected.dtype))
                    exact = PYTORCH(
                        *(x.double() for x in args),
                        **{k: v.double() if torch.is_tensor(v) else v for k, v in options.items()},
                    )
                    limit = 2 * (expected - exact).abs().max() + 2 * torch.finfo(dtype).eps * exact.abs().max()
                    self.assertLessEqual((found - exact).abs().max(), limit)
        self.assertEqual((served, declined), (39, {"dropout_p": 48, "query.dtype": 13}))


class TestGrid(unittest.TestCase):
    """As FlashAttention's own test: at most twice the error of PyTorch's operations in the same type."""

    LENGTHS = [(1, 147), (113, 203), (108, 256), (127, 512), (64, 64), (147, 1), (1, 1), (200, 77)]
    AXES = {
        "dtype": TYPES,
        "heads": [(6, 6), (6, 2), (6, 1)],
        "mask": ["none", "causal", "causal_top_left"],
        "window": [(-1, -1), (17, -1), (23, 9)],
        "softcap": [0.0, 15.0],
        "alibi": [False, True],
        "sinks": [False, True],
        "lens": [False, True],
        "dim": [32, 40, 59, 64, 96, 111, 128, 160, 192, 224, 256],
        "lengths": LENGTHS,
    }

    def check(self, dtype, heads, mask, window, softcap, alibi, sinks, lens, dim, lengths):
        rows, keys = lengths
        q, k, v = (randn(2, heads[at > 0], keys if at else rows, dim, dtype=dtype) for at in range(3))
        if softcap:
            q = q * softcap
        options = {
            "mask": mask,
            "softcap": softcap,
            "slopes": torch.rand(heads[0]) * 0.3 if alibi else None,
            "sinks": torch.randn(heads[0]) if sinks else None,
            "lens": torch.tensor([keys, max(keys // 2, 1)]) if lens else None,
        }
        exact = plain(q, k, v, torch.float64, window=window, **options)
        theirs = plain(q, k, v, dtype, window=window, **options)
        options["alibi_slopes"], options["lens_kv"] = options.pop("slopes"), options.pop("lens")
        found = fastattn.torch.attention(q, k, v, window_left=window[0], window_right=window[1], **options)
        # FlashAttention's factors. The rest is one rounding of the result: PyTorch's may happen to be exact.
        limit = (3 if softcap else 2) * (theirs - exact).abs().max() + torch.finfo(dtype).eps * exact.abs().max()
        self.assertLessEqual((found - exact).abs().max(), limit)

    def test_grid(self):
        torch.manual_seed(0)
        choose = random.Random(1)
        for _ in range(5000 if LONG else 250):
            case = [choose.choice(values) for values in self.AXES.values()]
            with self.subTest(**dict(zip(self.AXES, case))):
                self.check(*case)

    def test_logarithms(self):
        q, k = randn(2, 4, 7, 32), randn(2, 2, 9, 32)
        out, lse = fastattn.torch.attention(q, k, k, mask="causal", return_lse=True)
        scores = (q @ k.repeat_interleave(2, 1).transpose(2, 3)).double() * 32**-0.5
        scores = scores.masked_fill(~torch.ones(7, 9, dtype=torch.bool, device=DEVICE).tril(2), float("-inf"))
        self.assertEqual((lse.shape, lse.dtype), ((2, 4, 7), torch.float32))
        self.assertLess((lse - scores.logsumexp(-1)).abs().max(), 1e-5)
        self.assertTrue(torch.equal(out, fastattn.torch.attention(q, k, k, mask="causal")))

    def test_packed_sequences(self):
        offsets = [0, 5, 5, 17, 30]
        q, k = randn(1, 4, 30, 32), randn(1, 2, 30, 32)
        cu = torch.tensor(offsets, dtype=torch.int32)
        found = fastattn.torch.attention(q, k, k, mask="causal", cu_seqlens_q=cu, cu_seqlens_k=cu)
        for begin, end in itertools.pairwise(offsets):
            part = (
                fastattn.torch.attention(q[:, :, begin:end], k[:, :, begin:end], k[:, :, begin:end], mask="causal")
                if begin < end
                else None
            )
            self.assertTrue(part is None or torch.allclose(found[:, :, begin:end], part, atol=1e-6))

    def test_lengths_of_rows(self):
        """Rows beyond a length are 0, whatever was in memory."""
        q, k = randn(2, 4, 6, 32), randn(2, 2, 6, 32)
        for rows in (6, 1):
            junk = [torch.full((2, 4, rows, 32), float("nan"), device=DEVICE) for _ in range(8)]
            del junk
            found = fastattn.torch.attention(q[:, :, :rows], k, k, lens_q=torch.tensor([rows, 0]))
            self.assertTrue(torch.equal(found[1], torch.zeros_like(found[1])))
            self.assertTrue(
                torch.allclose(found[0], fastattn.torch.attention(q[:1, :, :rows], k[:1], k[:1])[0], atol=1e-6)
            )

    def test_padding_on_the_left(self):
        q, k, v = randn(2, 4, 6, 32), randn(2, 2, 6, 32), randn(2, 2, 6, 32)
        found = fastattn.torch.attention(q, k, v, mask="causal", first_kv=torch.tensor([2, 0], dtype=torch.int32))
        alone = fastattn.torch.attention(*(x[:1, :, 2:] for x in (q, k, v)), mask="causal")
        self.assertTrue(torch.allclose(found[:1, :, 2:], alone, atol=1e-6))
        self.assertTrue(torch.equal(found[0, :, :2], torch.zeros_like(found[0, :, :2])))


class TestFunction(unittest.TestCase):
    """Shapes, masks and errors of torch.nn.functional.scaled_dot_product_attention."""

    def same(self, *args, **options):
        expected, found = PYTORCH(*args, **options), ours(*args, **options)
        self.assertEqual((found.shape, found.dtype, found.device), (expected.shape, expected.dtype, expected.device))
        self.assertTrue(
            torch.allclose(found, expected, atol=1e-5), (found - expected).abs().max() if found.numel() else None
        )

    def test_shapes(self):
        shapes = [
            ((3, 8), (4, 8)),
            ((2, 3, 8), (2, 4, 8)),
            ((2, 3, 8), (4, 8)),
            ((2, 5, 3, 8), (5, 4, 8)),
            ((2, 1, 3, 8), (1, 5, 4, 8)),
            ((2, 6, 3, 8), (2, 1, 4, 8)),
            ((3, 2, 5, 2, 3, 8), (2, 1, 2, 4, 8)),
            ((0, 2, 3, 8), (0, 2, 4, 8)),
            ((2, 2, 0, 8), (2, 2, 4, 8)),
            ((2, 2, 3, 8), (2, 2, 0, 8)),
            ((1, 1, 1, 1), (1, 1, 1, 1)),
        ]
        for query, key in shapes:
            for causal in (False, True):
                with self.subTest(query=query, key=key, causal=causal):
                    self.same(randn(*query), randn(*key), randn(*key), is_causal=causal)
        self.same(randn(2, 4, 3, 8), randn(2, 4, 5, 8), randn(2, 4, 5, 24))

    def test_grouped_heads(self):
        for query, key in (
            ((2, 6, 3, 8), (2, 2, 4, 8)),
            ((6, 3, 8), (3, 4, 8)),
            ((2, 2, 6, 3, 8), (2, 2, 1, 4, 8)),
            ((4, 6, 3, 8), (1, 2, 4, 8)),
        ):
            with self.subTest(query=query, key=key):
                self.same(randn(*query), randn(*key), randn(*key), enable_gqa=True)

    def test_masks(self):
        q, k = randn(2, 5, 3, 8), randn(2, 5, 4, 8)
        for shape in ((3, 4), (1, 4), (3, 1), (1, 1), (5, 3, 4), (2, 1, 3, 4), (1, 5, 1, 4), (2, 5, 3, 4)):
            with self.subTest(shape=shape):
                self.same(q, k, k, attn_mask=randn(*shape))
                self.same(q, k, k, attn_mask=randn(*shape) > -0.5)
        self.same(q, k, k, attn_mask=randn(4, 3).T)
        self.same(q, k, k, attn_mask=randn(3, 1).expand(3, 4))
        self.same(randn(2, 2, 5, 3, 8), randn(2, 2, 5, 4, 8), randn(2, 2, 5, 4, 8), attn_mask=randn(2, 1, 1, 3, 4))
        self.same(randn(5, 3, 8), randn(5, 4, 8), randn(5, 4, 8), attn_mask=randn(5, 3, 4))

    def test_scale(self):
        q, k = randn(2, 3, 4, 8), randn(2, 3, 5, 8)
        for scale in (None, 0.0, 1.0, 0.3, -0.7):
            with self.subTest(scale=scale):
                self.same(q, k, k, scale=scale)

    def test_strides(self):
        packed = randn(2, 7, 3, 4, 8)
        q, k, v = (packed[:, :, at].transpose(1, 2) for at in range(3))
        self.same(q, k, v, is_causal=True)
        self.same(
            randn(2, 3, 8, 4).transpose(2, 3),
            randn(2, 3, 16, 5)[:, :, ::2].transpose(2, 3),
            randn(2, 3, 5, 9)[..., ::2],
        )

    def test_rows_without_keys(self):
        """They are 0, as PyTorch's are on the CPU."""
        q, k = randn(1, 2, 3, 8), randn(1, 2, 4, 8)
        keep = torch.ones(3, 4, dtype=torch.bool, device=DEVICE)
        keep[1] = False
        bias = torch.zeros(3, 4, device=DEVICE).masked_fill(~keep, float("-inf"))
        for mask in (keep, bias):
            found = ours(q, k, k, attn_mask=mask)
            self.assertTrue(torch.equal(found[:, :, 1], torch.zeros_like(found[:, :, 1])))
            self.same(q, k, k, attn_mask=mask)

    def test_causal_bias(self):
        from torch.nn.attention.bias import causal_lower_right, causal_upper_left

        q, k = randn(1, 2, 3, 8), randn(1, 2, 5, 8)
        for bias in (causal_lower_right(3, 5), causal_upper_left(3, 5)):
            self.assertTrue(torch.allclose(ours(q, k, k, attn_mask=bias), PYTORCH(q, k, k, attn_mask=bias), atol=1e-6))

    def test_autocast(self):
        q, k = randn(1, 2, 3, 8), randn(1, 2, 5, 8)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            expected, found = PYTORCH(q, k, k), ours(q, k, k)
        self.assertEqual(found.dtype, expected.dtype)
        self.assertLess((found - expected).abs().max(), 0.02)
        with torch.autocast(DEVICE.type, torch.bfloat16), self.assertRaisesRegex(NotImplementedError, "float64"):
            ours(q.double(), k.double(), k.double())

    def test_tangents(self):
        q, k = randn(1, 2, 3, 8), randn(1, 2, 5, 8)
        for function in (ours, fastattn.torch.attention):
            with self.assertRaisesRegex(NotImplementedError, "query has a tangent"):
                torch.func.jvp(lambda x: function(x, k, k), (q,), (q,))

    def test_tangents_of_plain_calls(self):
        """fastattn.attention() itself refuses them, as it refuses gradients."""
        q, k = randn(1, 2, 3, 8), randn(1, 2, 5, 8)
        bias = randn(3, 5)

        class Tensor(torch.Tensor):
            pass

        with forward_ad.dual_level():
            dual = {x: forward_ad.make_dual(x, torch.ones_like(x)) for x in (q, k, bias)}
            for name, arguments in (
                ("q", {"q": dual[q]}),
                ("v", {"v": dual[k]}),
                ("q", {"q": dual[q].as_subclass(Tensor)}),
                ("attn_mask", {"attn_mask": dual[bias]}),
                ("out", {"out": forward_ad.make_dual(torch.empty_like(q), q)}),
            ):
                for gradients in (True, False):
                    with torch.set_grad_enabled(gradients), self.subTest(name=name):
                        with self.assertRaisesRegex(fastattn.UnsupportedError, f"^{name} has a tangent"):
                            fastattn.attention(**({"q": q, "k": k, "v": k} | arguments))
            with self.assertRaisesRegex(fastattn.UnsupportedError, "partial has a tangent"):
                fastattn.merge(torch.stack([dual[q]] * 2), torch.zeros(2, 1, 2, 3, device=DEVICE))
            self.assertTrue(torch.equal(fastattn.attention(dual[q].detach(), k, k), fastattn.attention(q, k, k)))

    def test_memory_that_is_not_there(self):
        q, k = randn(1, 2, 3, 8), randn(1, 2, 5, 8)
        k.untyped_storage().resize_(0)
        with self.assertRaisesRegex(fastattn.InvalidError, "k has no memory"):
            fastattn.attention(q, k, k)

    def test_negative_bit(self):
        class Tensor(torch.Tensor):
            pass

        q = randn(1, 2, 3, 8)
        with self.assertRaisesRegex(fastattn.UnsupportedError, "resolve_neg"):
            fastattn.attention(q, q, torch._neg_view(q).as_subclass(Tensor))

    def test_refusals_of_pytorch(self):
        q, k = randn(2, 2, 3, 8), randn(2, 2, 4, 8)
        wrong = {
            "2 dimensional": ((q[0, 0, 0], k, k), {}),
            "same dtype": ((q, k, k.half()), {}),
            "same device": ((q, k, k.to("meta")), {}),
            "attn_mask should not be set when is_causal": ((q, k, k), {"attn_mask": randn(3, 4), "is_causal": True}),
            "attn_mask dtype": ((q, k, k), {"attn_mask": torch.ones(3, 4, dtype=torch.int32, device=DEVICE)}),
            "dropout probability": ((q, k, k), {"dropout_p": 1.5}),
            "must divide the number of heads": ((randn(2, 3, 3, 8), k, k), {"enable_gqa": True}),
        }
        for words, (args, options) in wrong.items():
            for function in (PYTORCH, ours):
                with self.subTest(words=words, function=function), self.assertRaisesRegex(RuntimeError, words):
                    function(*args, **options)
        for function in (PYTORCH, ours):
            with self.subTest(function=function), self.assertRaisesRegex(TypeError, "'key'.* must be Tensor, not list"):
                function(q, [1], k)
        for name, kind, values in (
            ("is_causal", "bool", (1, None, "x", torch.tensor(True))),
            ("enable_gqa", "bool", (1, None, "x")),
            ("dropout_p", "float", (None, "x", 0j, torch.zeros(1))),
            ("scale", "float", ("x", 0j, torch.ones(1))),
            ("attn_mask", "Tensor", (3, [[True]])),
        ):
            for value in values:
                for function in (PYTORCH, ours):
                    with self.subTest(name=name, value=value, function=function):
                        with self.assertRaisesRegex(TypeError, f"argument '{name}' must be {kind}, not "):
                            function(q, k, k, **{name: value})
        for number in (1, True, torch.tensor(0.5)):
            self.same(q, k, k, scale=number)
        for words, args, options in (
            ("as many dims", (q, k[..., :7], k), {}),
            ("as many keys", (q, k, k[:, :, :3]), {}),
            ("broadcastable", (q, k, k), {"attn_mask": randn(3, 5)}),
            ("broadcastable", (q, k, k), {"attn_mask": randn(1, 2, 2, 3, 4)}),
            (None, (q, randn(2, 3, 4, 8), randn(2, 3, 4, 8)), {}),
        ):
            with self.subTest(words=words), self.assertRaisesRegex(RuntimeError, words or ""):
                ours(*args, **options)

    def test_what_is_not_served(self):
        q, k = randn(2, 2, 3, 8), randn(2, 2, 4, 8)
        grad = q.clone().requires_grad_()
        declined = {
            "dropout_p": lambda: ours(q, k, k, dropout_p=0.1),
            "query.dtype is torch.float64": lambda: ours(q.double(), k.double(), k.double()),
            "query.requires_grad": lambda: ours(grad, k, k),
            "key.requires_grad": lambda: fastattn.torch.attention(q, k.clone().requires_grad_(), k),
            "attn_mask.requires_grad": lambda: ours(q, k, k, attn_mask=randn(3, 4).requires_grad_()),
            "sinks.requires_grad": lambda: fastattn.torch.attention(q, k, k, sinks=torch.zeros(2, requires_grad=True)),
            "query.requires_grad:": lambda: torch.ops.fastattn.attention(grad, k, k),
            "nested": lambda: ours(*(torch.nested.nested_tensor([x[0], x[1]], layout=torch.jagged) for x in (q, k, k))),
        }
        for words, call in declined.items():
            with self.subTest(words=words), self.assertRaisesRegex(NotImplementedError, words):
                call()
        with torch.no_grad():
            self.assertTrue(torch.equal(ours(grad, k, k), ours(q, k, k)))
        with torch.inference_mode():
            self.assertTrue(torch.equal(ours(grad, k, k), ours(q, k, k)))

    def test_parameters_without_gradients(self):
        """Parameters and subclasses of them, and of tensors, that require a gradient, where none is wanted."""

        class Parameter(torch.nn.Parameter):
            pass

        class Tensor(torch.Tensor):
            pass

        q, k = randn(2, 2, 3, 8), randn(2, 2, 4, 8)
        want = ours(q, k, k)
        for x in (torch.nn.Parameter(q), Parameter(q), q.as_subclass(Tensor).clone().requires_grad_()):
            for off in (torch.no_grad, torch.inference_mode):
                for function in (ours, fastattn.torch.attention, fastattn.attention):
                    with self.subTest(type=type(x), function=function), off():
                        self.assertTrue(torch.equal(function(x, k, k), want))
            with self.assertRaisesRegex(fastattn.UnsupportedError, "q.requires_grad"):
                fastattn.attention(x, k, k)
            out = type(x)(torch.empty_like(q)) if isinstance(x, torch.nn.Parameter) else torch.empty_like(x)
            with torch.no_grad():
                self.assertIs(fastattn.attention(q, k, k, out=out), out)
                self.assertTrue(torch.equal(out, want))

    def test_subclass(self):
        class Sub(torch.Tensor):
            pass

        q, k = randn(1, 2, 3, 8), randn(1, 2, 4, 8)
        found = ours(q.as_subclass(Sub), k, k)
        self.assertIs(type(found), Sub)
        self.assertTrue(torch.equal(found.as_subclass(torch.Tensor), ours(q, k, k)))


class TestOperator(unittest.TestCase):
    def inputs(self):
        return randn(2, 4, 5, 16), randn(2, 2, 9, 16), randn(2, 2, 9, 24)

    def test_opcheck(self):
        q, k, v = self.inputs()
        some = [
            {},
            {"mask": "causal", "scale": 0.3, "softcap": 20.0},
            {"attn_mask": randn(5, 9)[None, None]},
            {"attn_mask": randn(2, 1, 5, 9) > 0, "sinks": torch.randn(4)},
            {"window_left": 3, "window_right": 1, "alibi_slopes": torch.rand(4)},
            {
                "lens_kv": torch.tensor([9, 4]),
                "first_kv": torch.tensor([1, 0]),
                "alignment": "top_left",
                "diagonal_offset": 2,
            },
        ]
        for options in some:
            for operator in (torch.ops.fastattn.attention.default, torch.ops.fastattn.attention_lse.default):
                with self.subTest(operator=operator, options=list(options)):
                    torch.library.opcheck(operator, (q, k, v), options)

    def test_meta(self):
        """Shapes without memory."""
        found = fastattn.torch.attention(*(x.to("meta") for x in self.inputs()), mask="causal")
        self.assertEqual((found.device.type, found.shape), ("meta", (2, 4, 5, 24)))

    def test_operator_and_function_agree(self):
        for rows in (1, 5):
            q, k, v = self.inputs()
            q = q[:, :, :rows]
            found, direct = (
                torch.ops.fastattn.attention(q, k, v, mask="causal"),
                fastattn.torch.attention(q, k, v, mask="causal"),
            )
            self.assertTrue(torch.equal(found, direct))
            self.assertEqual(found.shape, direct.shape)
            self.assertTrue(found.transpose(1, 2).is_contiguous() and direct.transpose(1, 2).is_contiguous())

    def test_compile(self):
        """One graph, the operator in it, also when sizes change."""
        q, k, v = self.inputs()
        seen = []

        def backend(graph, _):
            seen.append([str(node.target) for node in graph.graph.nodes if "fastattn" in str(node.target)])
            return graph

        def compute(q, k, v):
            return ours(q * 2, k, v, is_causal=True, enable_gqa=True) + 1

        compiled = torch.compile(compute, fullgraph=True, dynamic=True, backend=backend)
        sizes = [q[:, :, :rows].clone() for rows in (5, 4, 3)]  # no views, whose bases PyTorch guards too
        with torch.no_grad():
            for part in sizes:
                self.assertTrue(torch.equal(compiled(part, k, v), compute(part, k, v)))
        self.assertEqual(seen, [["fastattn.attention.default"]])

    @unittest.skipUnless(LONG, "compiles C++")
    def test_inductor(self):
        q, k, v = self.inputs()

        def compute(q, k, v):
            return ours(q * 2, k, v, is_causal=True, enable_gqa=True).transpose(1, 2).reshape(2, 5, -1) + 1

        with torch.no_grad():
            self.assertTrue(torch.allclose(torch.compile(compute, fullgraph=True)(q, k, v), compute(q, k, v)))

    def test_export(self):
        class Model(torch.nn.Module):
            def forward(self, q, k, v):
                return ours(q, k, v, enable_gqa=True)

        q, k, v = self.inputs()
        rows = torch.export.Dim("rows", min=2, max=64)
        program = torch.export.export(Model(), (q, k, v), dynamic_shapes=({2: rows}, None, None))
        self.assertEqual(
            [str(node.target) for node in program.graph.nodes if "fastattn" in str(node.target)],
            ["fastattn.attention.default"],
        )
        longer = randn(2, 4, 11, 16)
        self.assertTrue(torch.equal(program.module()(longer, k, v), ours(longer, k, v, enable_gqa=True)))


class TestDocs(unittest.TestCase):
    def test_examples(self):
        """The examples of docs/integrations.md run."""
        text = (pathlib.Path(__file__).parents[2] / "docs" / "integrations.md").read_text(encoding="utf-8")
        section = text.partition("\n## PyTorch\n")[2].partition("\n## ")[0]
        blocks = re.findall(r"```python\n(.*?)```", section, re.S)
        self.assertGreater(len(blocks), 0)
        names = {}
        for block in blocks:
            exec(block, names)  # noqa: S102


if __name__ == "__main__":
    unittest.main()
