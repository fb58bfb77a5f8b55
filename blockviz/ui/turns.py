"""Which of a visitor's wishes is the newest: an older measurement stops when a newer one comes."""

from __future__ import annotations

import threading


class Turns:
    """A counter per page. One object per app, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}

    def begin(self, session: str) -> int:
        """A new turn; every older one of this page is over."""
        with self._lock:
            self._newest[session] = self._newest.get(session, 0) + 1
            return self._newest[session]

    def newest(self, session: str) -> int:
        with self._lock:
            return self._newest.get(session, 0)

    def is_over(self, session: str, turn: int) -> bool:
        return self.newest(session) != turn

    def forget(self, session: str) -> None:
        with self._lock:
            self._newest.pop(session, None)
