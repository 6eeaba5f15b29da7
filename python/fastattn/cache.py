# SPDX-License-Identifier: Apache-2.0
"""A cache of keys and values: sequences that grow, in pages or not, in any format of the library."""

from __future__ import annotations

import operator
from typing import Any, Mapping, Sequence

from . import _core

# Codes without a scale beside them, and whether they have a zero.
_CODES = {"i8": False, "i4": False, "i2": False, "e2m1": False, "u8": True, "u4": True, "u2": True}
_NAMES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16", "int8": "i8", "uint8": "u8",
          "float8_e4m3fn": "e4m3", "float8_e5m2": "e5m2"}

# Entries of a rotary and their types.
_ROTARY = {"form": str, "dims": int, "base": float, "scaling": str, "factor": float, "original_context": float,
           "beta_fast": float, "beta_slow": float, "attention_factor": float, "first_dim": int}


def _whole(name: str, value: Any) -> int:
    """A whole number: an int, NumPy's, or an array of no axes."""
    try:
        return int(operator.index(value))
    except TypeError:
        raise TypeError(f"{name} is of type {type(value)}, expected a whole number") from None


def _size(name: str, value: Any) -> int:
    size = _whole(name, value)
    if not 1 <= size < 1 << 31:
        raise _core.InvalidError(f"{name} is {size}, expected 1 to {(1 << 31) - 1}")
    return size


def _swapped(name: str, array: Any) -> Any:
    """An array of layout BSHD as one of BHSD, or the other way round."""
    if array is None:
        return None
    if not hasattr(array, "swapaxes"):
        raise TypeError(f"{name} is of type {type(array)}, expected an array")
    if len(array.shape) != 4:
        raise _core.InvalidError(f"{name} has the shape {tuple(array.shape)}, expected 4 axes")
    return array.swapaxes(1, 2)


def _rotary_options(rotary: Any) -> dict[str, Any] | None:
    """The entries of a rotary, each of its type. What they may be, the library says."""
    if rotary is None:
        return None
    if not isinstance(rotary, Mapping):
        raise TypeError(f"rotary is of type {type(rotary)}, expected a dict or None")
    options = {}
    for name, value in rotary.items():
        kind = _ROTARY.get(name)
        if kind is None:
            raise TypeError(f"rotary has no entry {name!r}, expected some of {', '.join(_ROTARY)}")
        if value is None:  # the library's default
            continue
        entry = f"rotary[{name!r}]"
        if kind is int:
            value = _whole(entry, value)
            if not -(1 << 31) <= value < 1 << 31:
                raise _core.InvalidError(f"{entry} is {value}, which does not fit into 32 bits")
        elif kind is float and hasattr(value, "__float__"):
            value = float(value)
        elif not isinstance(value, str) or kind is float:
            raise TypeError(f"{entry} is of type {type(value)}, expected a {'number' if kind is float else 'str'}")
        options[name] = value
    return options


class _Arrays:
    """Makes arrays where another lies: of PyTorch or CuPy if it is theirs, else of NumPy."""

    def __init__(self, like: Any) -> None:
        root = type(like).__module__.partition(".")[0]
        self._device = like.device if root == "torch" else None
        self._name = root if root in ("torch", "cupy") else "numpy"
        self._module: Any = __import__(self._name)

    def _options(self, dtype: str) -> dict[str, Any]:
        if self._name == "torch":
            return {"dtype": getattr(self._module, dtype), "device": self._device}
        return {"dtype": dtype}

    def zeros(self, shape: Sequence[int], dtype: str) -> Any:
        return self._module.zeros(tuple(shape), **self._options(dtype))

    def integers(self, rows: list[list[int]]) -> Any:
        make = self._module.tensor if self._name == "torch" else self._module.array
        return make(rows, **self._options("int32"))

    def like(self, array: Any) -> Any:
        return self._module.empty_like(array)


