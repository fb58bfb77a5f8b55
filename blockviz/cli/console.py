"""What the command line shows: a progress bar on stderr, a table on stdout."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tqdm import tqdm

from blockviz.errors import printable
from blockviz.types import Done, Events

SECONDS_FOR_THE_FIRST = 30


class Stopped(Exception):
    """Ctrl-C came; `partial` is what had been computed."""

    def __init__(self, partial: Any) -> None:
        super().__init__("stopped")
        self.partial = partial


def drain(events: Events, seen: Callable[[Any], None] | None = None) -> Any:
    """The result of a task, its progress on stderr when that is a terminal. Stopped on Ctrl-C.

    seen: called with every partial result as it comes.
    """
    partial: Any = None
    bar: tqdm | None = None
    try:
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    return event.result
                if event.partial is not None:
                    partial = event.partial
                    if seen is not None:
                        with tqdm.external_write_mode(file=sys.stderr):
                            seen(partial)
                bar = _advance(bar, event.stage, event.done, event.total, event.note)
    except KeyboardInterrupt as stop:
        raise Stopped(partial) from stop
    finally:
        if bar is not None:
            bar.close()
    raise RuntimeError("the task ended without a result")


def _advance(bar: tqdm | None, stage: str, done: float, total: float, note: str) -> tqdm:
    stage = printable(stage)
    if bar is None or bar.desc != f"{stage}: ":
        if bar is not None:
            bar.close()
        quiet = not sys.stderr.isatty() or not is_first_process()
        bar = tqdm(desc=stage, total=total or None, disable=quiet, leave=False, file=sys.stderr)
        bar.desc = f"{stage}: "
    bar.set_postfix_str(printable(note), refresh=False)
    bar.update(done - bar.n)
    return bar


def is_first_process() -> bool:
    """Whether this is the one that shows and writes, where several were started together."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str = "") -> None:
    """One line on stdout, no escape codes in it. A reader that has gone, such as `head`, or a disk
    that is full stops the lines, not the work."""
    if not is_first_process():
        return
    try:
        sys.stdout.write(printable(text) + "\n")
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            complain(f"blockviz: standard output takes no more ({error.strerror}).")
            sys.stdout = Nowhere()


class Nowhere(io.StringIO):
    """Standard output from when on it took no more."""

    def write(self, text: str) -> int:
        return len(text)


def is_output_lost() -> bool:
    """Whether lines were not shown that somebody waits for."""
    return isinstance(sys.stdout, Nowhere)


def complain(text: str) -> None:
    """One line on stderr, no escape codes in it."""
    if is_first_process():
        sys.stderr.write(printable(text) + "\n")


def refuse(text: str) -> None:
    """The line on stderr that a command ends with.

    The launcher of several processes stops all as soon as one has failed. So all but the first wait
    until they are stopped, and tell what they alone refuse where the first goes on.
    """
    if not is_first_process():
        time.sleep(SECONDS_FOR_THE_FIRST)
    sys.stderr.write(printable(text) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table on stdout: the first column to the left, the others to the right."""
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        first = row[0].ljust(widths[0])
        rest = [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        say("  ".join([first, *rest]).rstrip())
