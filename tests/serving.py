"""The app served on a free port of this machine, for browsers and for programs."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.context import LocalContext

from blockviz.ui.fair_queue import QUEUE
from blockviz.ui.launch import build_app, launch_settings


@dataclass(frozen=True)
class Served:
    url: str
    engine: Any


class Slot:
    """Stands for the engine that was put into it last: an app on it need not be built anew.

    A page keeps the engine that it met first, also where its last events come after it was closed.
    """

    def __init__(self, engine: Any) -> None:
        self._met: dict[str, Any] = {}
        self.put(engine)

    def put(self, engine: Any) -> None:
        self._engine = engine
        gr.set_static_paths([engine.export_root])

    def __getattr__(self, name: str) -> Any:
        request = LocalContext.request.get(None)
        page = request.session_hash if request else None
        engine = self._met.setdefault(page, self._engine) if page else self._engine
        return getattr(engine, name)


def launch(engine: Any) -> tuple[Any, Served]:
    """A running app; whoever asked for it closes it."""
    app = build_app(engine)
    app.queue(**QUEUE)
    url = serve(app, **launch_settings(engine))
    return app, Served(url, engine)


def serve(app: Any, **settings: Any) -> str:
    """The address of an app that is served from now on."""
    how = {"server_name": "127.0.0.1", "prevent_thread_lock": True, **settings}
    for may_fail in (True, True, False):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        try:
            app.launch(server_port=port, **how)
            break
        except ValueError:
            # On a busy machine gradio does not wait long for the page that it has just put up.
            app.close()
            if not may_fail:
                raise
    return f"http://127.0.0.1:{port}/"
