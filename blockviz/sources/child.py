"""Work done in a child process: it can be killed at any moment, and its memory goes with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

POLL_SECONDS = 0.2


@contextmanager
def started(
    arguments: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The running process, its output in the file `log`; killed if it still runs at the exit."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def ticks(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """One None at each poll until the process has ended."""
    while process.poll() is None:
        yield None
        try:
            process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def bytes_below(folder: Path) -> int:
    """The bytes of all files in a folder that another process may be changing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            stat = path.lstat()
        except FileNotFoundError:
            continue
        if not path.is_symlink() and not path.is_dir():
            total += stat.st_size
    return total
