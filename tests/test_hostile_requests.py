"""What a hostile visitor can send to the server, in both modes; all of it stays on this machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import gradio.routes
import pytest
import safehttpx
from fake_engine import FakeEngine
from serving import launch
from starlette.responses import PlainTextResponse
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from blockviz.errors import BadInput, OverLimit
from blockviz.session import JobView, Visitor
from blockviz.session.networks import network_of
from blockviz.ui.callers import choose_proxies
from blockviz.ui.listeners import Listeners
from blockviz.ui.own_hosts import OwnHosts
from blockviz.ui.turns import Turns
from blockviz.ui.uploads import UploadLimit, UploadShares
from blockviz.ui.visitors import Visitors

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
    engine: FakeEngine

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        source: str = "127.0.0.1",
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers by lower-case name, body). An iterable body is sent in chunks."""
        line = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=30, source_address=(source, 0)
        )
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
    engine = FakeEngine(step=0.0, is_ready=True, mode=request.param)
    page, served = launch(engine)
    yield App(request.param, urlsplit(served.url).port, page, engine)
    page.close()


@pytest.fixture
def printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[[], str]:
    """All that the server has printed and logged since it was asked for last."""

    def read() -> str:
        said = caplog.text + "".join(capfd.readouterr())
        caplog.clear()
        return said

    return read


