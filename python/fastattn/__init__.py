# SPDX-License-Identifier: Apache-2.0
"""Exact attention on the CPU, CUDA, OpenCL and Vulkan, for arrays of NumPy, PyTorch, JAX and CuPy."""

from __future__ import annotations

from dataclasses import dataclass

from . import _core
from ._core import (
    CompileError,
    DeviceLostError,
    Error,
    InvalidError,
    NoDeviceError,
    OutOfMemoryError,
    UnsupportedError,
    __version__,
    attention,
    supports,
)

__all__ = [
    "CompileError",
    "Device",
    "DeviceLostError",
    "Error",
    "InvalidError",
    "NoDeviceError",
    "OutOfMemoryError",
    "Spec",
    "UnsupportedError",
    "__version__",
    "attention",
    "devices",
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
