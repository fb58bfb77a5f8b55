"""Which of a visitor's wishes is the newest: an older measurement stops when a newer one comes."""

from __future__ import annotations

import threading

# The turn of a page that began none for so many others is over.
MOST_PAGES = 1000


class Turns:
    """A counter per page. One object per app, shared by its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, int] = {}
        self._cancelled: dict[str, int] = {}
        self._measured: dict[str, int] = {}

    def begin(self, session: str) -> int:
        """A new turn; every older one of this page is over."""
        with self._lock:
            turn = self._newest.pop(session, 0) + 1
            self._newest[session] = turn
            while len(self._newest) > MOST_PAGES:
                self._drop(next(iter(self._newest)))
            return turn

    def cancel(self, session: str) -> None:
        """The newest turn is over and no other takes its place before there is a new wish."""
        turn = self.begin(session)
        with self._lock:
            self._cancelled[session] = turn

    def is_cancelled(self, session: str) -> bool:
        """Whether nothing was wished for since the last cancel."""
        with self._lock:
            return session in self._cancelled and (
                self._cancelled[session] == self._newest.get(session)
            )

    def has_measured(self, session: str, turn: int) -> None:
        """What this turn asked for is measured; its text is next."""
        with self._lock:
            self._measured.pop(session, None)
            self._measured[session] = turn
            while len(self._measured) > MOST_PAGES:
                self._measured.pop(next(iter(self._measured)))

    def takes_text(self, session: str) -> bool:
        """Whether the newest turn is measured and its text not yet begun; true only once."""
        with self._lock:
            turn = self._newest.get(session, 0)
            is_due = self._measured.get(session) == turn
            if is_due:
                del self._measured[session]
            return is_due and self._cancelled.get(session) != turn

    def newest(self, session: str) -> int:
        with self._lock:
            return self._newest.get(session, 0)

    def is_over(self, session: str, turn: int) -> bool:
        return self.newest(session) != turn

    def forget(self, session: str) -> None:
        with self._lock:
            self._drop(session)

    def _drop(self, session: str) -> None:
        for known in (self._newest, self._cancelled, self._measured):
            known.pop(session, None)