def finished(answer: Coroutine[Any, Any, None]) -> None:
    """In a thread of its own: that of the tests has a loop already where a browser was driven."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, answer).result()


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


URLS = (
    *("http://HOST/x.png", "https://HOST/x.png", "HTTP://HOST/x.png", "//HOST/x.png"),
    *("http:/HOST/x.png", "ftp://HOST/x.png", "\\\\HOST\\x.png", " http://HOST/x.png"),
)
PLACES = (
    *(f"{API}/file=", f"{API}/file/", "/file=", "/file/", f"{API}/proxy=", "/proxy="),
    f"{API}/proxy=https://a.hf.space/file=",
)


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


# -- what a browser is told --

# Served as gradio serves it. A route that is in neither this table nor CLOSED is a new one of
# gradio's: see what it does before it goes into one of them.
OPEN = {
    *("/", "/config", "/config/", "/static/{path}", "/assets/{path}", "/svelte/{path}"),
    *("/favicon.ico", "/robots.txt", "/manifest.json", "/theme.css", "/openapi.json", "/pwa_icon"),
    *("/pwa_icon/{size}", "/login", "/login/", "/logout", "/gradio_api/theme.css"),
    *(f"{API}/{name}" for name in (
        "user", "user/", "login_check", "login_check/", "token", "token/", "app_id", "app_id/",
        "info", "info/", "openapi.json", "file={path_or_url}", "reset", "reset/", "cancel",
        "heartbeat/{session_hash}", "run/{api_name}", "run/{api_name}/", "api/{api_name}",
        "api/{api_name}/", "call/{api_name}", "call/{api_name}/", "call/{api_name}/{event_id}",
        "call/v2/{api_name}", "call/v2/{api_name}/", "call/v2/{api_name}/{event_id}", "queue/join",
        "queue/data", "queue/status", "component_server", "component_server/", "upload",
        "upload_progress", "startup-events",
    )),
}  # fmt: skip
CLOSED = {
    *("/monitoring", "/monitoring/summary", "/monitoring/{key}"),
    *(f"{API}/{name}" for name in (
        "deep_link", "proxy={url_path}", "file/{path}", "runs", "runs/", "dev/reload",
        "custom_component/{id}/{environment}/{type}/{file_name}", "process_recording",
        "stream/{event_id}", "stream/{event_id}/close",
        "stream/{session_hash}/{run}/{component_id}/playlist.m3u8",
        "stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}",
        "stream/{session_hash}/{run}/{component_id}/playlist-file",
        "vibe-edit", "vibe-edit/", "undo-vibe-edit", "undo-vibe-edit/", "vibe-code", "vibe-code/",
        "vibe-starter-queries", "vibe-starter-queries/",
    )),
}  # fmt: skip


def routes(app: App) -> dict[str, set[str]]:
    """Path, its parameters in braces without their kinds -> methods."""
    found: dict[str, set[str]] = {}
    waiting = list(app.page.app.routes)
    while waiting:
        route = waiting.pop()
        if hasattr(route, "path"):
            path = re.sub(r":\w+\}", "}", route.path)
            found.setdefault(path, set()).update(route.methods or ())
        else:
            waiting.extend(route.effective_candidates())
    return found


def test_every_route_of_gradio_is_closed_or_guarded(app: App):
    assert set(routes(app)) == OPEN | CLOSED
    for path, methods in routes(app).items():
        plain = path.replace("/{event_id}", "/none").replace("{api_name}", "none")
        plain = re.sub(r"\{\w+\}", "1", plain)
        for method in sorted(methods):
            status, headers, _ = app.ask(method, plain)
            where = f"{method} {plain}: {status} {headers}"
            assert headers.get("x-content-type-options") == "nosniff", where
            assert "frame-ancestors 'self'" in headers["content-security-policy"] or (
                "sandbox" in headers["content-security-policy"]
            ), where
            assert path not in CLOSED or status == 404, where


def test_a_page_runs_the_scripts_that_it_came_with_and_no_others(app: App):
    _, headers, page = app.ask("GET", "/")
    policy = dict(
        rule.strip().partition(" ")[::2] for rule in headers["content-security-policy"].split(";")
    )
    inline = re.findall(rb"<script(?![^>]*src=)[^>]*>(.*?)</script>", page, re.S)
    digests = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in inline]
    allowed = [f"'sha256-{digest}'" for digest in digests]
    assert policy["script-src"].split() == ["'self'", "'unsafe-eval'", *allowed] and allowed
    assert policy["default-src"] == "'self' data: blob:" and policy["connect-src"] == "'self'"
    assert policy["object-src"] == "'none'" and policy["base-uri"] == "'self'"
    hub = " https://huggingface.co" if app.mode == "hosted" else ""
    assert policy["frame-ancestors"] == "'self'" + hub


@pytest.mark.parametrize("part", [{}, {"Range": "bytes=0-4", "X-Mine": "1", "Cookie": "a=b"}])
def test_a_file_is_saved_and_never_opened(app: App, part: dict[str, str]):
    for name in ("page.html", "drawing.svg", "script.js", "words.txt", "data.json"):
        url = uploaded(app, name, SCRIPT)
        status, headers, body = app.ask("GET", url, headers=part)
        assert (status, body) == ((206, SCRIPT[:5]) if part else (200, SCRIPT))
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment")
        assert headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert headers["x-content-type-options"] == "nosniff"
        assert not {"x-mine", "cookie", "host"} & set(headers)
    _, headers, _ = app.ask("GET", uploaded(app, "picture.png", b"\x89PNG"), headers=part)
    assert headers["content-type"] == "image/png"


# -- how much is sent and what is kept of it --

MIB = 1 << 20
TOO_LARGE = "The request is too large. At most 1\u202fMiB are taken here. Send less at once."
KINDS = (
    *("run/predict", "api/generate", "queue/join", "call/generate", "call/v2/generate"),
    *("component_server", "reset", "cancel"),
)


def chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), 1 << 16):
        yield content[start : start + (1 << 16)]


def refusal(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    return answer[0], answer[2].decode()


@pytest.mark.parametrize("send", [bytes, chunks])
def test_a_body_beyond_the_limit_is_refused(app: App, send: Callable[[bytes], Any]):
    values = json.dumps({"data": ["x" * MIB, "", 1, "none"], "fn_index": 0}).encode()
    bodies = (values, {"Content-Type": "application/json"}), multipart(("data", None, b"x" * MIB))
    for kind in KINDS:
        for body, headers in bodies:
            answer = app.ask("POST", f"{API}/{kind}", send(body), headers)
            assert refusal(answer) == (413, TOO_LARGE), kind
    assert app.call("generate", "The sea", "", 1, "none").startswith("event: complete")


def test_what_is_announced_is_refused_without_a_byte_of_it(app: App):
    line = http.client.HTTPConnection("127.0.0.1", app.port, timeout=30)
    line.putrequest("POST", f"{API}/queue/join")
    line.putheader("Content-Length", str(1 << 40))
    line.endheaders()
    assert line.getresponse().status == 413
    line.close()


@pytest.mark.parametrize("send", [bytes, chunks])
@pytest.mark.parametrize("name", ["a.txt", None])
def test_all_parts_of_an_upload_count_together(
    app: App, name: str | None, send: Callable[[bytes], Any]
):
    before = uploads(app)
    most = MIB if app.mode == "hosted" else 64 * MIB
    third = b"x" * (most // 3 + 20_000)
    body, headers = multipart(*[("files", name, third)] * 3)
    status, text = refusal(app.ask("POST", f"{API}/upload", send(body), headers))
    said = f"At most {most // MIB}\u202fMiB are taken"
    assert (status, said in text, uploads(app)) == (413, True, before)


def test_an_upload_of_the_whole_limit_is_taken(app: App):
    content = b"x" * MIB
    assert app.ask("GET", uploaded(app, "whole.txt", content))[2] == content


def test_an_upload_that_breaks_off_leaves_no_file(app: App):
    before, line = uploads(app), http.client.HTTPConnection("127.0.0.1", app.port, timeout=30)
    body, headers = multipart(("files", "a.txt", b"x" * 100_000))
    line.putrequest("POST", f"{API}/upload")
    for name, value in {**headers, "Content-Length": str(len(body))}.items():
        line.putheader(name, value)
    line.endheaders(body[:60_000])
    until = time.monotonic() + 30
    while uploads(app) == before and time.monotonic() < until:
        time.sleep(0.02)
    assert uploads(app) != before
    line.close()
    while uploads(app) != before and time.monotonic() < until:
        time.sleep(0.02)
    assert uploads(app) == before


def held(app: App) -> str:
    """All that gradio and the page hold of those who have asked for something."""
    served, queue = app.page.app, app.page._queue
    sessions = served.state_holder.session_data
    return repr([
        [(name, s.config_values, s.state_data) for name, s in sessions.items()],
        [vars(event) for event in queue.event_ids_to_events.values()],
        list(served.state_holder.time_last_used), list(served.iterators), queue.event_analytics,
        list(queue.pending_messages_per_session), queue.pending_event_ids_session,
    ])  # fmt: skip


def test_nothing_is_kept_of_a_call_after_its_answer(app: App):
    mark = "the words of a visitor " * 50
    answer = app.call("generate", mark, "", 1, "none")
    refused = app.call("generate", mark, "99.attn", 1, "none")
    assert "event: complete" in answer and "event: error" in refused
    # An answer is on its way before gradio is through with the event.
    until = time.monotonic() + 30
    while mark in held(app) and time.monotonic() < until:
        time.sleep(0.02)
    assert mark not in held(app) and not app.page.app.iterators
    begun = app.page.app.state_holder.session_data
    assert [name for name in begun if re.fullmatch("[0-9a-f]{32}", name)] == []


def test_nothing_that_an_event_was_sent_is_kept_but_the_state_of_its_page(app: App):
    mark = "the words of a visitor " * 50
    for event in app.page.config["dependencies"]:
        body = {"data": [mark] * len(event["inputs"]), "fn_index": event["id"]}
        app.post(f"{API}/run/predict", {**body, "session_hash": "a-page"})
    assert "a-page" in app.page.app.state_holder and mark not in held(app)


@pytest.mark.parametrize("name", ["x" * 1000, 3, ["a"]])
def test_no_page_has_a_name_of_any_length_or_kind(app: App, name: Any):
    body = {"data": [], "fn_index": 0, "session_hash": name, "fn_name": "x", "component_id": 1}
    for kind in ("run/predict", "queue/join", "component_server"):
        status, _, said = app.post(f"{API}/{kind}", body)
        assert status in (400, 422), (kind, status, said)
    assert app.ask("GET", f"{API}/heartbeat/{'x' * 1000}")[0] == 404
    assert "x" * 1000 not in held(app)


def uploads(app: App) -> set[Path]:
    return set(Path(app.page.app.uploaded_file_dir).rglob("*"))


def forget_uploads(app: App) -> None:
    """As after an hour."""
    limit = next(part for part in app.page.app.user_middleware if part.cls is UploadLimit)
    limit.kwargs["shares"]._uploads.clear()


def uploaded(app: App, name: str, content: bytes) -> str:
    """The address of a file that a visitor has sent."""
    status, _, body = app.ask("POST", f"{API}/upload", *multipart(("files", name, content)))
    assert status == 200, body
    return f"{API}/file={json.loads(body)[0]}"


def multipart(*parts: tuple[str, str | None, bytes]) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a form of (field, file name or None, content)."""
    body = b""
    for field, name, content in parts:
        file = "" if name is None else f'; filename="{name}"'
        head = f'--mark\r\nContent-Disposition: form-data; name="{field}"{file}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + b"--mark--\r\n", {"Content-Type": "multipart/form-data; boundary=mark"}


