"""Models on this machine: a folder in the transformers format, or one GGUF file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from blockviz.errors import BadSource
from blockviz.json_files import NotJson, read_json
from blockviz.sources.records import ModelMetadata, ModelRef
from blockviz.sources.stand_ins import refuse_stand_in
from blockviz.sources.weights import check_weights, wanted_files

MAX_CONFIG_BYTES = 1 << 20


def read_config(path: Path, text: str) -> dict[str, Any]:
    """config.json as a dict; BadSource when it is not a JSON object of a usual size."""
    check_config_size(path.stat().st_size if path.is_file() else 0, text)
    try:
        config = read_json(path, most_bytes=MAX_CONFIG_BYTES)
    except NotJson as error:
        raise _bad_config(text) from error
    if not isinstance(config, dict):
        raise _bad_config(text)
    return config


def check_config_size(n_bytes: int, text: str) -> None:
    """Nothing, if a config.json of that many bytes may be read; else BadSource."""
    if n_bytes > MAX_CONFIG_BYTES:
        raise BadSource(
            f"The config.json of {text} was to be read.",
            f"It has {n_bytes:,} bytes, where {MAX_CONFIG_BYTES:,} are the most that is read.",
            "Fetch the file again, or take another model.",
        )


def _bad_config(text: str) -> BadSource:
    return BadSource(
        f"The config.json of {text} was read.",
        "It is not a JSON object.",
        "Fetch the file again, or take another model.",
    )


def folder_metadata(ref: ModelRef) -> ModelMetadata:
    """What a folder holds, without reading its weights."""
    sizes = {path.name: path.stat().st_size for path in ref.path.iterdir() if path.is_file()}
    base = _base_of_adapter(ref.path) if "adapter_config.json" in sizes else ""
    check_weights(sizes, ref.text, base=base)
    names = wanted_files(sizes)
    for name in names:
        refuse_stand_in(ref.path / name, ref.text)
    return ModelMetadata(
        name=ref.hub_id or ref.path.name,
        revision=_digest([ref.path / name for name in names]),
        config=read_config(ref.path / "config.json", ref.text),
        files=tuple((name, sizes[name]) for name in names),
    )


def _base_of_adapter(folder: Path) -> str:
    try:
        config = read_json(folder / "adapter_config.json", most_bytes=MAX_CONFIG_BYTES)
    except NotJson:
        return ""
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    return base[:96] if isinstance(base, str) else ""


def gguf_metadata(ref: ModelRef) -> ModelMetadata:
    """Name and size of a GGUF file; its content is models/gguf.py's concern."""
    files = ((ref.path.name, ref.path.stat().st_size),)
    return ModelMetadata(name=ref.path.stem, revision=_digest([ref.path]), files=files)


def _digest(paths: list[Path]) -> str:
    """`local-` and 12 digits that change when a file's name, size or time of change does."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return f"local-{hashlib.sha256(repr(stats).encode()).hexdigest()[:12]}"
