# SPDX-License-Identifier: Apache-2.0
"""What fastattn._core asks of frameworks; none is imported before its arrays are seen."""

from typing import Any


class _Export:
    """Memory on the CPU that an array library takes over."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def to_jax(capsule: Any) -> Any:
    import jax

    return jax.dlpack.from_dlpack(_Export(capsule))


def torch_stream(device: int) -> int:
    import torch

    return int(torch.cuda.current_stream(device).cuda_stream)


def cupy_stream() -> int:
    import cupy

    return int(cupy.cuda.get_current_stream().ptr)
