"""A model folder as the libraries can read it: none of them reads past a byte order mark."""

from __future__ import annotations

import codecs
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def without_marks(folder: Path) -> Iterator[Path]:
    """The folder; where a JSON file in it begins with a mark, as editors on Windows write it, a
    folder of links with those files copied without it, which is gone afterwards."""
    marked = {path.name for path in folder.glob("*.json") if _is_marked(path)}
    if not marked:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="blockviz-") as name:
        for path in folder.iterdir():
            target = Path(name, path.name)
            if path.name in marked:
                target.write_bytes(path.read_bytes()[len(codecs.BOM_UTF8) :])
            else:
                target.symlink_to(path.resolve(), target_is_directory=path.is_dir())
        yield Path(name)


def _is_marked(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