def test_uploads_of_one_visitor_have_a_share_and_are_refused_in_words(
    app: App, monkeypatch: pytest.MonkeyPatch
):
    """A thousand at a time filled the disk, and nobody could upload any more."""
    whole = multipart(("files", "a.txt", b"x" * MIB))
    answers = [app.ask("POST", f"{API}/upload", *whole) for _ in range(34)]
    said = [body.decode() for status, _, body in answers if status == 507]
    if app.mode == "hosted":
        assert len(said) > 1 and "uploaded from your address in the last hour" in said[0]
        assert said[0].endswith("Uploads are deleted after an hour: try again then.")
    else:
        assert not said
    forget_uploads(app)
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 29))
    status, _, said = app.ask("POST", f"{API}/upload", *multipart(("files", "a", b"x")))
    assert (status, b"512\xe2\x80\xafMiB of that are kept free" in said) == (507, True)


def test_a_form_without_a_file_is_refused_in_words(app: App):
    for part in (("files", None, b"x"), ("other", None, b"x")):
        status, _, said = app.ask("POST", f"{API}/upload", *multipart(part))
        assert status < 500, said


def test_uploads_have_shares_that_come_back_with_the_hour(tmp_path: Path):
    now, whole = [0.0], MIB + (16 << 10)
    shares = UploadShares(tmp_path, MIB, has_shares=True, clock=lambda: now[0])
    for _ in range(32):
        shares.begin("ann", whole)
    with pytest.raises(OverLimit, match="from your address"):
        shares.begin("ann", whole)
    for n in range(224):
        shares.begin(f"visitor {n}", whole)
    with pytest.raises(OverLimit, match="to this server"):
        shares.begin("last", whole)
    now[0] += 3600
    shares.begin("ann", whole)


