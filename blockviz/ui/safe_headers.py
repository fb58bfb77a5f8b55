"""What a browser is told not to do with what it gets from here."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A Space is shown inside a page of the hub.
HUB = "https://huggingface.co"
INLINE_SCRIPT = re.compile(rb"<script\b(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
# Of a file's own headers. For a part of a file gradio sends back those of the request as well.
FILE_HEADERS = {
    *("content-type", "content-disposition", "content-length", "content-range", "accept-ranges"),
    *("last-modified", "etag", "vary"),
}
FILE_POLICY = "default-src 'none'; sandbox"


class SafeHeaders:
    """Types are not guessed, scripts are ours only, and files are saved instead of opened.

    frames: other origins that may show the page in a frame.
    """

    def __init__(self, app: ASGIApp, frames: Sequence[str] = ()) -> None:
        self._app = app
        self._frames = tuple(frames)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_file = scope["path"].startswith("/gradio_api/file=")
        answer = _Answer(send, self._frames, is_file=is_file)
        await self._app(scope, receive, answer.send)


class _Answer:
    """One answer on its way out. A page is held until all of it is there: its policy names the
    scripts in it by their hashes."""

    def __init__(self, send: Send, frames: Sequence[str], *, is_file: bool) -> None:
        self._send, self._frames, self._is_file = send, frames, is_file
        self._start: Message | None = None
        self._page = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message.setdefault("headers", [])
            if _is_page(message) and not self._is_file:
                self._start = message
                return
            self._protect(message, ())
        elif self._start is not None and message["type"] == "http.response.body":
            self._page += message.get("body", b"")
            if message.get("more_body"):
                return
            self._protect(self._start, INLINE_SCRIPT.findall(self._page))
            await self._send(self._start)
            self._start, message = None, {**message, "body": self._page}
        await self._send(message)

    def _protect(self, start: Message, scripts: Sequence[bytes]) -> None:
        if self._is_file:
            _make_download(start)
        headers = MutableHeaders(scope=start)
        headers["X-Content-Type-Options"] = "nosniff"
        policy = FILE_POLICY if self._is_file else page_policy(scripts, self._frames)
        headers["Content-Security-Policy"] = policy


def page_policy(scripts: Sequence[bytes] = (), frames: Sequence[str] = ()) -> str:
    """The Content-Security-Policy of a page with these inline scripts.

    Gradio compiles the scripts of components from text ('unsafe-eval') and sets styles in place;
    plotly makes its pictures of data and blob addresses.
    """
    hashes = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in scripts]
    rules = {
        "default-src": ["'self'", "data:", "blob:"],
        "script-src": ["'self'", "'unsafe-eval'", *(f"'sha256-{value}'" for value in hashes)],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:", "blob:"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'self'", *frames],
    }
    return "; ".join(" ".join((name, *sources)) for name, sources in rules.items())


def _is_page(start: Message) -> bool:
    return Headers(scope=start).get("content-type", "").startswith("text/html")


def _make_download(start: Message) -> None:
    """A file is saved under its name, as bytes of no type, unless it is a picture."""
    start["headers"] = [(n, v) for n, v in start["headers"] if n.decode().lower() in FILE_HEADERS]
    headers = MutableHeaders(scope=start)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if start["status"] in (200, 206) and kind not in PICTURES:
        headers["Content-Type"] = "application/octet-stream"
        _, mark, name = headers.get("content-disposition", "").partition(";")
        headers["Content-Disposition"] = f"attachment{mark}{name}"
