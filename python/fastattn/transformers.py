# SPDX-License-Identifier: Apache-2.0
"""fastattn as an attention of Hugging Face transformers.

    import fastattn.transformers
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="fastattn")

The import registers an attention function and a mask function under the name "fastattn". A model then computes its
attention with `fastattn.torch.attention`: grouped heads, sliding windows, softcap, sinks and position biases included,
with dynamic and static caches.

Masks that the library has itself are not written to memory: causal masks, sliding windows, and padding that hides the
keys before the first or behind the last token of each sequence. Any other mask is a tensor of booleans.

A row that sees no key, as the rows of padding, gives 0. Not served, with a NotImplementedError that says so: gradients,
dropout, attention weights as an output, and continuous batching.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import (
    and_masks,
    bidirectional_mask_function,
    causal_mask_function,
    prepare_padding_mask,
    sdpa_mask,
    sliding_window_bidirectional_overlay,
    sliding_window_overlay,
)
from transformers.utils.import_utils import is_tracing

from .torch import attention

__all__ = ["Mask", "attention_forward", "attention_mask"]

_AND = and_masks(causal_mask_function).__code__
_WINDOW = sliding_window_overlay(1).__code__
_WINDOW_BOTH = sliding_window_bidirectional_overlay(1).__code__


@dataclass(frozen=True)
class _Pattern:
    """A mask as the library's own options. Row i stands at key i + diagonal_offset."""

    is_causal: bool = False
    window: tuple[int, int] = (-1, -1)  # keys before and behind the row's own; -1: all
    diagonal_offset: int = 0
    first_kv: torch.Tensor | None = None  # (batch), int32, in host memory: the first key that is no padding
    lens_kv: torch.Tensor | None = None  # likewise: one behind the last

    def options(self, keys):
        """As arguments of fastattn.torch.attention(), for so many keys."""
        found = {}
        left, right = self.window
        # Of one row at the last key, as in decoding, a causal mask hides nothing.
        causal = self.is_causal and self.diagonal_offset < keys - 1
        if causal or left >= 0 or right >= 0:
            found["mask"] = "causal_top_left" if causal else "none"
            found["alignment"] = "top_left"
            found["diagonal_offset"] = self.diagonal_offset
            found["window_left"], found["window_right"] = left, right
        if self.first_kv is not None:
            found["first_kv"] = self.first_kv
        if self.lens_kv is not None:
            found["lens_kv"] = self.lens_kv
        return found


class Mask(torch.Tensor):
    """A mask of shape (batch, 1, rows, keys), bool, that is not in memory.

    The attention function reads `pattern`. Any other operation first writes the mask out as an ordinary tensor, so that
    a model may slice it or combine it with another.
    """

    @staticmethod
    def __new__(cls, pattern, shape, device, write):
        mask = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=torch.bool, device=device)
        mask.pattern = pattern
        mask.options = pattern.options(shape[3])
        mask.write = write
        return mask

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **options):
        return f"Mask({tuple(self.shape)}, {self.pattern})"

    def __deepcopy__(self, memo):
        return self  # nothing writes to it

    def __setitem__(self, index, value):
        raise NotImplementedError("fastattn: this mask is read-only: write to mask.clone()")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        def dense(value):
            return value.write().contiguous() if isinstance(value, cls) else value  # its strides say so

        if func._schema.is_mutable and isinstance(args[0], cls):
            raise NotImplementedError("fastattn: this mask is read-only: write to mask.clone()")
        args, kwargs = torch.utils._pytree.tree_map(dense, (args, kwargs or {}))
        return func(*args, **kwargs)


def _shape_of(mask_function):
    """is_causal and the window of a mask function of transformers, or None if it is of another kind."""
    if mask_function is causal_mask_function:
        return True, (-1, -1)
    if mask_function is bidirectional_mask_function:
        return False, (-1, -1)
    code = getattr(mask_function, "__code__", None)
    if code not in (_AND, _WINDOW, _WINDOW_BOTH):
        return None
    values = [cell.cell_contents for cell in mask_function.__closure__]
    if code is _AND:
        shapes = [_shape_of(part) for part in values[0]]
        if None in shapes:
            return None
        windows = [[side for side in sides if side >= 0] for sides in zip(*(window for _, window in shapes))]
        return any(causal for causal, _ in shapes), tuple(min(sides, default=-1) for sides in windows)
    if not isinstance(values[0], int) or values[0] < 1:
        return None
    return False, ((values[0] - 1, -1) if code is _WINDOW else (values[0], values[0]))