def test_what_was_uploaded_is_deleted_by_a_clock_that_never_jumps(tmp_path: Path):
    """Those of a process that was killed too: they lay there before."""
    now = [0.0]
    (tmp_path / "earlier").mkdir()
    shares = UploadShares(tmp_path, MIB, has_shares=True, clock=lambda: now[0])
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "a.txt").write_text("x")
    (tmp_path / "tmpstray").write_text("x")
    os.utime(tmp_path / "hash", (0, 0))
    shares.begin("ann", 1)
    now[0] += 3599
    shares.begin("ann", 1)
    assert (tmp_path / "hash" / "a.txt").exists()
    now[0] += 1
    shares.begin("ann", 1)
    assert not any(tmp_path.iterdir())


def test_the_page_has_no_file_of_its_own_among_the_uploads(app: App):
    """They would be deleted with them."""
    assert app.ask("GET", "/")[0] == 200
    parts = [part for part in app.page.blocks.values() if hasattr(part, "keep_in_cache")]
    assert len(parts) > 100 and not any(part.keep_in_cache for part in parts)


def test_no_answer_says_where_the_server_keeps_its_files(app: App):
    """The paths told the user's name, the system and where to look next."""
    folders = (app.page.app.uploaded_file_dir, str(app.engine.export_root))
    status, _, sent = app.ask("POST", f"{API}/upload", *multipart(("files", "a.json", b"{}")))
    (name,) = json.loads(sent)
    assert (status, name.startswith("uploads/")) == (200, True)
    exported = app.call("export", "18.attn", "stock-compact", "none", 42)
    url = re.search(r'"url": "([^"]+)"', exported)[1]
    answers = [sent, exported.encode(), app.ask("GET", "/config")[2]]
    assert not any(folder.encode() in answer for folder in folders for answer in answers)
    assert app.ask("GET", f"{API}/file={name}")[2] == b"{}"
    status, _, archive = app.ask("GET", url)
    assert (status, archive[:2]) == (200, b"PK")


@pytest.mark.parametrize(
    "name", ["uploads/../../x", "exports/../x", "uploads//etc/hostname", "uploads", "exports/"]
)
def test_a_name_leads_to_nothing_but_what_it_names(app: App, name: str):
    for spelled in (name, quote(name, safe="")):
        assert app.ask("GET", f"{API}/file={spelled}")[0] in (403, 404)


