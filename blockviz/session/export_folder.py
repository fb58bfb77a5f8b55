"""Where an export is written: a free target, room for it, and a hidden folder until it is whole."""

from __future__ import annotations

import contextlib
import hashlib
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
MAX_NAME = 100


def check_target(folder: Path) -> None:
    """BadInput where a model cannot be written there. `folder`: of a link, what it points to."""
    asked = f"An export was to be written to {str(folder)[-MAX_NAME:]}."
    try:
        is_free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    except OSError as error:
        raise BadInput(
            asked,
            f"That name cannot be used ({error.strerror or type(error).__name__}).",
            "Give a new folder inside one that exists.",
        ) from error
    if not is_free or not folder.parent.is_dir() or not os.access(folder.parent, os.W_OK):
        raise BadInput(
            asked,
            "Something is there already, its parent is missing, or it cannot be written.",
            "Give a new folder inside one that exists.",
        )
    if any(_is_alive(claim) for claim in _claims(folder)):
        raise _taken(folder)


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


# Hidden folders that exports of this process are written in.
_in_use: set[Path] = set()


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[Path]:
    """A hidden folder beside the target, gone at the end unless it was moved there.

    It is also the claim to the target: BadInput while another export holds it. Those that a killed
    process left are removed.
    """
    partial = _claim(folder, os.getpid())
    if partial in _in_use:
        raise _taken(folder)
    _in_use.add(partial)
    try:
        # One of this number was left by an earlier process.
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        # After its own is there: of two that begin at once, none may miss the other.
        for other in _claims(folder):
            if other == partial:
                continue
            if _is_alive(other):
                raise _taken(folder)
            shutil.rmtree(other, ignore_errors=True)
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _in_use.discard(partial)


def _taken(folder: Path) -> BadInput:
    return BadInput(
        f"An export was to be written to {folder}.",
        "Another export is being written there now.",
        "Wait until it is done, or give another folder.",
    )


def _claim(folder: Path, process: int) -> Path:
    return folder.parent.resolve() / f"{_head(folder)}{process}"


def _head(folder: Path) -> str:
    """Not the folder's own name with more behind it: that could be longer than names may be."""
    return f".blockviz-{hashlib.sha256(folder.name.encode()).hexdigest()[:12]}-"


def _claims(folder: Path) -> list[Path]:
    found = folder.parent.resolve().glob(f"{_head(folder)}*")
    return [path for path in found if path.name.rpartition("-")[2].isdigit()]


def _is_alive(claim: Path) -> bool:
    process = int(claim.name.rpartition("-")[2])
    if process == os.getpid():
        return claim in _in_use
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
