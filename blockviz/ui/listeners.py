"""Who listens to what he has asked for: an event that nobody waits for need not be answered."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Receive, Scope, Send

PATIENCE_SECONDS = 60
MOST_KNOWN = 4000
STREAM = re.compile(r"/gradio_api/(?:queue/data|call/(?:v2/)?[^/]+/(?P<event>[^/]+))/?")


class Listeners:
    """Sessions and events by name, whose answers somebody reads or did a minute ago."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._silent_since: OrderedDict[str, float] = OrderedDict()

    @contextmanager
    def listening(self, name: str) -> Iterator[None]:
        with self._lock:
            self._open[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[name] -= 1
                if not self._open[name]:
                    del self._open[name]
                self._silent_since[name] = self._clock()

    def have_left(self, *names: str) -> bool:
        """Whether for a minute nobody has listened to any of them; it begins at the first look."""
        with self._lock:
            if any(self._open[name] for name in names):
                return False
            now = self._clock()
            since = max(self._silent_since.setdefault(name, now) for name in names)
            while len(self._silent_since) > MOST_KNOWN:
                self._silent_since.popitem(last=False)
            return now - since >= PATIENCE_SECONDS

    def forget(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self._silent_since.pop(name, None)


class Listening:
    """Tells the page's `Listeners` of every stream of answers that is open."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = STREAM.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if stream is None or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        page = scope["app"].get_blocks()
        event = page._queue.event_ids_to_events.get(stream["event"])
        name = event.session_hash if event else stream["event"]
        with page.listeners.listening(name or query.get("session_hash", [""])[0]):
            await self._app(scope, receive, send)
