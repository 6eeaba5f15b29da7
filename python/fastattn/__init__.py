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
    "Cache",
    "CompileError",
    "Device",
    "DeviceLostError",
    "Error",
    "InvalidError",
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
