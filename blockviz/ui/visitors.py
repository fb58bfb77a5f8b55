"""What each open page has done so far, so that two events at once do not undo each other.

Gradio reads a page's state when an event begins and writes it when the event ends. An event that
ends in between would be forgotten. So the newest visitor of a page is kept here, and an answer that
was worked out from an older one is worked out again.

A page that is loaded again is a new one to gradio. It is known by what its browser tab calls
itself, which nobody can guess, and goes on where it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from blockviz.session import Visitor
from blockviz.ui.refusals import Refusals

Update = dict[str, Any]
MOST_TRIES = 8
# A page that has done nothing for so many others is known by its own state alone.
MOST_PAGES = 1000


class Visitors:
    """The newest visitor of every page. One object per app, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, Visitor] = {}
        # Session -> the name of its browser tab; that name -> its visitor, also when it has left.
        self._tabs: dict[str, str] = {}
        self._left: dict[str, Visitor] = {}
        self.refusals = Refusals()

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
                    _keep(self._newest, session, update["visitor"])
                    if session in self._tabs:
                        _keep(self._left, self._tabs[session], update["visitor"])
                return update
        raise RuntimeError(f"{MOST_TRIES} answers in a row were overtaken")

    def came_back(self, session: str, tab: str) -> Visitor | None:
        """What was done in this browser tab before; from now on the session's is kept for it."""
        with self._lock:
            if not tab:
                return None
            _keep(self._tabs, session, tab)
            return self._left.get(tab)

    def forget(self, session: str) -> None:
        """The page was closed. What was done in its tab is kept, should it be a reload."""
        with self._lock:
            self._newest.pop(session, None)
            self._tabs.pop(session, None)
        self.refusals.forget(session)


def _keep(known: dict[str, Any], key: str, value: Any) -> None:
    """The value as the newest of all; the oldest go where there are too many."""
    known.pop(key, None)
    known[key] = value
    while len(known) > MOST_PAGES:
        known.pop(next(iter(known)))
