"""Exports that wait to be fetched, each in a folder of a random name."""

from __future__ import annotations

import math
import re
import secrets
import shutil
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blockviz.export.names import CARD
from blockviz.session.old_files import OldFiles, remove
from blockviz.types import Done, Events, ExportReport, Progress

KEEP_SECONDS = 30 * 60
SWEEP_SECONDS = 60


@dataclass(frozen=True)
class Exported:
    """What came of an export so far; archive: the file to fetch, None until there is one; card: the
    text of the model card in it."""

    report: ExportReport
    archive: Path | None = None
    n_bytes: int = 0
    card: str = ""


class Exports:
    """Whoever knows the name of a file may fetch it, so names are drawn at random. One for each
    owner: a new one takes the place of the last."""

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.monotonic,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """keep_seconds: infinite where what this app has written stays until it is closed."""
        self.root = root
        self._keeps_own = keep_seconds == math.inf
        self._files = OldFiles(root, min(keep_seconds, KEEP_SECONDS), clock)
        self._of: dict[str, Path] = {}
        self._unfinished: set[Path] = set()
        self._lock = threading.Lock()
        self._watch: threading.Timer | None = None

    def begin(self, owner: str) -> Path:
        """A new empty folder; this owner's last one is gone, and so is what is too old."""
        with self._lock:
            self.root.mkdir(parents=True, exist_ok=True)
            last = self._of.pop(owner, None)
            if last is not None:
                remove(last)
            folder = self.root / secrets.token_urlsafe(18)
            folder.mkdir()
            self._of[owner] = folder
            self._unfinished.add(folder)
            self._sweep()
            return folder

    def finish(self, folder: Path) -> None:
        """The file is there: from now on it waits to be fetched."""
        with self._lock:
            self._unfinished.discard(folder)
            self._sweep()

    def drop(self, folder: Path) -> None:
        """An export came to nothing."""
        remove(folder)
        self.finish(folder)

    def sweep(self) -> None:
        """Delete what is too old; it goes on once a minute for as long as anything is there."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        # What an app that was closed has left behind is nobody's, however long this one keeps.
        own = set(self._of.values()) if self._keeps_own else set()
        self._files.sweep(self._unfinished | own)
        self._of = {owner: folder for owner, folder in self._of.items() if folder.exists()}
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self.root.is_dir() and any(self.root.iterdir()):
            self._watch = threading.Timer(SWEEP_SECONDS, self.sweep)
            self._watch.daemon = True
            self._watch.start()


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


def archive_name(model: str, n_removed: int, n_blocks: int, mode: str = "") -> str:
    """`blockviz-smollm2-135m-14of60-custom`: nothing that a path or a page could take amiss."""
    slug = re.sub(r"[^a-z0-9]+", "-", model.rpartition("/")[2].lower()).strip("-")[:40]
    return "-".join(filter(None, ("blockviz", slug or "model", f"{n_removed}of{n_blocks}", mode)))
