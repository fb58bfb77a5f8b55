"""Exports that wait to be fetched: each in a folder of a random name, for half an hour."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from blockviz.export.names import CARD
from blockviz.types import Done, Events, ExportReport, Progress

KEEP_SECONDS = 30 * 60


@dataclass(frozen=True)
class Exported:
    """What came of an export so far; archive: the file to fetch, None until there is one; card: the
    text of the model card in it."""

    report: ExportReport
    archive: Path | None = None
    n_bytes: int = 0
    card: str = ""


@dataclass
class Exports:
    """Whoever knows the name of a file may fetch it, so names are drawn at random. One for each
    owner: a new one takes the place of the last."""

    root: Path
    clock: Callable[[], float] = time.time
    _of: dict[str, Path] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, owner: str) -> Path:
        """A new empty folder; this owner's last one is gone, and so is what is too old."""
        with self._lock:
            self.root.mkdir(parents=True, exist_ok=True)
            self._sweep()
            last = self._of.pop(owner, None)
            if last is not None:
                shutil.rmtree(last, ignore_errors=True)
            folder = self.root / secrets.token_urlsafe(18)
            folder.mkdir()
            self._of[owner] = folder
            return folder

    def drop(self, folder: Path) -> None:
        """An export came to nothing."""
        shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        for folder in self.root.iterdir():
            if self.clock() - folder.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        self._of = {owner: folder for owner, folder in self._of.items() if folder.exists()}


def archive(folder: Path, report: ExportReport) -> Events:
    """Done(Exported): the folder as one ZIP file beside it, in whose place it is then.

    Nothing is compressed: weights do not get smaller by it.
    """
    target, card = folder.with_suffix(".zip"), (folder / CARD).read_text(encoding="utf-8")
    files = sorted(folder.iterdir())
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for n, path in enumerate(files):
            yield Progress("packing the files", n, len(files), path.name)
            out.write(path, f"{folder.name}/{path.name}")
    shutil.rmtree(folder)
    yield Done(Exported(report, target, target.stat().st_size, card))


def archive_name(model: str, n_removed: int, n_blocks: int) -> str:
    """`blockviz-smollm2-135m-14of60`: nothing of a name that a path or a page could take amiss."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.rpartition("/")[2].lower()).strip("-")[:40]
    return f"blockviz-{slug or 'model'}-{n_removed}of{n_blocks}"