@pytest.mark.usefixtures("app")
def test_uploads_that_nobody_sent_are_not_remembered():
    """Gradio kept every name that was ever asked about."""
    statuses = gradio.routes.file_upload_statuses

    async def ask() -> None:
        for n in range(300):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(statuses.is_tracked(f"nobody's {n}"), 0)

    finished(ask())
    for n in range(300):
        statuses.append(str(n), "a.txt", b"x")
    assert (len(statuses._signals), len(statuses._statuses)) == (256, 256)
    assert statuses.pop("299").chunk_size == 1


def test_pages_that_are_made_up_take_the_place_of_others():
    visitors, turns = Visitors(), Turns()
    for n in range(3000):
        visitors.came_back(str(n), f"tab {n}")
        visitors.settled(str(n), Visitor(), lambda visitor: {"visitor": visitor})
        turns.has_measured(str(n), turns.begin(str(n)))
        turns.cancel(str(n))
    held = [*vars(visitors).values(), *vars(turns).values()]
    assert [len(known) for known in held if isinstance(known, dict)] == [1000] * 6
    assert turns.newest("2999") == 2 and turns.newest("0") == 0


# -- who is counted --


def test_nobody_is_believed_about_where_a_request_comes_from(
    app: App, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []

    def refuse(_: Any, *, owner: str, address: str) -> str:
        seen.append(address)
        raise BadInput("This was asked.", "It is refused.", "Ask nothing.")

    monkeypatch.setattr(app.engine, "start_score", refuse)
    forged = "203.0.113.7"
    for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP"):
        body = {"data": ["ppl", "demo", 1, 8, 0, "block"]}
        _, _, said = app.post(f"{API}/call/score", body, **{name: forged})
        line = http.client.HTTPConnection("127.0.0.1", app.port, timeout=30)
        line.request("GET", f"{API}/call/score/{json.loads(said)['event_id']}")
        assert b"It is refused." in line.getresponse().read()
        line.close()
    assert seen == ["127.0.0.1"] * 4


@pytest.mark.parametrize(
    ("where", "told", "who"),
    [
        ({}, "203.0.113.7", "10.16.3.80"),
        ({"SPACE_ID": "me/it"}, "203.0.113.7", "203.0.113.7"),
        ({"SPACE_ID": "me/it"}, "198.51.100.1, 203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ({"FORWARDED_ALLOW_IPS": "192.0.2.1"}, "203.0.113.7", "10.16.3.80"),
    ],
)
def test_on_a_space_the_last_of_its_proxies_says_who_called(
    where: dict[str, str], told: str, who: str
):
    """From a peer on a private network, as the proxies of the hub are."""
    asked: list[Any] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["client"][0])

    environ = dict(where)
    choose_proxies(environ)
    headers = [(b"x-forwarded-for", told.encode())]
    scope = {"type": "http", "client": ("10.16.3.80", 1), "headers": headers}
    finished(ProxyHeadersMiddleware(page, environ["FORWARDED_ALLOW_IPS"])(scope, None, None))
    assert asked == [who]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("x" * 1000, "x" * 64),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_counts_as_one(address: str, network: str):
    assert network_of(address) == network


# -- who takes how much --


def test_one_address_cannot_take_the_queue_from_others(app: App, monkeypatch: pytest.MonkeyPatch):
    """65 requests that were joined and never listened to did."""
    monkeypatch.setattr("blockviz.ui.fair_queue.OF_ADDRESS", 32)
    go, begun, write = threading.Event(), [], app.engine.write

    def slow(prompt: str, *args: Any, **settings: Any) -> Any:
        begun.append(prompt)
        assert go.wait(30)
        yield from write(prompt, *args, **settings)

    def join(prompt: str, source: str) -> tuple[int, dict[str, str], bytes]:
        body = json.dumps({"data": [prompt, "", 1, "none"]})
        kind = {"Content-Type": "application/json"}
        return app.ask("POST", f"{API}/call/generate", body, kind, source)

    monkeypatch.setattr(app.engine, "write", slow)
    try:
        joined = [join("theirs", "127.0.0.2") for _ in range(60)]
        mine = join("mine", "127.0.0.1")
    finally:
        go.set()
    full = [json.loads(body)["detail"] for status, _, body in joined if status == 503]
    assert len(full) > 1 and "32 requests of your address are waiting already" in full[0]
    assert mine[0] == 200, mine
    line = http.client.HTTPConnection("127.0.0.1", app.port, timeout=30)
    line.request("GET", f"{API}/call/generate/{json.loads(mine[2])['event_id']}")
    assert line.getresponse().read().startswith(b"event: complete")
    line.close()
    # Of endpoints 16 run at once; then it is the turn of another address, ahead of the 32 others.
    assert 16 <= begun.index("mine") < 40
    queue, listeners = app.page._queue, app.page.listeners
    until = time.monotonic() + 30
    # That a line was closed is noticed a moment later, and the minute begins then.
    while (queue.event_ids_to_events or +listeners._open) and time.monotonic() < until:
        time.sleep(0.02)
    for later in (0, 61):
        monkeypatch.setattr(listeners, "_clock", lambda later=later: time.monotonic() + later)
        queue._swept_at = 0.0
        queue._sweep()
    assert not queue.pending_event_ids_session and not queue.pending_messages_per_session


def test_a_long_job_that_its_caller_does_not_wait_for_is_stopped(
    app: App, monkeypatch: pytest.MonkeyPatch
):
    now, looked, stopped, who = [0.0], threading.Event(), threading.Event(), []

    def start(_: Any, **asked: str) -> str:
        who.append(asked)
        return "its job"

    def job(name: str) -> JobView:
        looked.set()
        return JobView(name, "score", "cancelled" if stopped.is_set() else "running")

    monkeypatch.setattr(app.page.listeners, "_clock", lambda: now[0])
    monkeypatch.setattr(app.engine, "start_score", start)
    monkeypatch.setattr(app.engine, "job", job)
    monkeypatch.setattr(app.engine, "cancel", lambda _: stopped.set())
    app.post(f"{API}/call/score", {"data": ["ppl", "demo", 1, 8, 0, "block"]})
    until = time.monotonic() + 30
    assert looked.wait(30)
    while not stopped.is_set() and time.monotonic() < until:
        now[0] += 61
        time.sleep(0.02)
    assert stopped.is_set()
    assert who == [{"owner": "calls from 127.0.0.1", "address": "127.0.0.1"}]


def test_who_listens_has_not_left():
    now = [0.0]
    listeners = Listeners(clock=lambda: now[0])
    assert not listeners.have_left("page", "event")
    with listeners.listening("event"):
        now[0] += 1000
        assert not listeners.have_left("page", "event")
    assert not listeners.have_left("page", "event")
    now[0] += 59
    assert not listeners.have_left("page", "event")
    now[0] += 1
    assert listeners.have_left("page", "event")


# -- what breaks --


class Panic(BaseException):
    """As a library written in Rust ends in: no Exception."""


@pytest.mark.parametrize("end", [Panic, SystemExit, RuntimeError])
def test_whatever_breaks_an_event_says_so_and_frees_its_place(
    app: App, monkeypatch: pytest.MonkeyPatch, printed: Callable[[], str], end: type
):
    mark = "the words of a visitor " * 1000

    def broken(*_: Any, **__: Any) -> Any:
        raise end(mark)

    with monkeypatch.context() as patch:
        patch.setattr(app.engine, "write", broken)
        # Of endpoints 16 may run at once.
        for _ in range(17):
            answer = app.call("generate", "The sea", "", 1, "none")
            assert "event: error" in answer and "Something went wrong (ref " in answer
    assert app.call("generate", "The sea", "", 1, "none").startswith("event: complete")
    said = printed()
    assert end.__name__ in said and mark not in said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["The sea", "", 10**309, "none"], "larger than any that is taken here"),
        (["The sea", "", -(10**4000), "none"], "larger than any that is taken here"),
        (["half \ud800", "", 1, "none"], "One of them is half of a character"),
        (["The sea", ["\udfff"], 1, "none"], "One of them is half of a character"),
        (["The sea", "", {"\ud800": 1}, "none"], "One of them is half of a character"),
    ],
)
def test_what_is_no_number_and_no_text_is_refused_in_words(app: App, values: list, said: str):
    answer = app.call("generate", *values)
    assert "event: error" in answer and said in answer
    by_name = {event["id"]: event for event in app.page.config["dependencies"]}
    for n, event in by_name.items():
        body = {"data": [values] * len(event["inputs"]), "fn_index": n, "session_hash": "s"}
        if not event["queue"]:
            status, _, answer = app.post(f"{API}/run/predict", body)
            assert (status, said in json.loads(answer)["error"]) == (500, True), answer
            break
    body |= {"data": [None] * len(body["data"]), "event_data": values}
    status, _, answer = app.post(f"{API}/run/predict", body)
    assert (status, said in json.loads(answer)["error"]) == (500, True), answer