def _padding(attention_mask, kv_length, kv_offset):
    """The first key and the end of each sequence, as two lists, or None if tokens and padding alternate."""
    padding = prepare_padding_mask(attention_mask, kv_length, kv_offset)[:, kv_offset : kv_offset + kv_length]
    padding = padding.cpu().numpy()
    first = padding.argmax(1)
    end = first + padding.sum(1)
    if any(not row[a:b].all() for row, a, b in zip(padding, first, end)):
        return None
    return first.tolist(), end.tolist()


def attention_mask(
    batch_size,
    q_length,
    kv_length,
    q_offset=0,
    kv_offset=0,
    mask_function=causal_mask_function,
    attention_mask=None,
    use_vmap=False,
    device="cpu",
    **kwargs,
):
    """The mask function that transformers calls: a `Mask`, or a tensor of booleans where the library has no such mask.

    The arguments are those of transformers' `sdpa_mask`. While PyTorch traces or compiles, the mask is a tensor, or
    None for a plain causal mask; and it is a tensor while a static cache is decoded from, which transformers may
    compile.
    """
    write = partial(
        sdpa_mask,
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=False,
        use_vmap=use_vmap,
        device=device,
    )
    if is_tracing(attention_mask if attention_mask is not None else q_offset):
        plain = mask_function is causal_mask_function and attention_mask is None and kwargs.get("allow_is_causal_skip")
        if plain and not isinstance(q_offset, torch.Tensor) and kv_offset == 0 and kv_length == q_length:
            return None
        return write(q_offset=q_offset)
    # A static cache's offset lies on its device, and a graph may be recorded there: it is not read.
    if isinstance(q_offset, torch.Tensor) and q_offset.device.type != "cpu":
        return write(q_offset=q_offset)
    q_offset = int(q_offset)
    shape = None if use_vmap else _shape_of(mask_function)
    # Decoding from a static cache may be compiled: a tensor of one shape lets one graph serve all steps.
    compiled = q_length == 1 and not kwargs.get("allow_is_causal_skip", True)
    if shape is None or shape[0] and compiled:
        return write(q_offset=q_offset)

    first = end = None
    if attention_mask is not None:
        lists = _padding(attention_mask, kv_length, kv_offset)
        if lists is None:
            return write(q_offset=q_offset)
        if any(lists[0]):
            first = torch.tensor(lists[0], dtype=torch.int32, device="cpu")
        if any(end != kv_length for end in lists[1]):
            end = torch.tensor(lists[1], dtype=torch.int32, device="cpu")
    pattern = _Pattern(*shape, q_offset - kv_offset, first, end)
    return Mask(pattern, (batch_size, 1, q_length, kv_length), device, partial(write, q_offset=q_offset))


def attention_forward(
    module,
    query,
    key,
    value,
    attention_mask,
    dropout=0.0,
    scaling=None,
    is_causal=None,
    sliding_window=None,
    softcap=None,
    s_aux=None,
    position_bias=None,
    output_attentions=False,
    **kwargs,
):
    """The attention function that transformers calls: (batch, heads, rows, dim) to (batch, rows, heads, dim)."""
    if dropout:
        raise NotImplementedError(f"fastattn: dropout {dropout}: only 0 is served; call model.eval()")
    if output_attentions:
        raise NotImplementedError('fastattn: output_attentions: weights are not kept; use attn_implementation="eager"')
    if isinstance(attention_mask, Mask):
        if attention_mask.shape[-1] != key.shape[-2]:
            raise ValueError(
                f"fastattn: attention_mask is of {attention_mask.shape[-1]} keys, but key has {key.shape[-2]}"
            )
        options = dict(attention_mask.options)
        options["attn_mask"] = position_bias
    elif attention_mask is not None:
        options = {"attn_mask": _with_bias(attention_mask, position_bias)}
    else:
        causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
        options = {"mask": "causal" if causal else "none", "attn_mask": position_bias}
        if sliding_window is not None:
            options["window_left"], options["window_right"] = sliding_window - 1, -1 if causal else sliding_window - 1
    options["scale"] = scaling
    if softcap is not None:
        options["softcap"] = softcap
    if s_aux is not None:
        options["sinks"] = s_aux
    if query.shape[0] != key.shape[0]:  # learned queries of one batch entry
        query = query.expand(key.shape[0], -1, -1, -1)
    return attention(query, key, value, **options).transpose(1, 2), None


def _with_bias(attention_mask, position_bias):
    """A mask and a bias as one tensor."""
    if position_bias is None:
        return attention_mask
    if attention_mask.dtype == torch.bool:
        return torch.where(attention_mask, position_bias, float("-inf"))
    return attention_mask + position_bias


AttentionInterface.register("fastattn", attention_forward)
AttentionMaskInterface.register("fastattn", attention_mask)
