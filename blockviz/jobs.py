"""Detached jobs: a task that goes on whoever looks, polled by id, cancelled between its steps.

Heavy jobs run one at a time, of each address in the order they came, and addresses take turns;
light ones start at once. Knowing a job's id
is the permission to see and stop it, so ids are unguessable and are never logged.
"""

from __future__ import annotations

import gc
import itertools
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from blockviz.errors import BlockvizError, OverLimit, report
from blockviz.job_view import JobView, Pace
from blockviz.memory import give_back
from blockviz.types import Done, Events, Progress

Weight = Literal["heavy", "light"]
# Called with the state a job ended in and the seconds that it ran, None if it never did; quick.
OnEnd = Callable[[str, float | None], None]
KEEP_SECONDS = 30 * 60
MAX_WAITING = 64
# An expired job costs only its id here; enough to answer "expired" for longer than people wait.
MAX_EXPIRED = 1000
DIED = "The job ended without a result or a reason. Nothing was lost. Start it again."


@dataclass
class _Job:
    id: str
    kind: str
    owner: str
    address: str
    weight: Weight
    start: Callable[[], Events] | None
    seen_at: float
    state: str = "queued"
    started_at: float | None = None
    ended_at: float | None = None
    left_at: float | None = None
    on_end: OnEnd | None = None
    last: Progress = field(default_factory=lambda: Progress("", 0, 0))
    pace: Pace | None = None
    partial: object = None
    result: object = None
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None


