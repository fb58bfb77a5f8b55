"""A task within a task: its progress goes to the outer task, its result to the caller."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from blockviz.types import Done, Events, Progress


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