def test_the_log_keeps_nothing_of_what_is_refused_but_its_length(
    app: App, printed: Callable[[], str]
):
    mark = "the words of a visitor " * 10_000
    for event in app.page.config["dependencies"]:
        body = {"data": [mark] * len(event["inputs"]), "fn_index": event["id"]}
        if len(mark) * len(event["inputs"]) < MIB:
            app.post(f"{API}/run/predict", {**body, "session_hash": "a-page"})
    for field in ("component_id", "fn_name", "session_hash"):
        body = {"data": mark, "component_id": 1, "fn_name": "x", "session_hash": "s", field: mark}
        app.post(f"{API}/component_server", body)
    for field in ("fn_index", "session_hash", "event_data", "trigger_id"):
        body = {"data": [], "fn_index": 0, "session_hash": "s", field: mark}
        for kind in ("queue/join", "run/predict", "cancel", "reset"):
            app.post(f"{API}/{kind}", {**body, "event_id": mark})
    for values in ([mark] * 4, [mark, mark, mark], ["The sea", mark, 1, mark]):
        app.call("generate", *values)
    said = printed()
    assert max(map(len, said.splitlines()), default=0) < 1000 and len(said) < 200_000


# -- names that are not ours --

FOREIGN = (
    *("rebound.example", "rebound.example:80", "127.0.0.1.rebound.example", "localhost.example"),
    *("localhost@rebound.example", "10.0.0.5", "0.0.0.0", "[::2]", ""),
)
ORIGINS = ("http://rebound.example", "https://localhost.example", "null", "http://10.0.0.5", "x")


