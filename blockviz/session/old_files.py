"""Files that wait to be fetched are deleted by how long they were seen to lie, not by the date."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path


class OldFiles:
    """What lies in a folder for longer than it is kept is deleted whenever `sweep` is called.

    Its age counts from when it was seen first or was changed last, on a clock that never jumps:
    a wrong date, or a right one after a wrong one, deletes nothing.
    """

    def __init__(
        self, root: Path, keep_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root, self._keep_seconds, self._clock = root, keep_seconds, clock
        self._lock = threading.Lock()
        # Path -> (its date of change, when that was seen first).
        self._seen: dict[Path, tuple[int, float]] = {}

    def sweep(self, spared: Collection[Path] = ()) -> None:
        """spared: what is in use, however old it is; its age begins when it no longer is."""
        with self._lock:
            now, before = self._clock(), self._seen
            self._seen = {}
            for path in self._children():
                try:
                    changed = path.stat().st_mtime_ns
                except OSError:
                    continue
                known, since = before.get(path, (changed, now))
                since = now if path in spared or known != changed else since
                if now - since < self._keep_seconds:
                    self._seen[path] = (changed, since)
                else:
                    remove(path)

    def _children(self) -> list[Path]:
        try:
            return list(self._root.iterdir())
        except OSError:
            return []


def remove(path: Path) -> None:
    """A file or a folder with all that is in it; nothing where it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
