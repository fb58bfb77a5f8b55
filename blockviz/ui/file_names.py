"""Files that a page serves, by names that say nothing of where this machine keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blockviz.ui.body_limit import UPLOAD

FILE = "/gradio_api/file="


class FileNames:
    """`uploads/NAME` lies in the folder that is called uploads; other paths stay as they are."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = {name: os.path.abspath(folder) for name, folder in folders.items()}

    def shown(self, path: str) -> str:
        """A path, or the address of one, as others may read it."""
        for name, folder in self._folders.items():
            path = path.replace(f"{folder}{os.sep}", f"{name}/")
        return path

    def place(self, name: str) -> str:
        """The path of a name; gradio sees to it that it leads to nothing but such files."""
        first, slash, rest = name.partition("/")
        folder = self._folders.get(first)
        return f"{folder}/{rest}" if folder and slash else name

    def show(self, value: Any) -> None:
        """Every file in an answer gets its name in place of its path."""
        for file in files_of(value):
            for key in ("path", "url"):
                if isinstance(file.get(key), str):
                    file[key] = self.shown(file[key])

    def find(self, value: Any) -> None:
        """Every file in what was sent gets its path again."""
        for file in files_of(value):
            file["path"] = self.place(file["path"])


def files_of(value: Any) -> Iterator[dict[str, Any]]:
    """Gradio's dicts of files, which have a `path` and a `meta`, in nested lists and dicts."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part.values())
            if "meta" in part and isinstance(part.get("path"), str):
                yield part
        elif isinstance(part, (list, tuple)):
            waiting.extend(part)


class NamedFiles:
    """Answers an upload with its name, and a name with its file."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and path.startswith(FILE):
            names = scope["app"].get_blocks().names
            scope = {**scope, "path": FILE + names.place(path.removeprefix(FILE))}
        elif scope["type"] == "http" and path.rstrip("/") == UPLOAD:
            send = _Named(send, scope["app"].get_blocks().names).send
        await self._app(scope, receive, send)


class _Named:
    """An answer held until all of it is there, for its length changes with the names in it."""

    def __init__(self, send: Send, names: FileNames) -> None:
        self._send, self._names = send, names
        self._start: Message | None = None
        self._body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if self._start is None or message.get("more_body"):
            return
        if self._start["status"] == 200:
            paths = json.loads(self._body)
            self._body = json.dumps([self._names.shown(path) for path in paths]).encode()
            MutableHeaders(scope=self._start)["content-length"] = str(len(self._body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": self._body})
