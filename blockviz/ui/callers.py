"""Where a request comes from, and which proxy is believed about it."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from blockviz.session.networks import network_of

if TYPE_CHECKING:
    import gradio as gr

PROXIES = "FORWARDED_ALLOW_IPS"
# A Space is reached through the hub's own proxies alone, which are on private networks and put the
# address of who called them at the end of X-Forwarded-For.
SPACE_PROXIES = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,127.0.0.1,::1"


def choose_proxies(environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets whose X-Forwarded-For is believed, unless that is set: nobody's, or a Space's proxies'.

    The server would believe every program on this machine, a tunnel among them.
    """
    environ.setdefault(PROXIES, SPACE_PROXIES if environ.get("SPACE_ID") else "")


def caller(request: gr.Request | None) -> str:
    """The address that a request counts for; "" where there is none."""
    client = request.client if request else None
    return network_of(client.host) if client else ""
