"""Results kept by what they were computed from, so that nothing is computed twice."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from blockviz.json_files import sealed, unsealed

IDLE_SECONDS = 30 * 60
MAX_BYTES = 256 * 2**20


def key(*parts: object) -> str:
    """sha256 over the parts as canonical JSON: 64 hex digits, the same in every process.

    Parts are plain values, dataclasses of such, or lists, tuples, sets and string-keyed mappings
    of such. A dataclass counts by its class name too. Anything else raises TypeError, and NaN
    or infinity ValueError: a key that cannot be repeated is none.
    """
    text = json.dumps(_plain(parts), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> Any:
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        named = {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
        return {"class": type(value).__qualname__, "fields": named}
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise TypeError("a mapping in a store key must have string keys")
        return {"mapping": {k: _plain(v) for k, v in value.items()}}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted(json.dumps(_plain(v), sort_keys=True) for v in value)}
    raise TypeError(f"{type(value).__name__} cannot be part of a store key")


@dataclass
class _Entry:
    value: Any
    n_bytes: int
    used_at: float


class Store:
    """Values in memory: the least recently used leave first, and idle ones after half an hour.

    Values are handed out as they were put in, to every thread: put only what nobody changes.
    """

    def __init__(
        self,
        *,
        max_bytes: int = MAX_BYTES,
        idle_seconds: float = IDLE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._n_bytes = 0

    def get(self, key: str, default: Any = None) -> Any:
        """The value under the key, now the most recently used; `default` if there is none."""
        with self._lock:
            self._drop_idle()
            entry = self._entries.get(key)
            if entry is None:
                return default
            entry.used_at = self._clock()
            self._entries.move_to_end(key)
            return entry.value

    def put(self, key: str, value: Any, *, n_bytes: int | None = None) -> None:
        """Keep the value; one larger than the whole store is not kept. `n_bytes`: its size, if
        known better than by counting its fields, arrays and containers."""
        size = size_of(value) if n_bytes is None else n_bytes
        with self._lock:
            self._remove(key)
            self._drop_idle()
            if size > self._max_bytes:
                return
            self._entries[key] = _Entry(value, size, self._clock())
            self._n_bytes += size
            while self._n_bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))

    def discard(self, key: str) -> None:
        """Forget the key, if it is there."""
        with self._lock:
            self._remove(key)

    @property
    def n_bytes(self) -> int:
        with self._lock:
            return self._n_bytes

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._n_bytes -= entry.n_bytes

    def _drop_idle(self) -> None:
        oldest = self._clock() - self._idle_seconds
        while self._entries:
            first = next(iter(self._entries))
            if self._entries[first].used_at > oldest:
                return
            self._remove(first)


def size_of(value: object) -> int:
    """Bytes a value takes: arrays and tensors by `nbytes`, containers and dataclasses summed.

    Shared parts count every time they occur, so the answer errs on the large side.
    """
    n_bytes = getattr(value, "nbytes", None)
    if isinstance(n_bytes, int):
        return n_bytes
    own = sys.getsizeof(value)
    if is_dataclass(value) and not isinstance(value, type):
        return own + sum(size_of(getattr(value, f.name)) for f in fields(value))
    if isinstance(value, Mapping):
        return own + sum(size_of(k) + size_of(v) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return own + sum(size_of(v) for v in value)
    return own


class JsonFolder:
    """Plain JSON values kept on disk under the same keys, for work that outlives the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str, default: Any = None) -> Any:
        """The value on disk; `default` if there is none, or it is not what was written."""
        path = self._path(key)
        try:
            return unsealed(path.read_bytes())
        except (OSError, ValueError):
            return default

    def put(self, key: str, value: Any) -> None:
        """Write the value; a reader sees the old file or the new one, never half of one."""
        path = self._path(key)
        text = sealed(value)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def _path(self, key: str) -> Path:
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise ValueError("a store key is 64 hex digits, as key() gives them")
        return self._folder / key[:2] / f"{key}.json"
