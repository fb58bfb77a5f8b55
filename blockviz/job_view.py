"""What a front end sees of a detached job, and the guess of how long it still takes."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockviz.types import Progress


@dataclass(frozen=True)
class JobView:
    """A snapshot of a detached job for a front end. `eta` and `elapsed` in seconds.

    `state`: queued, running, done, cancelled, failed, expired. `error` is text for people.
    `result` after done; `partial` is what a running, cancelled or failed job has so far.
    `queue_position` counts from 1 while queued, else 0. `eta` is of the current stage, None
    while its rate is not known. `is_stopping`: it was cancelled, and its last step is not over yet.
    """

    id: str
    kind: str
    state: str
    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    note: str = ""
    elapsed: float = 0.0
    eta: float | None = None
    queue_position: int = 0
    error: str = ""
    is_stopping: bool = False
    partial: object = field(default=None, repr=False)
    result: object = field(default=None, repr=False)

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "cancelled", "failed", "expired")


@dataclass(frozen=True)
class Pace:
    """The rate of the current stage, from its first event to its latest."""

    stage: str
    first_done: float
    first_at: float
    done: float
    total: float
    at: float

    def update(self, event: Progress, now: float) -> Pace:
        """Its successor; a new stage, a new total or a step back starts the count afresh."""
        same = event.stage == self.stage and event.total == self.total and event.done >= self.done
        if not same:
            return Pace.start(event, now)
        # Between two steps the guess counts down: an event that is no step must not stretch it.
        at = now if event.done > self.done else self.at
        return Pace(self.stage, self.first_done, self.first_at, event.done, event.total, at)

    @classmethod
    def start(cls, event: Progress, now: float) -> Pace:
        return cls(event.stage, event.done, now, event.done, event.total, now)

    def eta(self, now: float) -> float | None:
        """Seconds left of the stage; None before a rate is known and once the guess has passed."""
        steps, seconds = self.done - self.first_done, self.at - self.first_at
        if self.total <= 0 or steps <= 0 or seconds <= 0:
            return None
        left = (self.total - self.done) * seconds / steps - (now - self.at)
        return left if left > 0 else None
