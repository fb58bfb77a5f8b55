"""Where an export is written: a free target, room for it, and a hidden folder until it is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from blockviz.errors import BadInput, OverLimit
from blockviz.export import Assembled
from blockviz.session.export_views import ExportRequest
from blockviz.sources.cache import gib

# What is written beside the weights takes no more than this.
SPARE_BYTES = 64 * 2**20


def check_target(folder: Path) -> None:
    """BadInput where a model cannot be written there."""
    is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_free or not folder.parent.is_dir() or not os.access(folder.parent, os.W_OK):
        raise BadInput(
            f"An export was to be written to {folder}.",
            "Something is there already, its parent is missing, or it cannot be written.",
            "Give a new folder inside one that exists.",
        )


def check_room(request: ExportRequest, found: Assembled) -> None:
    """OverLimit where the disk does not hold it."""
    weights = found.n_parameters * found.module.dtype.itemsize
    needed = request.n_copies * weights * 1.05 + max(request.spare_bytes, SPARE_BYTES)
    free = shutil.disk_usage(request.folder.parent).free
    if needed > free:
        raise OverLimit(
            f"An export of {gib(needed)} was to be written.",
            f"{gib(free)} are free on that disk.",
            "Free some space, or give --out a folder on a larger disk.",
        )


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the target, gone at the end unless it was moved there; those that a
    killed process left are removed."""
    for old in folder.parent.glob(f".{folder.name}.blockviz-*"):
        owner = old.name.rpartition("-")[2]
        if owner.isdigit() and not _is_alive(int(owner)):
            shutil.rmtree(old, ignore_errors=True)
    partial = folder.parent / f".{folder.name}.blockviz-{os.getpid()}"
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
