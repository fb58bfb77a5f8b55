"""What a hostile visitor can send to the server, in both modes; all of it stays on this machine."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import safehttpx
from fake_engine import FakeEngine
from serving import launch

API = "/gradio_api"
# A name that gradio takes for a public host, since the test resolves it so.
PUBLIC = "pictures.example"
SCRIPT = b"<script>top.pwned = 1</script>"


@dataclass(frozen=True)
class App:
    """A served app, and plain requests to it, written as they stand."""

    mode: str
    port: int
    page: Any

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers by lower-case name, body). An iterable body is sent in chunks."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            line.request(method, path, body, headers or {})
            answer = line.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, named, b"" if _is_stream(named) else answer.read()
        finally:
            line.close()

    def post(self, path: str, content: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
        return self.ask(
            "POST", path, json.dumps(content), {"Content-Type": "application/json", **headers}
        )

    def call(self, endpoint: str, *values: Any) -> str:
        """The whole answer to a call of a named endpoint."""
        status, _, body = self.post(f"{API}/call/{endpoint}", {"data": values})
        assert status == 200, body
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        line.request("GET", f"{API}/call/{endpoint}/{json.loads(body)['event_id']}")
        answer = line.getresponse().read().decode()
        line.close()
        return answer


def _is_stream(headers: dict[str, str]) -> bool:
    return headers.get("content-type", "").startswith("text/event-stream")


@pytest.fixture(scope="module", params=["hosted", "local"])
def app(request: pytest.FixtureRequest) -> Iterator[App]:
    page, served = launch(FakeEngine(step=0.0, is_ready=True, mode=request.param))
    yield App(request.param, urlsplit(served.url).port, page)
    page.close()


# -- pages of strangers --


class Stranger:
    """A web server of somebody else, on this machine, that notes who comes."""

    def __init__(self) -> None:
        self.visits: list[str] = []
        stranger = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stranger.visits.append(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(SCRIPT)))
                self.end_headers()
                self.wfile.write(SCRIPT)

            do_HEAD = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.host = f"{PUBLIC}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stranger]:
    """The stranger's host passes gradio's check for public ones; every check counts as a visit."""
    made = Stranger()

    async def resolve(host: str) -> str:
        made.visits.append(host)
        return "127.0.0.1"

    monkeypatch.setattr(safehttpx, "async_validate_url", resolve)
    yield made
    made.server.shutdown()
    made.server.server_close()


URLS = ("http://HOST/x.png", "https://HOST/x.png", "HTTP://HOST/x.png", "//HOST/x.png",
        "http:/HOST/x.png", "ftp://HOST/x.png", "\\\\HOST\\x.png", " http://HOST/x.png")  # fmt: skip
PLACES = (f"{API}/file=", f"{API}/file/", "/file=", "/file/", f"{API}/proxy=", "/proxy=",
          f"{API}/proxy=https://a.hf.space/file=")  # fmt: skip


def spellings(url: str) -> set[str]:
    """The address as it is, percent-encoded once and twice, in part and to the last letter."""
    plain = quote(url, safe=":/\\").replace("\\", "%5C")
    once = quote(url, safe="")
    every = "".join(f"%{ord(c):02x}" for c in url)
    return {plain, once, quote(once, safe=""), every, quote(every, safe="")}


def test_no_route_fetches_an_address_for_a_visitor(app: App, stranger: Stranger):
    served = {}
    for place in PLACES:
        for url in URLS:
            for path in spellings(url.replace("HOST", stranger.host)):
                status, _, body = app.ask("GET", place + path)
                if status != 404 or SCRIPT in body:
                    served[place + path] = status
    assert app.ask("HEAD", f"{API}/file=http://{stranger.host}/x.png")[0] == 404
    assert (served, stranger.visits) == ({}, [])


def test_no_event_fetches_a_file_for_a_visitor(app: App, stranger: Stranger):
    """A page names its uploads by a path on the server; gradio also takes an address there."""
    file = {"path": f"http://{stranger.host}/x.txt", "meta": {"_type": "gradio.FileData"}}
    for given in (file, [file], {"a": [file]}):
        assert "event: error" in app.call("generate", given)
    for event in app.page.config["dependencies"]:
        body = {"data": [file] * len(event["inputs"]), "fn_index": event["id"], "session_hash": "s"}
        app.post(f"{API}/run/predict", body)
    assert stranger.visits == []
