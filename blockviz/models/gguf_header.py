"""The header of a GGUF file: what it says of itself, and whether the file is whole.

Layout (GGUF versions 2 and 3, little endian): magic, version u32, tensor count u64, entry count
u64, the entries (key, type, value), then for each tensor its name, dimensions, type and offset,
then the data from the next multiple of `general.alignment`.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockviz.errors import UnsupportedModel

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_DEFAULT_ALIGNMENT = 32
_MAX_DIMS = 4


@dataclass(frozen=True)
class GgufHeader:
    """`entries`: the scalar and string metadata. `n_bytes`: what the file must hold at least;
    `n_weights`: the numbers in its tensors, however few bits each takes there."""

    entries: dict[str, Any]
    n_tensors: int
    n_bytes: int
    n_weights: int


def read_header(path: Path) -> GgufHeader:
    """The header of a whole GGUF file; UnsupportedModel when it is none, or is cut short."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size < 24 or stream.read(4) != _MAGIC:
            raise _bad(path, "It is not a GGUF file: it does not begin with the letters GGUF.")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                header = _Reader(data).header()
            except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
                raise _bad(
                    path, "Its header cannot be read: it is damaged or cut short."
                ) from error
    if size < header.n_bytes:
        found = f"It is cut short: {size:,} of at least {header.n_bytes:,} bytes are there."
        raise _bad(path, found)
    return header


def _bad(path: Path, found: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"The file {os.path.basename(path)} was to be read as a GGUF model.",
        found,
        "Fetch the file again and compare its size or checksum with the publisher's.",
    )


class _Reader:
    """A cursor over the bytes of a header. Reading past the end raises struct.error."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def header(self) -> GgufHeader:
        _, version, n_tensors, n_entries = self._take("4sIQQ")
        if version not in _VERSIONS:
            raise ValueError(f"GGUF version {version}")
        entries = {}
        for _ in range(n_entries):
            key, (kind,) = self._string(), self._take("I")
            value = self._value(kind)
            if value is not None:
                entries[key] = value
        tensors = [self._tensor() for _ in range(n_tensors)]
        ends, sizes = [end for end, _ in tensors], [n_values for _, n_values in tensors]
        alignment = entries.get("general.alignment", _DEFAULT_ALIGNMENT)
        start = -(-self._at // alignment) * alignment if alignment else self._at
        return GgufHeader(entries, n_tensors, start + max(ends, default=0), sum(sizes))

    def _take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _skip(self, n_bytes: int) -> None:
        if n_bytes > len(self._data) - self._at:
            raise ValueError("a length beyond the end of the file")
        self._at += n_bytes

    def _string(self) -> str:
        (length,) = self._take("Q")
        start = self._at
        self._skip(length)
        return self._data[start : self._at].decode("utf-8")

    def _value(self, kind: int) -> Any:
        """A scalar or string; None for an array, which is only stepped over."""
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._take(_layout(kind))[0]
        item, count = self._take("IQ")
        if item == _ARRAY:
            raise ValueError("an array of arrays")
        if item == _STRING:
            for _ in range(count):
                (length,) = self._take("Q")
                self._skip(length)
        else:
            self._skip(count * struct.calcsize("<" + _layout(item)))
        return None

    def _tensor(self) -> tuple[int, int]:
        """(where the tensor ends, in bytes from the start of the data; how many numbers it has)."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        self._string()
        (n_dims,) = self._take("I")
        if n_dims > _MAX_DIMS:
            raise ValueError(f"a tensor of {n_dims} dimensions")
        n_values = 1
        for size in self._take(f"{n_dims}Q"):
            n_values *= size
        kind, offset = self._take("IQ")
        block_size, type_size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        return offset + n_values // block_size * type_size, n_values


def _layout(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"value type {kind}")
    return _SCALARS[kind]
