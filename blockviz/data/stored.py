"""Texts read from the hub, kept so that the next run needs no network."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from typing import Any

from blockviz.data.records import Texts
from blockviz.json_files import sealed, unsealed
from blockviz.sources.cache import cache_dir, make_folder


class Stored:
    """The place in the cache for what one request (a tuple of plain values) has given."""

    def __init__(self, request: tuple[Any, ...]) -> None:
        name = hashlib.sha256(repr(request).encode()).hexdigest()[:24]
        self._path = cache_dir() / "texts" / f"{name}.json"

    def read(self) -> Texts | None:
        """The texts of an earlier run, None where there are none."""
        try:
            data = unsealed(self._path.read_bytes())
            return Texts(tuple(data["texts"]), data["dataset"], data["split"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, texts: Texts) -> None:
        """Keep the texts; a reader sees all of them or none."""
        make_folder(self._path.parent)
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(sealed(asdict(texts)), "utf-8")
        partial.replace(self._path)
