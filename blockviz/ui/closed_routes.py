"""What gradio would serve and this page has no use for: its own extras, and addresses of others."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import gradio as gr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from blockviz.ui.file_names import files_of

# Under gradio_api/ and at the top: `proxy=` passes on another server; `file/` is an old name of
# `file=`; a deep link leaves a file for every look of a page (ours need none, see link.py);
# recordings leave files too; `custom_component` writes each request to the log; `dev` polls
# for as long as somebody listens; the others belong to features that are switched off here. No page
# has a name as long as that of the last row (see sessions.py).
CLOSED = re.compile(
    r"/+(?:gradio_api/+)?(?:"
    r"proxy=|(?:file|deep_link|process_recording|custom_component|dev|monitoring|profiling|runs"
    r"|run-history|stream|vibe-[a-z-]+|undo-vibe-edit)(?:/|$)"
    r"|heartbeat/.{65})"
)
# An address is a scheme of more than one letter (one is a disk of Windows), or two slashes.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:|[/\\]{2}")
FILE = re.compile(r"/+(?:gradio_api/+)?file[=/]")
ENCODED_AT_MOST = 4


class ClosedRoutes:
    """404 for what is closed, before gradio sees it, however the path is spelled."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and is_closed(scope["path"]):
            await PlainTextResponse("Not found", status_code=404)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_closed(path: str) -> bool:
    """Whether a path leads to a closed route, or to a file by an address instead of a place here.

    Each way to read a path counts, from its plain text to the last of nested percent-encodings.
    """
    for _ in range(ENCODED_AT_MOST):
        plain = re.sub(r"[\x00-\x20]", "", path).lower()
        if CLOSED.match(plain) or _is_file_elsewhere(plain):
            return True
        if (decoded := unquote(path)) == path:
            return False
        path = decoded
    return True


def refuse_addresses(inputs: Any) -> None:
    """Raises gr.Error if what a visitor sent names a file by an address.

    Gradio would fetch it, of any size, wherever it stands in the values of any event.
    """
    if any(ADDRESS.match(file["path"].strip().lower()) for file in files_of(inputs)):
        raise gr.Error(
            "A file was named by its address. blockviz fetches nothing for a visitor. "
            "Upload the file itself.",
            print_exception=False,
        )


def _is_file_elsewhere(path: str) -> bool:
    found = FILE.match(path)
    return bool(found and ADDRESS.match(path, found.end()))
