"""Files that appear whole or not at all; what is no regular file is written to as it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# A path of these folders is a device, a pipe, or this process's own standard output.
STREAMS = (Path("/dev"), Path("/proc"))


def is_stream(path: Path) -> bool:
    """Whether something is there that is neither a regular file nor a folder, such as a device.

    OSError where the name cannot be one.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if any(folder in path.absolute().parents for folder in STREAMS):
        return not stat.S_ISDIR(mode)
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def write_whole(path: Path, data: bytes) -> None:
    """`data` in the file, or the old content if that fails; OSError then.

    A device gets it as it is. A link stays a link: what it points to is replaced.
    """
    if is_stream(path):
        with path.open("ab") as stream:
            stream.write(data)
        return
    target = path.resolve()
    # Not the target's own name with more behind it: that could be longer than names may be.
    partial = target.with_name(f".blockviz-{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
