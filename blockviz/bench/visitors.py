"""Many people at one small server: how long each waits, whether plans mix, what memory remains."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from blockviz.bench.scoring import Say

N_VISITORS, N_TOGGLES = 30, 4
# A person looks at the new perplexity before switching the next block.
PACE_SECONDS = 20.0
PATIENCE_SECONDS = 180.0
MIB = 2**20
# What the scoreboard says of a perplexity that is there.
KNOWN = ("bundled", "measured")


def many_visitors(say: Say, *, is_quick: bool = False) -> dict[str, Any]:
    """30 pages of one address toggle plans of their own while a search runs, and leave again.

    The server is a process of its own in hosted mode, spoken to as a browser speaks to it. Seconds
    of every toggle until the page is redrawn, its perplexity is there, and its text; how many
    answers showed another plan than the page's own or a refusal; the server's memory before anybody
    came, at its most, and after all have left. Then thirty others toggle once each, and leave the
    memory where it was if nothing stays of a visit.
    """
    n_toggles, rest = (2, 30.0) if is_quick else (N_TOGGLES, 300.0)
    with _server() as (base, pid):
        whole = _Site(base)
        warm = _Page(whole)
        warm.toggle(("0.attn",))
        warm.leave()
        before = _resident(pid)
        pages, most, was_searching = _wave(whole, pid, 0, n_toggles, rest)
        after = _resident(pid)
        others, _, _ = _wave(whole, pid, N_VISITORS, 1, rest)
        after_others = _resident(pid)
    everybody = [*pages, *others]
    mixed, refused = sum(p.mixed for p in everybody), [r for p in everybody for r in p.refused]
    found = {
        "what": f"{N_VISITORS} visitors of one address, {n_toggles} toggles each, one every "
        f"{PACE_SECONDS:g} s, while a greedy search ran",
        "search_still_ran_at_the_end": was_searching,
        "search": whole.searched,
        "seconds_until_drawn": _quantiles([s for p in pages for s in p.drawn]),
        "seconds_until_measured": _quantiles([s for p in pages for s in p.measured]),
        "seconds_until_written": _quantiles([s for p in pages for s in p.written]),
        "mixed": mixed,
        "refused": refused[:5],
        "n_refused": len(refused),
        "resident_bytes": dict(before=before, most=most, after=after, after_others=after_others),
    }
    say(
        f"{found['what']}: drawn after {found['seconds_until_drawn']['median']:.2f} s in the "
        f"median, measured after {found['seconds_until_measured']['median']:.2f} s; "
        f"{mixed} mixed, {len(refused)} refused; memory {before / MIB:.0f} MiB before, "
        f"{most / MIB:.0f} at most, {after / MIB:.0f} {rest:.0f} s after, "
        f"{after_others / MIB:.0f} as long after thirty others"
    )
    return found


def _wave(
    site: _Site, pid: int, first: int, n_toggles: int, rest: float
) -> tuple[list[_Page], int, bool]:
    """(pages, most bytes, whether the search outlasted them) of thirty visits beside a search.

    Returns `rest` seconds after all have left and the search is through.
    """
    search = threading.Thread(target=site.search, daemon=True)
    search.start()
    with ThreadPoolExecutor(N_VISITORS) as pool:
        done = [pool.submit(_visit, site, first + i, n_toggles) for i in range(N_VISITORS)]
        most = _resident(pid)
        while not all(d.done() for d in done):
            most = max(most, _resident(pid))
            time.sleep(0.5)
        pages = [d.result() for d in done]
    was_searching = search.is_alive()
    search.join(PATIENCE_SECONDS * 4)
    time.sleep(rest)
    return pages, most, was_searching


def _visit(site: _Site, number: int, n_toggles: int) -> _Page:
    """One person: opens the page, switches blocks of their own, and leaves."""
    draw = random.Random(number)
    time.sleep(draw.uniform(0, PACE_SECONDS))
    page, removed = _Page(site), []
    for _ in range(n_toggles):
        begun = time.monotonic()
        block = f"{draw.randrange(2, 29)}.{draw.choice(('attn', 'mlp'))}"
        removed = [b for b in removed if b != block] + [block] * (block not in removed)
        page.toggle(removed)
        time.sleep(max(0.0, PACE_SECONDS - (time.monotonic() - begun)))
    page.leave()
    return page


class _Site:
    """What the page is made of, as its own scripts learn it."""

    def __init__(self, base: str) -> None:
        self.base, self.searched = base, ""
        config = httpx2.get(f"{base}/config", timeout=60).json()
        self.prefix = config.get("api_prefix", "")
        names = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self.events = config["dependencies"]
        self.of = {
            (names.get(target, target), event): d
            for d in reversed(self.events)
            for target, event in d["targets"]
        }
        self.names = names
        self.values = {c["id"]: c["props"].get("value") for c in config["components"]}

    def load(self) -> Mapping[str, Any]:
        asked = (d for d in self.events if d["backend_fn"] and d["targets"])
        return next(d for d in asked if d["targets"][0][1] == "load")

    def then(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """What follows an event through the queue: a change's perplexity, behind it the text."""
        return next(d for d in self.events if d["trigger_after"] == event["id"] and d["queue"])

    def search(self) -> None:
        """A greedy search by the named endpoint, as long as a visitor may ask for."""
        asked = [3, "greedy", "ppl", "block", "demo", 32, 128, 7]
        url = f"{self.base}{self.prefix}/call/search"
        with httpx2.Client(timeout=PATIENCE_SECONDS * 4) as client:
            begun = client.post(url, json={"data": asked}).json()
            with client.stream("GET", f"{url}/{begun['event_id']}") as stream:
                said = [line for line in stream.iter_lines() if line.startswith("event: ")]
        self.searched = said[-1].partition(" ")[2] if said else "no answer"


