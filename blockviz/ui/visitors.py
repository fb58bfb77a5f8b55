"""What each open page has done so far, so that two events at once do not undo each other.

Gradio reads a page's state when an event begins and writes it when the event ends. An event that
ends in between would be forgotten. So the newest visitor of a page is kept here, and an answer that
was worked out from an older one is worked out again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from blockviz.session import Visitor

Update = dict[str, Any]
MOST_TRIES = 8
# A page that has done nothing for so many others is known by its own state alone.
MOST_PAGES = 1000


class Visitors:
    """The newest visitor of every page. One object per app, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, Visitor] = {}

    def newest(self, session: str, given: Visitor) -> Visitor:
        """What is known of a page; `given`, its own state, where nothing is known yet."""
        with self._lock:
            return self._newest.get(session, given)

    def settled(self, session: str, given: Visitor, answer: Callable[[Visitor], Update]) -> Update:
        """The answer for the newest visitor; a changed one in it becomes the newest."""
        for _ in range(MOST_TRIES):
            before = self.newest(session, given)
            update = answer(before)
            with self._lock:
                if self._newest.get(session, given) is not before:
                    continue
                if "visitor" in update:
                    self._newest.pop(session, None)
                    self._newest[session] = update["visitor"]
                    while len(self._newest) > MOST_PAGES:
                        self._newest.pop(next(iter(self._newest)))
                return update
        raise RuntimeError(f"{MOST_TRIES} answers in a row were overtaken")

    def forget(self, session: str) -> None:
        with self._lock:
            self._newest.pop(session, None)
