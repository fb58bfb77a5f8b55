"""How much may lie here of what visitors have uploaded: by visitor, in all, and on the disk."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blockviz.errors import OverLimit, report
from blockviz.session.networks import network_of
from blockviz.session.old_files import OldFiles
from blockviz.ui.body_limit import FORM_BYTES, UPLOAD, declared
from blockviz.ui.words import size

KEEP_SECONDS = 3600
# Of one upload of the largest size, in an hour.
PER_VISITOR, PER_SERVER = 32, 256
# What uploads leave free on the disk, for all else that writes there.
SPARE_BYTES = 1 << 29
# What a file takes on a disk at least, with its folder.
FILE_BYTES = 8 << 10


@dataclass
class _Upload:
    network: str
    since: float
    n_bytes: int


class UploadShares:
    """Uploads of the last hour, which is as long as they are kept.

    upload_bytes: of the largest upload; has_shares: whether a visitor's and the server's are
    limited too, not only by what is free on the disk.
    """

    def __init__(
        self,
        folder: Path,
        upload_bytes: int,
        *,
        has_shares: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._clock = folder, clock
        self._upload_bytes, self._has_shares = upload_bytes, has_shares
        self._files = OldFiles(folder, KEEP_SECONDS, clock)
        self._uploads: list[_Upload] = []
        self._lock = threading.Lock()

    def begin(self, network: str, n_bytes: int) -> _Upload:
        """Room for an upload; OverLimit where there is none."""
        self._files.sweep()
        with self._lock:
            now = self._clock()
            self._uploads = [one for one in self._uploads if now - one.since < KEEP_SECONDS]
            if self._has_shares:
                self._check_share(network, n_bytes)
            self._check_disk(n_bytes)
            begun = _Upload(network, now, n_bytes)
            self._uploads.append(begun)
            return begun

    def _check_share(self, network: str, n_bytes: int) -> None:
        here = [one.n_bytes for one in self._uploads]
        own = [one.n_bytes for one in self._uploads if one.network == network]
        for taken, share, whose in (
            (sum(own), PER_VISITOR, "from your address"),
            (sum(here), PER_SERVER, "to this server"),
        ):
            most = share * (self._upload_bytes + FORM_BYTES)
            if taken + n_bytes > most:
                raise OverLimit(
                    "A file was to be uploaded.",
                    f"{size(taken)} were uploaded {whose} in the last hour, and {size(most)} is "
                    "the limit.",
                    "Uploads are deleted after an hour: try again then.",
                )

    def _check_disk(self, n_bytes: int) -> None:
        place = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if free - n_bytes < SPARE_BYTES:
            raise OverLimit(
                "A file was to be uploaded.",
                f"The disk of the server has {size(free)} left, and {size(SPARE_BYTES)} of that "
                "are kept free.",
                "Try again later, or run blockviz on your own machine.",
            )


class UploadLimit:
    """507 for an upload that there is no room for, and words for one that cannot be stored."""

    def __init__(self, app: ASGIApp, shares: UploadShares, upload_bytes: int) -> None:
        self._app, self._shares = app, shares
        self._most = upload_bytes + FORM_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") != UPLOAD:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        network = network_of(client[0]) if client else ""
        try:
            begun = await asyncio.to_thread(
                self._shares.begin, network, declared(scope) or self._most
            )
        except OverLimit as refusal:
            await PlainTextResponse(str(refusal), status_code=507)(scope, receive, send)
            return
        passing = _Passing(receive, send)
        try:
            await self._app(scope, passing.receive, passing.send)
        except TypeError:
            said = "A form without a file was sent. Send the file with its name in `files`."
            await PlainTextResponse(said, status_code=400)(scope, receive, send)
        except OSError as error:
            said = report(error, "an upload failed")
            await PlainTextResponse(said, status_code=507)(scope, receive, send)
        finally:
            begun.n_bytes = passing.n_bytes + FILE_BYTES * passing.n_parts


class _Passing:
    """Counts what a request has sent, and its files."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self.send = receive, send
        self.n_bytes = self.n_parts = 0

    async def receive(self) -> Message:
        message = await self._receive()
        body = message.get("body", b"") if message["type"] == "http.request" else b""
        self.n_bytes += len(body)
        self.n_parts += body.count(b"filename=")
        return message