@dataclass
class _Page:
    """One open page; drawn, measured, written: seconds of each toggle until then."""

    site: _Site
    session: str = field(default_factory=lambda: secrets.token_hex(6))
    drawn: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    mixed: int = 0
    refused: list[str] = field(default_factory=list)
    seq: int = 0

    def __post_init__(self) -> None:
        self.client = httpx2.Client(timeout=PATIENCE_SECONDS)
        self.has_left = threading.Event()
        self.line: socket.socket | None = None
        self.heart = threading.Thread(target=self._beat, daemon=True)
        self.heart.start()
        self._ask(self.site.load())

    def _beat(self) -> None:
        """The stream by whose end the server learns that the page was closed."""
        url = f"{self.site.base}{self.site.prefix}/heartbeat/{self.session}"
        with httpx2.Client(timeout=None) as client, client.stream("GET", url) as stream:
            self.line = stream.extensions["network_stream"].get_extra_info("socket")
            if self.has_left.is_set():
                return
            try:
                for _ in stream.iter_raw():
                    pass
            except httpx2.TransportError:
                if not self.has_left.is_set():
                    raise

    def leave(self) -> None:
        """Ends the stream at once, as a browser does; its next beat may be 15 seconds away."""
        self.has_left.set()
        if self.line is not None:
            # An error says that the stream has ended already.
            with suppress(OSError):
                self.line.shutdown(socket.SHUT_RDWR)
        self.heart.join(30)
        self.client.close()

    def toggle(self, removed: Sequence[str]) -> None:
        """The grid sends the whole plan that it shows."""
        event, started = self.site.of["grid", "toggle"], time.monotonic()
        self.seq += 1
        block = removed[-1] if removed else "0.attn"
        data = {"removed": list(removed), "block": block, "seq": self.seq}
        self._check(self._ask(event, data), removed)
        self.drawn.append(time.monotonic() - started)
        measures = self.site.then(event)
        self._queued(measures)
        self.measured.append(time.monotonic() - started)
        self._queued(self.site.then(measures))
        self.written.append(time.monotonic() - started)
        # The list of removed blocks, sent as it stands, answers with what is known by now.
        known = self._ask(self.site.of["twin", "input"], twin=list(removed))
        self._check(known, removed)
        if known["score"].get("state") not in KNOWN:
            self.refused.append(f"no perplexity: {known['score']}"[:200])

    def _check(self, answer: Mapping[str, Any], removed: Sequence[str]) -> None:
        shown = answer["twin"].get("value") if isinstance(answer["twin"], dict) else answer["twin"]
        self.mixed += sorted(shown or ()) != sorted(removed)
        if (answer.get("error") or {}).get("text"):
            self.refused.append(answer["error"]["text"])

    def _body(self, event: Mapping[str, Any], **given: Any) -> dict[str, Any]:
        values = [
            given.get(self.site.names.get(i) or "", self.site.values.get(i))
            for i in event["inputs"]
        ]
        return {"data": values, "fn_index": event["id"], "session_hash": self.session}

    def _ask(self, event: Mapping[str, Any], data: Any = None, **given: Any) -> dict[str, Any]:
        """Component -> value, of an event that does not queue."""
        body = {**self._body(event, **given), "event_data": data}
        answer = self.client.post(f"{self.site.base}{self.site.prefix}/run/predict", json=body)
        if answer.status_code != 200:
            self.refused.append(f"{answer.status_code}: {answer.text[:200]}")
            return {"twin": None, "score": {}}
        pairs = zip(event["outputs"], answer.json()["data"], strict=True)
        return {self.site.names.get(i) or str(i): value for i, value in pairs}

    def _queued(self, event: Mapping[str, Any]) -> None:
        """Returns when an event of the queue is through."""
        root = f"{self.site.base}{self.site.prefix}/queue"
        joined = self.client.post(f"{root}/join", json=self._body(event))
        if joined.status_code != 200:
            self.refused.append(f"{joined.status_code}: {joined.text[:200]}")
            return
        query = {"session_hash": self.session}
        with self.client.stream("GET", f"{root}/data", params=query) as stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    if not message.get("success"):
                        self.refused.append(str(message.get("output"))[:200])
                elif message.get("msg") == "close_stream":
                    return


