"""Gradio's queue of events, of which nobody may take more than a share."""

from __future__ import annotations

import itertools
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

from gradio.queueing import Event, EventQueue, Queue

from blockviz.session.networks import network_of

# How many events may wait: in all, of one address (a class behind it, each with what is measured
# and what is written), and of one page.
QUEUE_SIZE, OF_ADDRESS, OF_SESSION = 256, 96, 12
MOST_TURNS = 1000
# As the page is to be queued. What is queued cannot be asked for past the queue.
QUEUE = {"max_size": QUEUE_SIZE, "default_concurrency_limit": 1, "api_open": False}
SWEEP_SECONDS = 1.0


class FairQueue(Queue):
    """Addresses take turns, and what nobody listens for is dropped."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._turns: OrderedDict[str, int] = OrderedDict()
        self._numbers = itertools.count()
        self._swept_at = 0.0

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, Any]:
        self._sweep()
        refusal = self._refusal(network(request), body.session_hash)
        if refusal:
            return False, refusal, "queue_full"
        return await super().push(body, request, username)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """What runs next, of the address whose last turn is longest ago."""
        self._sweep()
        for line in self.event_queue_per_concurrency_id.values():
            limit = line.concurrency_limit
            if len(line.queue) > 1 and (limit is None or line.current_concurrency < limit):
                first = min(line.queue, key=lambda e: self._turns.get(network(e.request), -1))
                line.queue.remove(first)
                line.queue.insert(0, first)
        found = super().get_events()
        if found:
            address = network(found[0][0].request)
            self._turns.pop(address, None)
            self._turns[address] = next(self._numbers)
            while len(self._turns) > MOST_TURNS:
                self._turns.popitem(last=False)
        return found

    def _refusal(self, address: str, session: str | None) -> str:
        waiting = [event for line in self._lines() for event in line.queue]
        of_address = sum(network(event.request) == address for event in waiting)
        of_session = Counter(event.session_hash for event in waiting)[session or ""]
        for n, most, whose in (
            (of_session, OF_SESSION, "this page"),
            (of_address, OF_ADDRESS, "your address"),
        ):
            if n >= most:
                return (
                    f"This was asked for. {n} requests of {whose} are waiting already, and {most} "
                    "is the limit. Ask again when they are answered."
                )
        return ""

    def _lines(self) -> Iterator[EventQueue]:
        yield from self.event_queue_per_concurrency_id.values()

    def _sweep(self) -> None:
        """Drop all that gradio keeps for sessions that nobody listens to any more."""
        now = time.monotonic()
        if now - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at = now
        listeners = self.blocks.listeners
        for session, ids in list(self.pending_event_ids_session.items()):
            if not listeners.have_left(session, *ids):
                continue
            for line in self._lines():
                line.queue = [event for event in line.queue if event.session_hash != session]
            for event in [e for job in self.active_jobs if job for e in job]:
                if event.session_hash == session:
                    event.alive = False
            for name in ids:
                self.event_ids_to_events.pop(name, None)
            self.pending_event_ids_session.pop(session, None)
            self.pending_messages_per_session.pop(session, None)
            listeners.forget(session, *ids)


def network(request: Any) -> str:
    return network_of(request.client.host) if request and request.client else ""
