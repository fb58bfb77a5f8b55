"""The Hugging Face hub: what a model is, before its weights are fetched, and then its files.

Every request goes without a token. The endpoint and the cache folder are given at each call, from
the environment as it is then.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import sys
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, NoReturn

from blockviz.errors import BadSource
from blockviz.sources import child
from blockviz.sources.cache import cache_dir, check_free_disk, hub_cache, make_folder
from blockviz.sources.local import check_config_size, read_config
from blockviz.sources.records import ModelMetadata, ModelRef
from blockviz.sources.weights import check_weights, wanted_files
from blockviz.types import Progress

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
_DOWNLOAD = (
    "import json, sys; from huggingface_hub import snapshot_download; "
    "snapshot_download(**json.loads(sys.argv[1]))"
)


def endpoint() -> str:
    """The hub's address: $HF_ENDPOINT, else the public hub."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_metadata(ref: ModelRef) -> ModelMetadata:
    """What the hub says of a model: commit, licence, files and config.json, no weights.

    Where the hub cannot be reached, the same of the files fetched before; else BadSource.
    """
    import httpx2
    from huggingface_hub import HfApi, errors, hf_hub_download

    api = HfApi(endpoint=endpoint(), token=False)
    try:
        info = api.model_info(
            ref.hub_id, revision=ref.revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
        if info.gated:
            _refuse_gated(ref)
        sizes = {file.rfilename: file.size for file in info.siblings or ()}
        check_weights(sizes, ref.text)
        check_config_size(sizes["config.json"] or 0, ref.text)
        path = hf_hub_download(
            ref.hub_id,
            "config.json",
            revision=info.sha,
            token=False,
            endpoint=endpoint(),
            cache_dir=hub_cache(),
            etag_timeout=TIMEOUT_SECONDS,
        )
    except errors.GatedRepoError:
        _refuse_gated(ref)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        _refuse_unknown(ref, error)
    except (httpx2.HTTPError, OSError) as error:
        return _cached_metadata(ref, error)
    card = info.card_data
    found = ModelMetadata(
        name=ref.hub_id,
        revision=info.sha,
        license=_license(card.get("license") if card else None),
        config=read_config(Path(path), ref.text),
        files=_with_sizes(wanted_files(sizes), sizes, ref),
    )
    _remember(ref, found)
    return found


def download(ref: ModelRef, found: ModelMetadata) -> Generator[Progress, None, Path]:
    """The snapshot folder with all of `found.files`, pinned to its commit; progress in bytes.

    The child process is killed when the generator is closed; what it has fetched is kept, and a
    later download goes on from there.
    """
    folder = snapshot_folder(ref, found.revision)
    missing = sum(size for name, size in found.files if not (folder / name).is_file())
    if not missing:
        return folder
    check_free_disk(hub_cache(), missing, f"The model {ref.hub_id}")
    arguments = {
        "repo_id": ref.hub_id,
        "revision": found.revision,
        "allow_patterns": [glob.escape(name) for name, _ in found.files],
        "endpoint": endpoint(),
        "cache_dir": str(hub_cache()),
        "token": False,
        "etag_timeout": TIMEOUT_SECONDS,
    }
    blobs = folder.parents[1] / "blobs"
    before = child.bytes_below(blobs)
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory(prefix=".log-", dir=make_folder(cache_dir())) as scratch:
        log = Path(scratch) / "download.log"
        command = [sys.executable, "-c", _DOWNLOAD, json.dumps(arguments)]
        with child.started(command, log=log, environ=quiet) as process:
            for _ in child.ticks(process):
                done = min(max(child.bytes_below(blobs) - before, 0), missing)
                yield Progress(f"Downloading {ref.hub_id}", done, missing)
        said = log.read_text("utf-8", errors="replace")
    if process.returncode != 0:
        logger.debug("the download said: %s", said)
        _refuse_stopped(ref)
    return folder


def snapshot_folder(ref: ModelRef, revision: str) -> Path:
    """Where the hub's library keeps the files of one commit."""
    return hub_cache() / f"models--{ref.hub_id.replace('/', '--')}" / "snapshots" / revision


def _with_sizes(
    names: Iterable[str], sizes: dict[str, int | None], ref: ModelRef
) -> tuple[tuple[str, int], ...]:
    files = tuple((name, sizes[name]) for name in names)
    if any(size is None for _, size in files):
        raise BadSource(
            f"The model {ref.text} was asked for.",
            "The hub does not say how large its files are.",
            "Try again later, or download it yourself and give the folder.",
        )
    return files  # type: ignore[return-value]


def _license(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _note_path(ref: ModelRef) -> Path:
    name = f"{ref.hub_id}@{ref.revision}".replace("/", "--")
    return cache_dir() / "hub" / f"{name}.json"


def _remember(ref: ModelRef, found: ModelMetadata) -> None:
    """Keep what the hub said for the day it cannot be reached; the config is in the snapshot."""
    note = {"revision": found.revision, "license": found.license, "files": found.files}
    path = _note_path(ref)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    make_folder(path.parent)
    partial.write_text(json.dumps(note), "utf-8")
    partial.replace(path)


def _cached_metadata(ref: ModelRef, reason: Exception) -> ModelMetadata:
    try:
        note = json.loads(_note_path(ref).read_text("utf-8"))
        files = tuple((str(name), int(size)) for name, size in note["files"])
        folder = snapshot_folder(ref, note["revision"])
    except (OSError, ValueError, KeyError, TypeError):
        files, folder, note = (), Path(), {}
    if not files or not all((folder / name).is_file() for name, _ in files):
        raise BadSource(
            f"The model {ref.text} was asked for.",
            "The hub cannot be reached, and its files were not fetched before.",
            "Check the network and try again, or use demo, a folder or a .gguf file.",
        ) from reason
    logger.info("the hub cannot be reached; using the files of %s fetched before", ref.hub_id)
    return ModelMetadata(
        name=ref.hub_id,
        revision=note["revision"],
        license=note["license"],
        config=read_config(folder / "config.json", ref.text),
        files=files,
        is_cached=True,
    )


def _refuse_gated(ref: ModelRef) -> NoReturn:
    raise BadSource(
        f"The model {ref.text} was asked for.",
        "It is gated: its owner gives it only to people who are signed in and accept its terms.",
        "Accept its terms on the hub, download it and give the folder, or take an open model.",
    )


def _refuse_unknown(ref: ModelRef, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    if isinstance(error, errors.RevisionNotFoundError):
        found = f"The hub has {ref.hub_id}, but no revision {ref.revision} of it."
        todo = "Check the name of the branch, tag or commit, or leave @revision out."
    else:
        found = "The hub has no model of that name, or it is private."
        todo = "Check the spelling of owner/name, or download it yourself and give the folder."
    raise BadSource(f"The model {ref.text} was asked for.", found, todo) from error


def _refuse_stopped(ref: ModelRef) -> NoReturn:
    raise BadSource(
        f"The files of {ref.hub_id} were being downloaded.",
        "The hub stopped answering, or a file did not arrive whole.",
        "Try again: the download goes on from where it stopped.",
    )
