# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import Any, Literal, SupportsFloat, TypedDict, final, overload

from . import BlockLists, Neighbourhood

__version__: str

class Error(Exception): ...
class InvalidError(Error, ValueError): ...
class UnsupportedError(Error, NotImplementedError): ...
class NoDeviceError(Error, RuntimeError): ...
class OutOfMemoryError(Error, MemoryError): ...
class DeviceLostError(Error, RuntimeError): ...
class CompileError(Error, RuntimeError): ...

class _CacheInfo(TypedDict):
    hits: int
    misses: int
    maxsize: int
    currsize: int

# An array is of NumPy, PyTorch, JAX or CuPy, none of which has to be installed: so its type is Any.
@overload
def attention(
    q: Any,
    k: Any,
    v: Any = None,
    *,
    out: Any = None,
    mask: Literal["none", "causal", "causal_top_left", "causal_bottom_right"] | None = None,
    is_causal: bool = False,
    attn_mask: Any = None,
    scale: SupportsFloat | None = None,
    enable_gqa: bool = True,
    layout: Literal["BHSD", "BSHD"] = "BHSD",
    softcap: SupportsFloat = 0.0,
    window: Sequence[int | None] | None = None,
    window_size: Sequence[int] | None = None,
    prefix: int = 0,
    diagonal_offset: int = 0,
    alignment: Literal["top_left", "bottom_right"] | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    bias_factors: Any = None,
    lens_q: Any = None,
    lens_kv: Any = None,
    first_kv: Any = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    lists: BlockLists | None = None,
    neighbourhood: Neighbourhood | None = None,
    page_table: Any = None,
    k_format: str | None = None,
    v_format: str | None = None,
    k_scale: Any = None,
    v_scale: Any = None,
    k_zero: Any = None,
    v_zero: Any = None,
    k_factor: SupportsFloat | None = None,
    v_factor: SupportsFloat | None = None,
    keep_last: int = 0,
    v_in_k: int | None = None,
    dynamic_lengths: bool = False,
    return_lse: Literal[False] = False,
    device: object = None,
    kernel: str | None = None,
    block_q: int = 0,
    block_kv: int = 0,
    splits: int = 0,
) -> Any: ...
@overload
def attention(
    q: Any,
    k: Any,
    v: Any = None,
    *,
    out: Any = None,
    mask: Literal["none", "causal", "causal_top_left", "causal_bottom_right"] | None = None,
    is_causal: bool = False,
    attn_mask: Any = None,
    scale: SupportsFloat | None = None,
    enable_gqa: bool = True,
    layout: Literal["BHSD", "BSHD"] = "BHSD",
    softcap: SupportsFloat = 0.0,
    window: Sequence[int | None] | None = None,
    window_size: Sequence[int] | None = None,
    prefix: int = 0,
    diagonal_offset: int = 0,
    alignment: Literal["top_left", "bottom_right"] | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    bias_factors: Any = None,
    lens_q: Any = None,
    lens_kv: Any = None,
    first_kv: Any = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    lists: BlockLists | None = None,
    neighbourhood: Neighbourhood | None = None,
    page_table: Any = None,
    k_format: str | None = None,
    v_format: str | None = None,
    k_scale: Any = None,
    v_scale: Any = None,
    k_zero: Any = None,
    v_zero: Any = None,
    k_factor: SupportsFloat | None = None,
    v_factor: SupportsFloat | None = None,
    keep_last: int = 0,
    v_in_k: int | None = None,
    dynamic_lengths: bool = False,
    return_lse: Literal[True],
    device: object = None,
    kernel: str | None = None,
    block_q: int = 0,
    block_kv: int = 0,
    splits: int = 0,
) -> tuple[Any, Any]: ...
def supports(
    q: Any,
    k: Any,
    v: Any = None,
    *,
    out: Any = None,
    mask: Literal["none", "causal", "causal_top_left", "causal_bottom_right"] | None = None,
    is_causal: bool = False,
    attn_mask: Any = None,
    scale: SupportsFloat | None = None,
    enable_gqa: bool = True,
    layout: Literal["BHSD", "BSHD"] = "BHSD",
    softcap: SupportsFloat = 0.0,
    window: Sequence[int | None] | None = None,
    window_size: Sequence[int] | None = None,
    prefix: int = 0,
    diagonal_offset: int = 0,
    alignment: Literal["top_left", "bottom_right"] | None = None,
    alibi_slopes: Any = None,
    sinks: Any = None,
    bias_factors: Any = None,
    lens_q: Any = None,
    lens_kv: Any = None,
    first_kv: Any = None,
    cu_seqlens_q: Any = None,
    cu_seqlens_k: Any = None,
    lists: BlockLists | None = None,
    neighbourhood: Neighbourhood | None = None,
    page_table: Any = None,
    k_format: str | None = None,
    v_format: str | None = None,
    k_scale: Any = None,
    v_scale: Any = None,
    k_zero: Any = None,
    v_zero: Any = None,
    k_factor: SupportsFloat | None = None,
    v_factor: SupportsFloat | None = None,
    keep_last: int = 0,
    v_in_k: int | None = None,
    dynamic_lengths: bool = False,
    return_lse: bool = False,
    device: object = None,
    kernel: str | None = None,
    block_q: int = 0,
    block_kv: int = 0,
    splits: int = 0,
) -> tuple[bool, str]: ...
@final
class Plan:
    def __init__(
        self,
        q: Any,
        k: Any,
        v: Any = None,
        *,
        out: Any = None,
        mask: Literal["none", "causal", "causal_top_left", "causal_bottom_right"] | None = None,
        is_causal: bool = False,
        attn_mask: Any = None,
        scale: SupportsFloat | None = None,
        enable_gqa: bool = True,
        layout: Literal["BHSD", "BSHD"] = "BHSD",
        softcap: SupportsFloat = 0.0,
        window: Sequence[int | None] | None = None,
        window_size: Sequence[int] | None = None,
        prefix: int = 0,
        diagonal_offset: int = 0,
        alignment: Literal["top_left", "bottom_right"] | None = None,
        alibi_slopes: Any = None,
        sinks: Any = None,
        bias_factors: Any = None,
        lens_q: Any = None,
        lens_kv: Any = None,
        first_kv: Any = None,
        cu_seqlens_q: Any = None,
        cu_seqlens_k: Any = None,
        lists: BlockLists | None = None,
        neighbourhood: Neighbourhood | None = None,
        page_table: Any = None,
        k_format: str | None = None,
        v_format: str | None = None,
        k_scale: Any = None,
        v_scale: Any = None,
        k_zero: Any = None,
        v_zero: Any = None,
        k_factor: SupportsFloat | None = None,
        v_factor: SupportsFloat | None = None,
        keep_last: int = 0,
        v_in_k: int | None = None,
        dynamic_lengths: bool = False,
        return_lse: bool = False,
        device: object = None,
        kernel: str | None = None,
        block_q: int = 0,
        block_kv: int = 0,
        splits: int = 0,
    ) -> None: ...
    def run(
        self,
        q: Any,
        k: Any,
        v: Any = None,
        *,
        out: Any = None,
        attn_mask: Any = None,
        page_table: Any = None,
        k_scale: Any = None,
        v_scale: Any = None,
        k_zero: Any = None,
        v_zero: Any = None,
        lens_q: Any = None,
        lens_kv: Any = None,
        first_kv: Any = None,
        cu_seqlens_q: Any = None,
        cu_seqlens_k: Any = None,
        lists: BlockLists | None = None,
    ) -> Any: ...
    @property
    def info(self) -> dict[str, Any]: ...
    @property
    def device(self) -> str: ...

def append(
    k: Any,
    v: Any,
    cache_k: Any,
    cache_v: Any,
    slots: Any,
    *,
    positions: Any = None,
    q: Any = None,
    q_out: Any = None,
    k_scale: Any = None,
    v_scale: Any = None,
    k_zero: Any = None,
    v_zero: Any = None,
    k_format: str | None = None,
    v_format: str | None = None,
    rotary: dict[str, Any] | None = None,
) -> None: ...
def time_runs(q: Any, k: Any, v: Any) -> list[int]: ...
def merge(partial: Any, partial_lse: Any, *, out: Any = None) -> tuple[Any, Any]: ...
def sparse(planner: str, fields: dict[str, Any], /) -> dict[str, Any]: ...
def neighbourhood_order(neighbourhood: Neighbourhood, /) -> Any: ...
def devices() -> list[dict[str, Any]]: ...
def kernels(name: str, /) -> str: ...
def formats() -> dict[str, tuple[int, int]]: ...
def plan_cache_info() -> _CacheInfo: ...
def plan_cache_resize(maxsize: int, /) -> None: ...
