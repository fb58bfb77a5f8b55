"""The file that --out names: checked before the work, written after it, and never lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockviz.cli.console import is_first_process, say
from blockviz.errors import BadInput, OverLimit
from blockviz.sources.cache import gib
from blockviz.whole_files import is_stream, write_whole

# What a result may take; more than any has taken.
ROOM_BYTES = 64 * 2**20
MAX_NAME = 100


def check_out(path: Path | None) -> None:
    """Returns if a result could be written there, before any long work; a refusal otherwise."""
    if path is None:
        return
    asked = f"The result was to be written to {shown(path)}."
    try:
        if is_stream(path):
            is_free, free = os.access(path, os.W_OK), ROOM_BYTES
        else:
            target = path.resolve()
            folder = target.parent
            is_free = folder.is_dir() and not target.is_dir() and os.access(folder, os.W_OK)
            free = shutil.disk_usage(folder).free if is_free else ROOM_BYTES
    except OSError as error:
        raise BadInput(
            asked,
            f"That name cannot be used ({error.strerror or type(error).__name__}).",
            "Give --out another file name.",
        ) from error
    if not is_free:
        raise BadInput(
            asked,
            "Its folder is missing or cannot be written, or a folder has that name.",
            "Give --out a file name in a folder that exists.",
        )
    if free < ROOM_BYTES:
        raise OverLimit(
            asked,
            f"{gib(free)} are free on that disk, and a result may take {gib(ROOM_BYTES)}.",
            "Free some space, or give --out a file on a larger disk.",
        )


def write_json(path: Path | None, data: Mapping[str, Any]) -> None:
    """`data` as JSON in the file that --out names. What cannot be written there is printed, and
    refused then."""
    if path is None or not is_first_process():
        return
    text = as_json(data)
    try:
        write_whole(path, text.encode())
    except OSError as error:
        say(text)
        raise BadInput(
            f"The result was to be written to {shown(path)}.",
            f"It could not be ({error.strerror or type(error).__name__}), so it is printed above.",
            "Keep that, and see to the disk before the next run.",
        ) from error
    say(f"Written: {path}")


def as_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def shown(path: Path) -> str:
    """The path, or the end of a long one."""
    text = str(path)
    return text if len(text) <= MAX_NAME else f"...{text[-MAX_NAME:]}"
