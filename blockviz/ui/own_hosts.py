"""Local mode answers to its own names: any page of the web could speak to it by another."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class OwnHosts:
    """421 for a Host, and 403 for an Origin, that is not this machine's.

    A name that somebody else owns can be made to lead to this machine (DNS rebinding), and every
    page in the browser can send forms here.
    host: what the server listens on. Listening on all addresses, it also answers to each of them,
    since only names can be turned, and to the name of this machine.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        address = _address(host)
        self._is_any = host == "" or bool(address and address.is_unspecified)
        self._names = LOOPBACK | {socket.gethostname().lower() if self._is_any else host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (refusal := self._refusal(scope)):
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        here = [_name(f"//{host}") for host in hosts]
        if len(here) != 1 or not self._is_own(here[0]):
            text = (
                "blockviz was asked for by a name that is not this machine's. In local mode it "
                "answers to localhost and to the host that it is served on. Open it by one of "
                "these, or set BLOCKVIZ_MODE=hosted to serve others."
            )
            return PlainTextResponse(text, status_code=421)
        if any(name not in LOOPBACK and name != here[0] for name in map(_name, origins)):
            text = (
                "A page of another site asked for this. In local mode blockviz answers its own "
                "pages only. Open blockviz itself, or set BLOCKVIZ_MODE=hosted to serve others."
            )
            return PlainTextResponse(text, status_code=403)
        return None

    def _is_own(self, name: str) -> bool:
        return name in self._names or (self._is_any and _address(name) is not None)


def _name(url: str) -> str:
    """The host of an address, in lower case, without port and brackets; "" if there is none."""
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