@contextmanager
def _server() -> Iterator[tuple[str, int]]:
    """(address, process id) of the app in hosted mode, its model loaded."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w") as out:
            server = subprocess.Popen(
                [sys.executable, "-m", "blockviz", "app", "--port", str(port)],
                env={**os.environ, "BLOCKVIZ_MODE": "hosted"}, stdout=out, stderr=out,
            )  # fmt: skip
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_for(base, server, log)
            yield base, server.pid
        finally:
            server.terminate()
            server.wait(60)


def _wait_for(base: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once the page answers and the model writes."""
    until = time.monotonic() + 600
    ask = {"data": ["The sea", "0.attn", 1, "none"]}
    while server.poll() is None and time.monotonic() < until:
        try:
            url = f"{base}/gradio_api/call/generate"
            begun = httpx2.post(url, json=ask, timeout=60).json()["event_id"]
            if "event: complete" in httpx2.get(f"{url}/{begun}", timeout=120).text:
                return
        except (httpx2.HTTPError, KeyError, ValueError):
            pass
        time.sleep(1)
    raise RuntimeError(f"the server did not come up: {log.read_text()[-2000:]}")


def _resident(pid: int) -> int:
    """Bytes of a process that are in memory."""
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(told.stdout) * 1024


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    ninth = statistics.quantiles(values, n=10)[-1] if len(values) > 1 else values[0]
    return {
        "n": len(values),
        "median": round(statistics.median(values), 3),
        "ninth_tenth": round(ninth, 3),
        "most": round(max(values), 3),
    }
