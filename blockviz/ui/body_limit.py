"""How much one request may send, counted before anything of it is kept."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blockviz.ui.words import size

# No page and no program needs more for the values of an event.
BODY_BYTES = 1 << 20
# What a form adds to the one file that it sends: its boundary and headers.
FORM_BYTES = 16 << 10
UPLOAD = "/gradio_api/upload"


class BodyLimit:
    """413 for a request of more than 1 MiB, or of more than one whole upload with all its parts.

    upload_bytes: of a file that is uploaded. What a request says of its length is held to the limit
    before it is read; what comes in chunks is counted as it comes.
    """

    def __init__(self, app: ASGIApp, upload_bytes: int) -> None:
        self._app = app
        self._upload_bytes = upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_upload = scope["path"].rstrip("/") == UPLOAD
        most, form = (self._upload_bytes, FORM_BYTES) if is_upload else (BODY_BYTES, 0)
        counted = _Counted(receive, send, most, form, is_upload=is_upload)
        if declared(scope) > most + form:
            await counted.refuse(scope)
            return
        try:
            await self._app(scope, counted.receive, counted.send)
        finally:
            if counted.is_over and not counted.is_answered:
                await counted.refuse(scope)


class _Counted:
    """A request whose body is counted, and whose answer is 413 once that was too much."""

    def __init__(
        self, receive: Receive, send: Send, most: int, form: int, *, is_upload: bool
    ) -> None:
        self._receive, self._send = receive, send
        self._most, self._left = most, most + form
        self._is_upload, self._is_whole = is_upload, False
        self.is_over = self.is_answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            self._is_whole = not message.get("more_body")
            self.is_over = self._left < 0
        is_cut_off = message["type"] == "http.disconnect" and not self._is_whole
        # Gradio deletes what there is of an upload for this error only.
        if self._is_upload and (self.is_over or is_cut_off):
            raise MultiPartException(self._refusal())
        if self.is_over:
            raise HTTPException(413, self._refusal())
        return message

    async def send(self, message: Message) -> None:
        """Nothing of an answer that gradio gives to half a body, unless it has begun before."""
        if self.is_over and not self.is_answered:
            return
        self.is_answered = True
        await self._send(message)

    async def refuse(self, scope: Scope) -> None:
        answer = PlainTextResponse(self._refusal(), status_code=413)
        await answer(scope, self._receive, self._send)

    def _refusal(self) -> str:
        return (
            f"The request is too large. At most {size(self._most)} are taken here. "
            "Send less at once."
        )


def declared(scope: Scope) -> int:
    """Bytes that a request says it will send; 0 if it does not say."""
    said = Headers(scope=scope).get("content-length", "")
    return int(said) if said.isdecimal() and said.isascii() else 0
