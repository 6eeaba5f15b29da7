# SPDX-License-Identifier: Apache-2.0
"""Exact attention on the CPU, CUDA, OpenCL and Vulkan, for arrays of NumPy, PyTorch, JAX and CuPy."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from . import _core
from ._core import (
    CompileError,
    DeviceLostError,
    Error,
    InvalidError,
    NoDeviceError,
    OutOfMemoryError,
    Plan,
    UnsupportedError,
    __version__,
    attention,
    plan_cache_info,
    plan_cache_resize,
    supports,
)
from .cache import Cache

__all__ = [
    "BlockLists",
    "Cache",
    "CompileError",
    "Device",
    "DeviceLostError",
    "Error",
    "InvalidError",
    "Neighbourhood",
    "NoDeviceError",
    "OutOfMemoryError",
    "Plan",
    "Spec",
    "UnsupportedError",
    "__version__",
    "attention",
    "devices",
    "merge",
    "plan_cache_info",
    "plan_cache_resize",
    "supports",
]


@dataclass(frozen=True)
class Device:
    """A device of a backend, usable or not. Every argument `device` takes one, or its name."""

    backend: str
    index: int
    name: str
    available: bool
    reason: str
    automatic: bool
    host_memory: bool
    units: int
    onchip_bytes: int

    def __str__(self) -> str:
        return f"{self.backend}:{self.index}"

    @property
    def kernels(self) -> list[str]:
        """The names of its kernels. Opens the device; NoDeviceError if that cannot be done."""
        return _core.kernels(str(self)).split(",")


def devices() -> list[Device]:
    """All devices; one that cannot be used says why in its `reason`."""
    return [Device(**entry) for entry in _core.devices()]


@dataclass(frozen=True)
class Spec:
    """An array without memory: what Plan and supports() need to know of one. `dtype` is any name of a type,
    "float16" or "q8_0"; `strides` count elements, None is contiguous; `device` is None (host memory) or "cuda:N"."""

    shape: tuple[int, ...]
    dtype: object = "float32"
    strides: tuple[int, ...] | None = None
    device: object = None


@dataclass(frozen=True, eq=False)
class BlockLists:
    """Lists of key blocks: block-sparse attention, for `lists` of attention(), supports() and Plan.

    Rows of a sequence are cut into blocks of `block_rows`, its keys into blocks of `block_keys`, both counted from 0. A
    row sees a key only if the key's block is in the list of the row's block. What no list has is not computed. Give
    `mask`, or `indptr` and `indices`; arrays lie in host memory.

    mask: bool (or uint8), (row_blocks, key_blocks), (heads, row_blocks, key_blocks) or (sequences, heads, row_blocks,
        key_blocks); True: the block is in the list.
    indptr, indices: compressed rows, of whole numbers of 32 bits (lists, or int32 or int64 arrays of one axis). List
        L = (sequence * heads + head) * row_blocks + row block is indices[indptr[L]:indptr[L + 1]], in any order.
    sequences, heads: 1 (lists for all), or all: the batch or the packed sequences; the heads of q or of k. None: as
        mask says, or 1.
    row_blocks, key_blocks: at least what the longest sequence needs (with dynamic_lengths, the longest that there may
        be). None: as mask says; with indptr, what indptr says, and what the array of k (or its page table) holds.

    Attributes are read, and copied, by the call that is given them. Errors name them, as "lists.indptr[3]":
    InvalidError: a value is wrong; TypeError: a type.
    """

    block_rows: int
    block_keys: int
    mask: Any = None
    indptr: Any = None
    indices: Any = None
    sequences: int | None = None
    heads: int | None = None
    row_blocks: int | None = None
    key_blocks: int | None = None


@dataclass(frozen=True)
class Neighbourhood:
    """Neighbourhood attention (NATTEN), for `neighbourhood` of attention(), supports() and Plan.

    Tokens are those of a grid. On each axis a token sees a window of `kernel` tokens around it, shifted inwards at the
    borders; it sees another token if it does so on all axes.

    size: tokens on each axis, of 1 to 3 axes; the last one is the fastest.
    kernel: tokens of the window, 1 to size / dilation.
    stride: so many tokens share a window, 1 to kernel; None: 1.
    dilation: a token sees only those whose number differs by a multiple of it, 1 to size; None: 1.
    causal: True: none behind the token's own.
    tile: tokens of a patch. Rows and keys come in an order where those of a patch follow each other, which
        fastattn.sparse.neighbourhood_order() tells. None: 64, with two axes 8, with three 4. What divides the lengths
        costs least.

    Each is one number for all axes, or a list or int32 or int64 array with a number for each. Attributes are read, and
    copied, by the call that is given them. Errors name them, as "neighbourhood.kernel[1]": InvalidError: a value is
    wrong; TypeError: a type.
    """

    size: Any
    kernel: Any
    stride: Any = None
    dilation: Any = None
    causal: Any = False
    tile: Any = None


def merge(partial: Any, partial_lse: Any, *, out: Any = None) -> tuple[Any, Any]:
    """Merges the results of attention over parts of the keys: (o, lse) over all of them.

    partial: (parts, ...) with the axes of a result behind, or a sequence of results; float32, float16 or bfloat16.
    partial_lse: their LSEs, float32, likewise (return_lse=True gives one). A part whose LSE is -inf is not read.
    out: where o goes; None: a new array like partial. On the CPU `out` may be one of the parts.

    Errors: InvalidError, UnsupportedError. On CUDA the call waits until the merge is done.
    """
    if isinstance(partial, (list, tuple)):
        partial = _stack(partial)
    if isinstance(partial_lse, (list, tuple)):
        partial_lse = _stack(partial_lse)
    return _core.merge(partial, partial_lse, out=out)


def _stack(arrays: Any) -> Any:
    if not arrays:
        raise InvalidError("partial is empty, expected at least one result")
    root = type(arrays[0]).__module__.partition(".")[0]
    if root == "jaxlib":
        root = "jax.numpy"
    module: Any = importlib.import_module(root)
    return module.stack(arrays)
