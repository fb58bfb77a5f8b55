"""The two things that every long task yields: steps, and one result at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """One step of a running task. `total` 0 = not known yet."""

    stage: str
    done: float
    total: float
    note: str = ""
    partial: Any = None


@dataclass(frozen=True)
class Done:
    """The end of a running task and its result."""

    result: Any


Events = Iterator["Progress | Done"]


def run(events: Events) -> Any:
    """Drain a task and return its result."""
    for event in events:
        if isinstance(event, Done):
            return event.result
    raise RuntimeError("the task ended without a result")


def passing(events: Events) -> Generator[Progress, None, Any]:
    """The result of `events` for `x = yield from passing(events)`; each Progress is passed on.

    Closing the outer generator closes `events`, so that what it holds is given back.
    """
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Done):
                return event.result
            yield event
    raise RuntimeError("the task ended without a result")
