"""How many long tasks one address may start in an hour."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from blockviz.errors import OverLimit

HOUR = 3600.0


class Allowance:
    """Counts starts over a sliding hour; a class behind one address shares one count."""

    def __init__(
        self, per_hour: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_hour, self._clock = per_hour, clock
        self._lock = threading.Lock()
        self._starts: dict[str, deque[float]] = {}

    def take(self, address: str) -> None:
        """Count one start; OverLimit with the minutes to wait if the hour's are used up."""
        if self._per_hour is None:
            return
        with self._lock:
            now = self._clock()
            self._forget(now)
            starts = self._starts.setdefault(address, deque())
            if len(starts) >= self._per_hour:
                minutes = max(1, math.ceil((starts[0] + HOUR - now) / 60))
                raise OverLimit(
                    "A long task was to be started.",
                    f"{len(starts)} of {self._per_hour} an hour are used from this address.",
                    f"The next is free in {minutes} min; switching blocks and writing texts never "
                    "count.",
                )
            starts.append(now)

    def _forget(self, now: float) -> None:
        for address in list(self._starts):
            starts = self._starts[address]
            while starts and now - starts[0] >= HOUR:
                starts.popleft()
            if not starts:
                del self._starts[address]
