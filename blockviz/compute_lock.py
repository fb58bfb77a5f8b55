"""One lock for all model work, at which a short request never waits for a long job to end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar

from blockviz.types import Done, Events, Progress

T = TypeVar("T")


class ComputeLock:
    """A mutual exclusion with three classes of users, each served in the order they came.

    Whenever the lock comes free, a waiting light user gets it before any patient one, and that one
    before any heavy one. So a heavy job must hold it per step (`steps`), or offer it between steps
    (`give_way`). It is not re-entrant, and it belongs to no thread: a generator may be stepped by
    several. The steps themselves are done by a thread of its own (`done_here`).
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_held = False
        self._light: deque[object] = deque()
        self._patient: deque[object] = deque()
        self._heavy: deque[object] = deque()
        self._lines = (self._light, self._patient, self._heavy)
        self._worker = ThreadPoolExecutor(1, "model work")

    def done_here(self, step: Callable[[], T]) -> T:
        """What `step` returns, from the one thread that all model work is done by.

        Each thread that has ever run a model keeps memory and helpers for it: thirty visitors would
        be served by thirty threads, and half a gigabyte would stay behind.
        """
        return self._worker.submit(step).result()

    @contextmanager
    def light(self) -> Iterator[None]:
        """Hold the lock for something short that a person is waiting for."""
        self._acquire(self._light)
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Hold the lock for one step of something that a person reads as it comes."""
        self._acquire(self._patient)
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def heavy(self) -> Iterator[None]:
        """Hold the lock for one step of something long."""
        self._acquire(self._heavy)
        try:
            yield
        finally:
            self._release()

    def give_way(self) -> None:
        """Let every waiting user of another class go first, then hold the lock again.

        Only for the holder of `heavy()`. It keeps its place before other heavy users. Should the
        wait be interrupted, the lock is held again before the exception leaves.
        """
        with self._changed:
            if not self._is_held:
                raise RuntimeError("give_way is for the holder of the lock")
            if not (self._light or self._patient):
                return
            ticket = object()
            self._heavy.appendleft(ticket)
            self._is_held = False
            self._changed.notify_all()
        try:
            self._take(self._heavy, ticket)
        except BaseException:
            # The caller's `with heavy()` will release, so it must own the lock by then.
            self._acquire(self._heavy)
            raise

    @property
    def n_waiting(self) -> int:
        with self._changed:
            return sum(map(len, self._lines))

    def _acquire(self, line: deque[object]) -> None:
        ticket = object()
        with self._changed:
            line.append(ticket)
        self._take(line, ticket)

    def _take(self, line: deque[object], ticket: object) -> None:
        with self._changed:
            try:
                self._changed.wait_for(lambda: self._is_turn_of(line, ticket))
            except BaseException:
                line.remove(ticket)
                self._changed.notify_all()
                raise
            line.popleft()
            self._is_held = True

    def _is_turn_of(self, line: deque[object], ticket: object) -> bool:
        if self._is_held or line[0] is not ticket:
            return False
        ahead = self._lines[: next(i for i, one in enumerate(self._lines) if one is line)]
        return not any(ahead)

    def _release(self) -> None:
        with self._changed:
            self._is_held = False
            self._changed.notify_all()


def steps(
    events: Events, lock: ComputeLock, *, weight: Literal["heavy", "patient", "light"] = "heavy"
) -> Iterator[Progress | Done]:
    """The same events, each step of `events` and its close under the lock, and nothing else.

    Between two steps the lock is free, so light users get in however slow the consumer is.
    """
    turn = {"heavy": lock.heavy, "patient": lock.patient, "light": lock.light}[weight]
    is_open = True
    try:
        while True:
            with turn():
                event = lock.done_here(lambda: next(events, None))
            if event is None:
                is_open = False
                return
            yield event
            if isinstance(event, Done):
                return
    finally:
        close = getattr(events, "close", None)
        if is_open and close is not None:
            with turn():
                lock.done_here(close)
