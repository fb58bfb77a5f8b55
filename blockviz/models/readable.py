"""A model folder as transformers may read it: no byte order marks, no code, no names of kernels.

A config can name Python files to import, and attention or expert kernels to fetch and run; an
adapter_config.json names another model to load. transformers asks on the terminal about the first
and follows the others by itself. What it is given here names none of them.
"""

from __future__ import annotations

import codecs
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CODE = ("auto_map", "trust_remote_code")
_KERNEL = re.compile(r"\w*_implementation(_internal)?")
_LEFT_OUT = ("adapter_config.json",)


@contextmanager
def readable(folder: Path) -> Iterator[Path]:
    """The folder; where transformers must not read all of it, a folder of links to the rest, with
    its changed JSON files as copies, which is gone afterwards."""
    paths = [path for path in folder.iterdir() if path.name not in _LEFT_OUT]
    paths = [path for path in paths if path.suffix != ".py"]
    changed = {path.name: text for path in paths if (text := _changed(path)) is not None}
    if not changed and len(paths) == sum(1 for _ in folder.iterdir()):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="blockviz-") as name:
        for path in paths:
            target = Path(name, path.name)
            if path.name in changed:
                target.write_bytes(changed[path.name])
            else:
                target.symlink_to(path.resolve(), target_is_directory=path.is_dir())
        yield Path(name)


def is_code_key(key: str) -> bool:
    """Whether a config's key names code to run."""
    return key in _CODE


def without_code(config: Any) -> bool:
    """Whether `config` named code or kernels at any depth; it no longer does."""
    pending, found = [config], False
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            named = [key for key in value if is_code_key(key) or _KERNEL.fullmatch(key)]
            for key in named:
                del value[key]
            found = found or bool(named)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return found


def named_code(config: Mapping[str, Any]) -> str:
    """What a tokenizer_config.json gives as the class of its tokenizer; empty where nothing."""
    found = config.get("auto_map")
    found = found.get("AutoTokenizer") if isinstance(found, Mapping) else found
    names = found if isinstance(found, list) else [found]
    return next((name for name in names if isinstance(name, str)), "")


def _changed(path: Path) -> bytes | None:
    """What transformers is to read in place of the file; None where it may read the file itself."""
    if path.suffix != ".json" or not path.is_file():
        return None
    content = None
    if _is_marked(path):
        content = path.read_bytes()[len(codecs.BOM_UTF8) :]
    if path.name.endswith("config.json"):
        try:
            config = json.loads(path.read_bytes() if content is None else content)
        except (ValueError, RecursionError):
            return content  # refused with its reason where it is read
        if without_code(config):
            content = json.dumps(config).encode()
    return content


def _is_marked(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
