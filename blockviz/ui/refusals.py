"""Whose words stand in each page's error box: they go when what was refused is done after all."""

from __future__ import annotations

import threading
from typing import Any

Update = dict[str, Any]
MOST_PAGES = 1000


class Refusals:
    """One object per app, shared by its threads. What nobody was refused stays until dismissed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by: dict[str, str] = {}

    def answered(self, session: str, action: str, update: Update) -> Update:
        """The answer to an action, which empties the box of its own last refusal."""
        with self._lock:
            if "error" in update:
                self._by.pop(session, None)
                if update["error"].get("is_refusal"):
                    self._by[session] = action
                    while len(self._by) > MOST_PAGES:
                        self._by.pop(next(iter(self._by)))
                return update
            if self._by.get(session) != action:
                return update
            del self._by[session]
        return {**update, "error": {"text": "", "id": ""}}

    def forget(self, session: str) -> None:
        with self._lock:
            self._by.pop(session, None)
