"""How many long tasks one visitor, and one address, may start in an hour."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from blockviz.errors import OverLimit

HOUR = 3600.0
# A job that was over sooner has kept nobody waiting.
FREE_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Start:
    """A start that was counted; for `is_over`."""

    visitor: str
    address: str
    at: float


class Allowance:
    """Counts starts over a sliding hour; None = no limit.

    A class behind one address shares its count alone, which is large enough for one; it is there
    because whoever opens the page anew is another visitor. So what is free for a visitor is not for
    the address, unless it never ran.
    """

    def __init__(
        self,
        per_visitor: int | None,
        per_address: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_visitor, self._per_address, self._clock = per_visitor, per_address, clock
        self._lock = threading.Lock()
        self._by_visitor: dict[str, deque[Start]] = {}
        self._by_address: dict[str, deque[Start]] = {}

    def take(self, visitor: str, address: str) -> Start:
        """Count one start; OverLimit with the minutes to wait if the hour's are used up."""
        with self._lock:
            start = Start(visitor, address, self._clock())
            for known in (self._by_visitor, self._by_address):
                _forget(known, start.at)
            mine = self._by_visitor.get(visitor, deque())
            ours = self._by_address.get(address, deque())
            _check(mine, self._per_visitor, "by you", start.at)
            _check(ours, self._per_address, "from this address", start.at)
            self._by_visitor.setdefault(visitor, mine).append(start)
            self._by_address.setdefault(address, ours).append(start)
            return start

    def is_over(self, start: Start, state: str, seconds: float | None) -> None:
        """Note how the job ended. seconds: for which it ran; None where it never did."""
        with self._lock:
            if state == "cancelled" or seconds is None or seconds < FREE_SECONDS:
                _drop(self._by_visitor, start.visitor, start)
            if seconds is None:
                _drop(self._by_address, start.address, start)


def _check(starts: deque[Start], limit: int | None, whose: str, now: float) -> None:
    if limit is None or len(starts) < limit:
        return
    minutes = max(1, math.ceil((starts[0].at + HOUR - now) / 60)) if starts else 60
    raise OverLimit(
        "A long task was to be started.",
        f"{len(starts)} of {limit} an hour are used {whose}.",
        f"The next is free in {minutes} min; switching blocks and writing texts never count.",
    )


def _forget(known: dict[str, deque[Start]], now: float) -> None:
    for name in list(known):
        starts = known[name]
        while starts and now - starts[0].at >= HOUR:
            starts.popleft()
        if not starts:
            del known[name]


def _drop(known: dict[str, deque[Start]], name: str, start: Start) -> None:
    starts = known.get(name, deque())
    if start in starts:
        starts.remove(start)
