"""Two processes that want the same files take turns; the second finds what the first has made."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

from filelock import FileLock, Timeout

from blockviz.sources.cache import make_folder
from blockviz.sources.child import POLL_SECONDS
from blockviz.types import Progress


class Turn:
    """The right to write one folder, held from `wait` to `release`, and a scratch folder for it.

    The scratch folder has a fixed name, so that what a killed process has left is found and cleared
    by the next one, which holds the lock and so knows that nobody is writing there.
    """

    def __init__(self, folder: Path) -> None:
        parent = make_folder(folder.parent)
        self._lock = FileLock(parent / f".{folder.name}.lock")
        self._scratch = parent / f".{folder.name}.partial"

    def wait(self, stage: str) -> Generator[Progress, None, Path]:
        """The empty scratch folder, once no other process holds this turn."""
        while True:
            try:
                self._lock.acquire(timeout=POLL_SECONDS)
            except Timeout:
                yield Progress(stage, 0, 0, "Another blockviz process is at work on the same.")
            else:
                break
        shutil.rmtree(self._scratch, ignore_errors=True)
        return make_folder(self._scratch)

    def release(self) -> None:
        """Give the turn back, and clear the scratch folder if the turn was held."""
        if self._lock.is_locked:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._lock.release()
