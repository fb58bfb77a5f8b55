"""What the server holds of its callers: of a page its State, of a call of an endpoint nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import gradio.routes
from gradio.route_utils import FileUploadProgress
from gradio.routes import App
from gradio.state_holder import SessionState, StateHolder
from starlette.exceptions import HTTPException

# Gradio's pages and clients draw names of 11 and of 36.
NAME_CHARS = 64
MOST_UPLOADS = 256


@asynccontextmanager
async def keeping_little(app: App) -> AsyncIterator[None]:
    """A lifespan of the server in which its sessions are `Sessions`, its uploads `Uploads`."""
    sessions = Sessions()
    sessions.set_blocks(app.get_blocks())
    app.state_holder = sessions
    gradio.routes.file_upload_statuses = Uploads()
    yield


class Sessions(StateHolder):
    """Gradio's sessions without what each has sent and was shown last.

    Gradio keeps that of 200 sessions, for links of its own kind, which are closed here; and a call
    of an endpoint is a session of its own. The name of a session, which gradio keeps longer than
    the session itself, has a length.
    """

    def __getitem__(self, session_id: str) -> SessionState:
        is_name = isinstance(session_id, str) and session_id.isascii()
        if not is_name or len(session_id) > NAME_CHARS:
            raise HTTPException(
                422,
                f"A session hash of more than {NAME_CHARS} characters, or that is no plain text, "
                "was sent. No page has such a name. Send a short one, or none.",
            )
        state = super().__getitem__(session_id)
        if not isinstance(state.config_values, _Nothing):
            state.config_values = _Nothing()
        return state

    def drop(self, session_id: str) -> None:
        """Forget a session that nobody comes back to."""
        with self.lock:
            self.session_data.pop(session_id, None)
            self.time_last_used.pop(session_id, None)


class Uploads(FileUploadProgress):
    """How far the newest uploads have come. Gradio keeps every name that was ever asked about."""

    def __init__(self) -> None:
        super().__init__()
        self._statuses, self._signals = _Newest(), _Newest(asyncio.Event)


class _Newest(defaultdict[str, Any]):
    """The last MOST_UPLOADS entries."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        while len(self) > MOST_UPLOADS:
            del self[next(iter(self))]


class _Nothing(dict[int, Any]):
    """Takes everything and has kept none of it."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key: int) -> dict[str, Any]:
        return {}

    def __setitem__(self, key: int, value: Any) -> None:
        pass