def test_local_mode_answers_to_its_own_names_only(app: App):
    own = (f"127.0.0.1:{app.port}", "localhost", "LOCALHOST:80", "[::1]:7860")
    for host in own:
        assert app.ask("GET", "/config", headers={"Host": host})[0] == 200, host
    for host in FOREIGN:
        status, _, said = app.ask("GET", "/config", headers={"Host": host})
        assert (status, b"BLOCKVIZ_MODE" in said) == (421, True) or app.mode == "hosted", host


def test_local_mode_does_nothing_for_the_pages_of_others(app: App):
    body, form = multipart(("files", "a.txt", b"x"))
    for origin in (*ORIGINS, f"http://localhost:{app.port}", "http://127.0.0.1:1"):
        started = app.post(f"{API}/call/generate", {"data": ["x", "", 1, "none"]}, Origin=origin)
        sent = app.ask("POST", f"{API}/upload", body, {**form, "Origin": origin})
        is_foreign = app.mode == "local" and origin in ORIGINS
        assert [started[0], sent[0]] == [403 if is_foreign else 200] * 2, origin
        assert not is_foreign or b"BLOCKVIZ_MODE" in started[2]


@pytest.mark.parametrize(
    ("host", "own", "foreign"),
    [
        ("127.0.0.1", "localhost", "192.168.1.7"),
        ("::1", "[::1]:7860", "192.168.1.7"),
        ("box.lan", "box.lan:7860", "other.lan"),
        ("0.0.0.0", "192.168.1.7:7860", "rebound.example"),
        ("0.0.0.0", socket.gethostname(), "rebound.example"),
        ("::", "[fe80::1]", "rebound.example"),
    ],
)
def test_what_the_server_listens_on_is_a_name_of_it(host: str, own: str, foreign: str):
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("page")(scope, receive, send)

    def status(**headers: str) -> int:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": raw}
        finished(OwnHosts(page, host)(scope, None, send))
        return sent[0]["status"]

    assert (status(Host=own), status(Host=foreign)) == (200, 421)
    assert status(Host=own, Origin=f"http://{own}") == 200
    assert status(Host=own, Origin=f"http://{foreign}") == 403
