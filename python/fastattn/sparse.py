# SPDX-License-Identifier: Apache-2.0
"""Planners of sparse attention: which blocks of keys a block of rows meets, as the field's papers choose them.

They compute on the host, and need NumPy. Each returns a BlockLists, for `lists` of attention(), supports() and Plan;
the same arguments give the same lists everywhere. docs/sparse.md has what each promises and what it costs.

What they share: rows and keys are those of a sequence. block_rows and block_keys: the sizes of blocks; 0: what the
planner says. mask: as attention() has it, None or 'none', 'causal' or 'causal_bottom_right', 'causal_top_left'; lists
lack the blocks that it hides from all rows of a block, and attention() is given it too. Arrays are of NumPy, or what
numpy.asarray() takes; they are read during the call.

Errors: InvalidError: a value is wrong; TypeError: a type; both name the argument. OutOfMemoryError: no memory, or more
than 2**31 - 1 blocks in all lists. Thread-safe; other threads of Python run meanwhile.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from . import BlockLists, InvalidError, Neighbourhood, _core
from .cache import _whole

__all__ = ["distance", "neighbourhood", "neighbourhood_order", "permuted", "streaming", "topk", "window"]

Mask = Literal["none", "causal", "causal_top_left", "causal_bottom_right"]


def _read(name: str, value: Any) -> Any:
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} is of type {type(value)}, which is no array: {error}") from None


def _array(name: str, value: Any, dtype: str, *sizes: int | None) -> Any:
    """The value as a contiguous array of the type, with axes of the sizes; None: of any size."""
    array = _read(name, value)
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}.dtype is {array.dtype}, expected {dtype}")
    if len(array.shape) != len(sizes) or any(size not in (None, n) for size, n in zip(sizes, array.shape)):
        expected = ", ".join("any" if size is None else str(size) for size in sizes)
        raise InvalidError(f"{name} has the shape {array.shape}, expected ({expected})")
    cast = np.ascontiguousarray(array, dtype)
    if array.dtype.kind in "iu" and not np.array_equal(cast, array):
        raise InvalidError(f"{name} has numbers that do not fit into {dtype}")
    return cast


def _plan(planner: str, **fields: Any) -> BlockLists:
    return BlockLists(**_core.sparse(planner, fields))


def _vectors(q: Any, k: Any) -> dict[str, Any]:
    """The fields of q (heads, rows, dim) and k (heads_kv, keys, dim)."""
    q = _array("q", q, "float32", None, None, None)
    k = _array("k", k, "float32", None, None, q.shape[2])
    if len(k) == 0 or len(q) % len(k):
        raise InvalidError(f"q.shape[0] is {len(q)}, expected a multiple of k.shape[0], {len(k)}")
    return {"q": q, "k": k, "heads_q": len(q), "heads_kv": len(k), "rows": q.shape[1], "keys": k.shape[1],
            "dim": q.shape[2]}


def window(
    rows: int,
    keys: int,
    *,
    window_left: int = 0,
    window_right: int = 0,
    global_first: int = 0,
    global_last: int = 0,
    random: int = 0,
    seed: int = 0,
    heads: int = 1,
    block_rows: int = 0,
    block_keys: int = 0,
    mask: Mask | None = None,
) -> BlockLists:
    """Sliding window, global and random blocks: Longformer, BigBird.

    A block of rows meets the blocks with keys from window_left before to window_right behind some row's position; the
    first `global_first` and the last `global_last` blocks; all blocks, if one of its rows stands in such a one; and
    `random` further ones, drawn by `seed`. If all five are 0 they are BigBird's: a block on each side, the first and
    the last block, three random ones.

    seed: a number of 64 bits with a sign. heads: how many lists are drawn. block_rows and block_keys are 64 if 0.
    """
    return _plan("window", rows=rows, keys=keys, window_left=window_left, window_right=window_right,
                 global_first=global_first, global_last=global_last, random=random, seed=seed, heads=heads,
                 block_rows=block_rows, block_keys=block_keys, mask=mask)


def streaming(
    rows: int,
    keys: int,
    head_mask_type: Any,
    *,
    streaming_info: Any = None,
    base_blockmask: Any = None,
    block_rows: int = 0,
    block_keys: int = 0,
    mask: Mask | None = None,
) -> BlockLists:
    """A kind for each head: Block-Sparse-Attention, with streaming heads as in StreamingLLM and DuoAttention.

    head_mask_type: (heads,), whole numbers. 0: the head meets all blocks. -1: it meets the first blocks, the sinks, and
        the local ones, which end with that of the last row's position. n > 0: as base_blockmask number n - 1 says.
    streaming_info: (heads, 2), how many sinks and local blocks; None: 1 and 3.
    base_blockmask: (sequences, masks, row blocks, key blocks), bool or whole numbers; what is not 0 is met.

    block_rows and block_keys are 128 if 0.
    """
    types = _array("head_mask_type", head_mask_type, "int32", None)
    fields: dict[str, Any] = {"heads": len(types), "head_mask_type": types}
    if streaming_info is not None:
        fields["streaming_info"] = _array("streaming_info", streaming_info, "int32", len(types), 2)
    if base_blockmask is not None:
        blocks = [-(-_whole(name, count) // (_whole("block_" + name, size) or 128))
                  for name, count, size in (("rows", rows, block_rows), ("keys", keys, block_keys))]
        base = _array("base_blockmask", _read("base_blockmask", base_blockmask) != 0, "bool", None, None, *blocks)
        fields |= {"base_blockmask": base, "sequences": base.shape[0], "masks": base.shape[1]}
    return _plan("streaming", rows=rows, keys=keys, block_rows=block_rows, block_keys=block_keys, mask=mask, **fields)


def topk(
    q: Any,
    k: Any,
    topk: int = 8,
    *,
    per_kv_head: bool = False,
    block_rows: int = 0,
    block_keys: int = 0,
    mask: Mask | None = None,
) -> BlockLists:
    """The blocks of keys whose mean key has the largest products with a row: MoBA, FlashMoBA.

    q: (heads, rows, dim); k: (heads_kv, keys, dim); floats, read as float32. heads is a multiple of heads_kv.
    topk: so many blocks of keys for each row; with a causal mask its own is one of them.
    per_kv_head: True: the query heads of a KV head share lists, which have the blocks of all.

    block_rows is 1 if 0, as the paper has it: a block of rows meets what one of its rows does, so that more rows give
    more blocks and fewer lists. block_keys is 128 if 0.
    """
    return _plan("topk", topk=topk, per_kv_head=bool(per_kv_head), block_rows=block_rows, block_keys=block_keys,
                 mask=mask, **_vectors(q, k))


def permuted(
    q: Any,
    k: Any,
    *,
    scale: float | None = None,
    segment: int = 0,
    threshold: float | None = None,
    without_own: bool = False,
    block_rows: int = 0,
    block_keys: int = 0,
    mask: Mask | None = None,
) -> tuple[BlockLists, Any]:
    """Keys sorted within segments, then blocks by a threshold: PBS-Attn. Returns (lists, order).

    Keys of a segment are sorted by the weight that the last rows give them. A block of rows meets its own segment, the
    block of key 0, and of other segments the fewest blocks whose softmax, of means of rows and of keys, is `threshold`.
    order: (heads_kv, keys), int32: key p of a head, as lists count them, is key order[head, p] of k and v, which the
    caller moves. With a causal mask attention() is given none, as it would cut by the new order: what rows see of their
    own segment, attn_mask says.

    q: (heads, rows, dim); k: (heads_kv, keys, dim) of as many keys; floats, read as float32.
    scale: of the products; None: 1/sqrt(dim). segment: keys, a multiple of both blocks; 0: 256. threshold: above 0, at
    most 1; None: 0.9. without_own: True: lists lack the own segment. block_rows and block_keys are 128 if 0.
    """
    vectors = _vectors(q, k)
    order = np.zeros((vectors["heads_kv"], vectors["keys"]), np.int32)
    lists = _plan("permuted", scale=scale, segment=segment, threshold=threshold, without_own=bool(without_own),
                  order=order, block_rows=block_rows, block_keys=block_keys, mask=mask, **vectors)
    return lists, order


def neighbourhood(
    neighbourhood: Neighbourhood, *, block_rows: int = 0, block_keys: int = 0, extra_keys: int = 0
) -> BlockLists:
    """The lists of a neighbourhood, which attention(neighbourhood=...) makes itself: to see them, or for other blocks.

    They have what rows see and more; attention() is given the neighbourhood too, which cuts the rest.

    extra_keys: keys behind the grid's, which all rows see. block_rows and block_keys are whole patches of 64 tokens or
    more if 0.
    """
    return _plan("neighbourhood", neighbourhood=neighbourhood, block_rows=block_rows, block_keys=block_keys,
                 extra_keys=extra_keys)


def neighbourhood_order(neighbourhood: Neighbourhood) -> Any:
    """The order in which rows and keys of a neighbourhood come, int32: token p of them is token order[p] of row-major
    order."""
    return _core.neighbourhood_order(neighbourhood)


def distance(
    rows: int,
    keys: int,
    *,
    probability: Any = None,
    seed: int = 0,
    heads: int = 1,
    block_rows: int = 0,
    block_keys: int = 0,
    mask: Mask | None = None,
) -> BlockLists:
    """Blocks that are drawn, each with a probability that its distance gives: PrFlashAttention.

    A block of rows meets its own block of keys, and one that is n blocks of keys away with probability[n], or with the
    last number if there are fewer; None: from 1 evenly down to 1 / (blocks of keys).

    seed: a number of 64 bits with a sign. heads: how many lists are drawn. block_rows and block_keys are 128 if 0.
    """
    fields: dict[str, Any] = {}
    if probability is not None:
        numbers = _array("probability", probability, "float64", None)
        fields = {"probability": numbers, "distances": len(numbers)}
    return _plan("distance", rows=rows, keys=keys, seed=seed, heads=heads, block_rows=block_rows,
                 block_keys=block_keys, mask=mask, **fields)
