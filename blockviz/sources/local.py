"""Models on this machine: a folder in the transformers format, or one GGUF file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from blockviz.errors import BadSource
from blockviz.sources.records import ModelMetadata, ModelRef
from blockviz.sources.weights import check_weights, wanted_files


def read_config(path: Path, text: str) -> dict[str, Any]:
    """config.json as a dict; BadSource when it is not a JSON object."""
    try:
        config = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _bad_config(text) from error
    if not isinstance(config, dict):
        raise _bad_config(text)
    return config


def _bad_config(text: str) -> BadSource:
    return BadSource(
        f"The config.json of {text} was read.",
        "It is not a JSON object.",
        "Fetch the file again, or take another model.",
    )


def folder_metadata(ref: ModelRef) -> ModelMetadata:
    """What a folder holds, without reading its weights."""
    sizes = {path.name: path.stat().st_size for path in ref.path.iterdir() if path.is_file()}
    check_weights(sizes, ref.text)
    names = wanted_files(sizes)
    return ModelMetadata(
        name=ref.path.name,
        revision=_digest([ref.path / name for name in names]),
        config=read_config(ref.path / "config.json", ref.text),
        files=tuple((name, sizes[name]) for name in names),
    )


def gguf_metadata(ref: ModelRef) -> ModelMetadata:
    """Name and size of a GGUF file; its content is models/gguf.py's concern."""
    files = ((ref.path.name, ref.path.stat().st_size),)
    return ModelMetadata(name=ref.path.stem, revision=_digest([ref.path]), files=files)


def _digest(paths: list[Path]) -> str:
    """`local-` and 12 digits that change when a file's name, size or time of change does."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return f"local-{hashlib.sha256(repr(stats).encode()).hexdigest()[:12]}"