class Jobs:
    """The jobs of one process. Every method may be called from any thread and returns at once.

    `orphan_seconds`: how long the jobs of a visitor who left (`forget`) go on with nobody looking;
    None lets them finish. A reload looks again within seconds, so it never loses its job. Those of
    a caller who never said that he left have three times as long.
    """

    def __init__(
        self,
        *,
        is_one_per_owner: bool = False,
        max_waiting: int = MAX_WAITING,
        keep_seconds: float = KEEP_SECONDS,
        orphan_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_one_per_owner = is_one_per_owner
        self._max_waiting = max_waiting
        self._keep_seconds = keep_seconds
        self._orphan_seconds = orphan_seconds
        self._clock = clock
        self._lock = threading.RLock()
        self._jobs: dict[str, _Job] = {}
        self._queue: list[_Job] = []
        # Address -> the number of its last turn.
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._numbers = itertools.count()
        self._heavy: _Job | None = None
        self._expired: OrderedDict[str, str] = OrderedDict()

    def submit(
        self,
        kind: str,
        start: Callable[[], Events],
        *,
        owner: str,
        address: str = "",
        weight: Weight = "heavy",
        on_end: OnEnd | None = None,
    ) -> str:
        """The id of a new job that will drain `start()`; OverLimit when there is no room for it.

        owner "": the job is everybody's, and goes on with nobody looking.
        """
        with self._lock:
            self._sweep()
            self._check_room(owner, address, weight)
            job = _Job(
                secrets.token_urlsafe(16), kind, owner, address, weight, start, self._clock()
            )
            job.on_end = on_end
            self._jobs[job.id] = job
            if weight == "light":
                self._launch(job)
            else:
                self._queue.append(job)
                self._launch_next()
            return job.id

    def view(self, job_id: str) -> JobView | None:
        """A snapshot of the job; None for an id that never was or is long gone."""
        with self._lock:
            job = self._jobs.get(job_id)
            if job is not None:
                job.left_at, job.seen_at = None, self._clock()
            self._sweep()
            if job_id in self._expired:
                return JobView(job_id, self._expired[job_id], "expired")
            return None if job is None else self._snapshot(job)

    def cancel(self, job_id: str) -> None:
        """Stop the job before its next step and keep what it has; over or unknown: nothing."""
        with self._lock:
            self._bury()
            job = self._jobs.get(job_id)
            if job is None or job.ended_at is not None:
                return
            job.stop.set()
            if job.state == "queued":
                self._queue.remove(job)
                self._end(job, "cancelled")

    def forget(self, owner: str) -> None:
        """Note that the visitor left: see `orphan_seconds` for what becomes of live jobs."""
        with self._lock:
            now = self._clock()
            for job in self._jobs.values():
                if job.owner == owner:
                    job.left_at = now
            self._sweep()
        give_back()

    def wait(self, job_id: str, timeout: float | None = None) -> JobView | None:
        """The snapshot once the job is over, or at the timeout (seconds)."""
        with self._lock:
            job = self._jobs.get(job_id)
        if job is not None:
            job.over.wait(timeout)
        return self.view(job_id)

    def close(self, timeout: float = 10.0) -> None:
        """Cancel everything and wait, up to `timeout` seconds in all, for the workers to end."""
        with self._lock:
            live = [j for j in self._jobs.values() if j.ended_at is None]
            for job in live:
                self.cancel(job.id)
        deadline = time.monotonic() + timeout
        for job in live:
            if job.thread is not None:
                job.thread.join(max(0.0, deadline - time.monotonic()))

    def _check_room(self, owner: str, address: str, weight: Weight) -> None:
        live = [j for j in self._jobs.values() if j.ended_at is None and j.weight == weight]
        waiting = len(self._queue) if weight == "heavy" else len(live)
        if weight == "heavy" and self._is_one_per_owner and any(j.owner == owner for j in live):
            raise OverLimit(
                "A second long task was asked for.",
                "One of yours is still queued or running, and one at a time is the limit here.",
                "Wait for it to end or cancel it, then start this one.",
            )
        if waiting >= self._max_waiting:
            raise OverLimit(
                "A new task was asked for.",
                f"{waiting} tasks are waiting already, and {self._max_waiting} is the limit.",
                "Try again in a few minutes; toggles and short texts go on working meanwhile.",
            )
        share = max(1, self._max_waiting // 2)
        of_address = sum(job.address == address for job in self._queue)
        if weight == "heavy" and address and of_address >= share:
            raise OverLimit(
                "A new task was asked for.",
                f"{of_address} tasks from your address are waiting already, and {share} is the "
                "limit.",
                "Try again when some of them are done.",
            )

    def _launch_next(self) -> None:
        while self._heavy is None and self._queue:
            self._heavy = job = self._order()[0]
            self._queue.remove(job)
            self._turns.pop(job.address, None)
            self._turns[job.address] = next(self._numbers)
            while len(self._turns) > MAX_EXPIRED:
                self._turns.popitem(last=False)
            self._launch(job)

    def _order(self) -> list[_Job]:
        """The waiting jobs as they will run: next is the address whose last turn is longest ago."""
        turns, waiting, order = dict(self._turns), list(self._queue), []
        while waiting:
            job = min(waiting, key=lambda job: turns.get(job.address, -1))
            turns[job.address] = max(turns.values(), default=0) + 1
            waiting.remove(job)
            order.append(job)
        return order

    def _launch(self, job: _Job) -> None:
        job.state, job.started_at = "running", self._clock()
        job.thread = threading.Thread(
            target=self._work, args=(job,), name=f"blockviz-{job.kind}", daemon=True
        )
        try:
            job.thread.start()
        except (RuntimeError, MemoryError) as error:
            self._finish(job, "failed", report(error, f"a {job.kind} job could not begin"))

    def _work(self, job: _Job) -> None:
        state, error = "failed", DIED
        try:
            state, error = self._outcome(job)
        finally:
            self._finish(job, state, error)
        gc.collect()
        give_back()

    def _outcome(self, job: _Job) -> tuple[str, str]:
        """(state, error) at the end of the job, whatever it is that ends it."""
        try:
            return self._drain(job), ""
        except BlockvizError as refusal:
            return "failed", str(refusal)
        except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception
            return "failed", report(error, f"a {job.kind} job failed")

    def _finish(self, job: _Job, state: str, error: str) -> None:
        """The job is over, and its place is the next one's."""
        with self._lock:
            if job.ended_at is None:
                self._end(job, state, error)
            if self._heavy is job:
                self._heavy = None
                self._launch_next()

    def _bury(self) -> None:
        """End every job whose worker died without a word."""
        for job in list(self._jobs.values()):
            is_dead = job.thread is not None and not job.thread.is_alive()
            if is_dead and job.ended_at is None:
                self._finish(job, "failed", DIED)

    def _drain(self, job: _Job) -> str:
        events = job.start()
        try:
            for event in _until(job.stop, events):
                self._record(job, event)
                if isinstance(event, Done):
                    return "done"
        finally:
            # A generator runs its `finally` here, so a cancelled job leaves the model as it was.
            close = getattr(events, "close", None)
            if close is not None:
                close()
        if job.stop.is_set():
            return "cancelled"
        raise RuntimeError("the task ended without a result")

    def _record(self, job: _Job, event: Progress | Done) -> None:
        with self._lock:
            if isinstance(event, Done):
                job.result = event.result
                return
            now = self._clock()
            job.pace = job.pace.update(event, now) if job.pace else Pace.start(event, now)
            job.last = event
            if event.partial is not None:
                job.partial = event.partial

    def _end(self, job: _Job, state: str, error: str = "") -> None:
        job.state, job.error, job.ended_at = state, error, self._clock()
        on_end, job.on_end = job.on_end, None
        job.start = job.pace = None
        if on_end is not None:
            on_end(state, None if job.started_at is None else job.ended_at - job.started_at)
        job.over.set()

    def _sweep(self) -> None:
        """Expire what ended long ago; cancel what nobody has looked at since its visitor left."""
        self._bury()
        now = self._clock()
        for job in list(self._jobs.values()):
            if job.ended_at is not None and now - job.ended_at >= self._keep_seconds:
                del self._jobs[job.id]
                self._expired[job.id] = job.kind
            elif self._is_left(job, now):
                self.cancel(job.id)
        while len(self._expired) > MAX_EXPIRED:
            self._expired.popitem(last=False)

    def _is_left(self, job: _Job, now: float) -> bool:
        if self._orphan_seconds is None:
            return False
        is_gone = job.left_at is not None and now - job.left_at >= self._orphan_seconds
        return is_gone or (bool(job.owner) and now - job.seen_at >= 3 * self._orphan_seconds)

    def _snapshot(self, job: _Job) -> JobView:
        now = self._clock()
        until = job.ended_at if job.ended_at is not None else now
        return JobView(
            id=job.id,
            kind=job.kind,
            state=job.state,
            stage=job.last.stage,
            done=job.last.done,
            total=job.last.total,
            note=job.last.note,
            elapsed=0.0 if job.started_at is None else until - job.started_at,
            eta=job.pace.eta(now) if job.pace else None,
            queue_position=self._order().index(job) + 1 if job.state == "queued" else 0,
            error=job.error,
            is_stopping=job.ended_at is None and job.stop.is_set(),
            partial=job.partial,
            result=job.result,
        )


def _until(stop: threading.Event, events: Events) -> Iterator[Progress | Done]:
    """The events up to the first moment when `stop` is set; no step is begun after it."""
    while not stop.is_set():
        event = next(events, None)
        if event is None:
            return
        yield event