class Cache:
    """Keys and values of `sequences` sequences, each of which grows by append().

    heads_kv, dim, dim_v: the heads of keys and values, and the dims of a key and of a value (None: as a key's).
    max_length: the most keys of a sequence.
    page_size: None: each sequence has memory for max_length keys. A number: keys lie in pages of so many, taken from a
        pool of `pages` when they are needed (None: as many as max_length may need).
    format, v_format: how keys and values are kept: "f32", "f16", "bf16", "e4m3", "e5m2", "q8_0", "q4_0", "q4_1",
        "q5_0", "q5_1", "iq4_nl", or codes alone: "i8", "i4", "i2", "u8", "u4", "u2", "e2m1". Codes alone have a scale
        (those without a sign also a zero) for each key, head and `group` dims (None: all dims), in float32.
    rotary: None, or how keys, and queries that append() is given, are rotated: a dict of form ("halves" or
        "interleaved"), dims, base, scaling ("linear" or "yarn"), factor, original_context, beta_fast, beta_slow,
        attention_factor, first_dim. What is left out has the library's default.

    Memory is made by the first append(): where its k lies, by PyTorch or CuPy if k is theirs, else by NumPy. One
    thread at a time may use a cache.

    Errors: InvalidError, for sizes that are wrong, a sequence that is full, a pool without a page left, and a cache
    that was closed.
    """

    def __init__(
        self,
        sequences: int,
        heads_kv: int,
        dim: int,
        *,
        max_length: int,
        dim_v: int | None = None,
        page_size: int | None = None,
        pages: int | None = None,
        format: str = "f16",
        v_format: str | None = None,
        group: int | None = None,
        rotary: dict[str, Any] | None = None,
    ) -> None:
        sequences = _size("sequences", sequences)
        self._heads = _size("heads_kv", heads_kv)
        dim = _size("dim", dim)
        self._max_length = _size("max_length", max_length)
        self._dims = (dim, dim if dim_v is None else _size("dim_v", dim_v))
        self._group = None if group is None else _size("group", group)
        self._rotary = _rotary_options(rotary)
        self._formats = (
            self._format("format", format), self._format("v_format", format if v_format is None else v_format))
        self._lengths = [0] * sequences
        self._paged = page_size is not None
        self._page = self._max_length if page_size is None else _size("page_size", page_size)
        most = -(-self._max_length // self._page)
        if pages is not None and not self._paged:
            raise _core.InvalidError(f"pages is {pages}, expected None without page_size")
        entries = sequences * most if pages is None else _size("pages", pages)
        self._entries = entries
        self._most = most
        self._free = list(range(entries - 1, -1, -1)) if self._paged else []
        self._tables: list[list[int]] = [[] if self._paged else [n] for n in range(sequences)]
        self._table_array: Any = None
        self._arrays: _Arrays | None = None
        self._memory: dict[str, Any] = {}
        self._closed = False

    @staticmethod
    def _format(argument: str, name: str) -> str:
        if not isinstance(name, str):
            raise TypeError(f"{argument} is of type {type(name)}, expected a str")
        name = _NAMES.get(name, name)
        if name not in _core.formats():
            raise _core.InvalidError(f"{argument} is {name!r}, expected one of {', '.join(_core.formats())}")
        return name

    # ---- what it has ----

    @property
    def lengths(self) -> tuple[int, ...]:
        """The keys of each sequence."""
        return tuple(self._lengths)

    @property
    def free_pages(self) -> int:
        """Pages that no sequence has; 0 without pages."""
        return len(self._free)

    @property
    def nbytes(self) -> int:
        """The bytes of keys, values, scales and zeros; 0 before the first append()."""
        return sum(array.nbytes for array in self._memory.values())

    def __repr__(self) -> str:
        return f"Cache({len(self._lengths)} sequences, {'/'.join(self._formats)}, lengths {self._lengths})"

    # ---- memory ----

    def _check(self) -> None:
        if self._closed:
            raise _core.InvalidError("the cache was closed")

    def _make(self, like: Any) -> None:
        arrays = _Arrays(like)
        made: dict[str, Any] = {}
        for side, dims, name in zip("kv", self._dims, self._formats):
            block, size = _core.formats()[name]
            if dims % block:
                raise _core.InvalidError(f"dim is {dims}, expected a multiple of {block} for format {name!r}")
            axes = (self._entries, self._heads, self._page)
            made[side] = arrays.zeros((*axes, dims // block * size), "uint8")
            if name in _CODES:
                group = self._group or dims
                if dims % group:
                    raise _core.InvalidError(f"group is {group}, expected a divisor of {dims}")
                made[side + "_scale"] = arrays.zeros((*axes, dims // group), "float32")
                if _CODES[name]:
                    made[side + "_zero"] = arrays.zeros((*axes, dims // group), "float32")
        self._arrays, self._memory = arrays, made

    def _slots(self, counts: Sequence[int], rows: int) -> tuple[list[list[int]], list[list[int]]]:
        """The slots and positions of new rows; pages are taken. Nothing changes if that fails."""
        needed = []
        for n, (length, count) in enumerate(zip(self._lengths, counts)):
            if not 0 <= count <= rows:
                raise _core.InvalidError(f"lens[{n}] is {count}, expected 0 to {rows}")
            if length + count > self._max_length:
                raise _core.InvalidError(
                    f"sequence {n} has {length} keys and gets {count}, but max_length is {self._max_length}")
            needed.append(max(0, -(-(length + count) // self._page) - len(self._tables[n])))
        if sum(needed) > len(self._free):
            raise _core.InvalidError(f"{sum(needed)} pages are needed, and {len(self._free)} are free")
        slots, positions = [], []
        for n, (length, count) in enumerate(zip(self._lengths, counts)):
            for _ in range(needed[n]):
                self._tables[n].append(self._free.pop())
                self._table_array = None
            at = range(length, length + count)
            slots.append([self._tables[n][j // self._page] * self._page + j % self._page for j in at]
                         + [-1] * (rows - count))
            positions.append([*at, *[0] * (rows - count)])
        return slots, positions

    def _counts(self, lens: Any, rows: int) -> list[int]:
        """How many rows each sequence takes."""
        sequences = len(self._lengths)
        if lens is None:
            return [rows] * sequences
        if isinstance(lens, str) or not hasattr(lens, "__len__") or getattr(lens, "ndim", 1) == 0:
            return [_whole("lens", lens)] * sequences
        counts = [_whole(f"lens[{n}]", count) for n, count in enumerate(lens)]
        if len(counts) != sequences:
            raise _core.InvalidError(f"lens has {len(counts)} entries, expected {sequences}")
        return counts

    # ---- what it does ----

    def append(self, k: Any, v: Any, *, q: Any = None, lens: int | Sequence[int] | None = None,
               layout: str = "BHSD") -> Any:
        """Writes new keys and values behind those of each sequence.

        k, v: (sequences, heads_kv, rows, dim), or (sequences, rows, heads_kv, dim) with layout "BSHD"; float32, float16
        or bfloat16. lens: how many of the rows each sequence takes, the first ones; None: all. q: queries of the same
        rows, which are rotated as the keys are. Returns them, or None without q.
        """
        self._check()
        if layout not in ("BHSD", "BSHD"):
            raise _core.InvalidError(f"layout is {layout!r}, expected 'BHSD' or 'BSHD'")
        if layout == "BSHD":
            k, v, q = _swapped("k", k), _swapped("v", v), _swapped("q", q)
        if len(getattr(k, "shape", ())) != 4 or k.shape[0] != len(self._lengths):
            raise _core.InvalidError(f"k has the shape {tuple(getattr(k, 'shape', ()))}, expected 4 axes, the first of "
                                     f"{len(self._lengths)}")
        if q is not None and self._rotary is None:
            raise _core.InvalidError("q is given, but the cache has no rotary")
        if self._arrays is None:
            self._make(k)
        assert self._arrays is not None
        rows = k.shape[2]
        counts = self._counts(lens, rows)
        if rows == 0:
            return q
        before = [list(table) for table in self._tables], list(self._free)
        slots, positions = self._slots(counts, rows)
        rotated = None if q is None else _Arrays(q).like(q)
        options = {name: array for name, array in self._memory.items() if len(name) > 1}
        if self._rotary is not None:
            options |= {"positions": self._arrays.integers(positions), "rotary": self._rotary}
        if q is not None:
            options |= {"q": q, "q_out": rotated}
        try:
            _core.append(k, v, self._memory["k"], self._memory["v"], self._arrays.integers(slots),
                         k_format=self._formats[0], v_format=self._formats[1], **options)
        except Exception:
            self._tables, self._free = before
            self._table_array = None
            raise
        self._lengths = [length + count for length, count in zip(self._lengths, counts)]
        return rotated if rotated is None or layout == "BHSD" else rotated.swapaxes(1, 2)

    def attend(self, q: Any, *, layout: str = "BHSD", **options: Any) -> Any:
        """Attention of q over the keys that each sequence has.

        q: (sequences, heads, rows, dim), or as layout "BSHD" says. The last row stands at the last key, and sees the
        keys up to it (mask "causal") unless `mask` says otherwise. Other arguments are those of attention(), but for k,
        v and what the cache knows. One plan serves all lengths. Returns what attention() returns.
        """
        self._check()
        if self._arrays is None:
            raise _core.InvalidError("the cache is empty: append() comes first")
        if layout not in ("BHSD", "BSHD"):
            raise _core.InvalidError(f"layout is {layout!r}, expected 'BHSD' or 'BSHD'")
        options.setdefault("mask", "causal")
        swapped = layout == "BSHD"
        if swapped:
            q = _swapped("q", q)
            options["out"] = _swapped("out", options.get("out"))
        if self._paged:
            if self._table_array is None:
                self._table_array = self._arrays.integers(
                    [table + [0] * (self._most - len(table)) for table in self._tables])
            options["page_table"] = self._table_array
        for name, array in self._memory.items():
            if len(name) > 1:
                options[name] = array
        result = _core.attention(
            q, self._memory["k"], self._memory["v"], k_format=self._formats[0], v_format=self._formats[1],
            lens_kv=self._lengths, dynamic_lengths=True, **options)
        if not swapped:
            return result
        if isinstance(result, tuple):
            return result[0].swapaxes(1, 2), result[1]
        return result.swapaxes(1, 2)

    def truncate(self, sequence: int, length: int) -> None:
        """Forgets the keys of a sequence from number `length` on, as after rejected drafts. Pages that are not needed
        any more are free."""
        self._check()
        sequence, length = _whole("sequence", sequence), _whole("length", length)
        if not 0 <= sequence < len(self._lengths):
            raise _core.InvalidError(f"sequence is {sequence}, expected 0 to {len(self._lengths) - 1}")
        if not 0 <= length <= self._lengths[sequence]:
            raise _core.InvalidError(f"length is {length}, expected 0 to {self._lengths[sequence]}")
        self._lengths[sequence] = length
        if self._paged:
            kept = -(-length // self._page)
            self._free += reversed(self._tables[sequence][kept:])
            del self._tables[sequence][kept:]
            self._table_array = None

    def close(self) -> None:
        """Releases the memory. A cache that is closed raises InvalidError."""
        self._closed = True
        self._memory = {}
        self._arrays = None
        self._table_array = None
