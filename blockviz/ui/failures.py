"""What no event can mean is refused in words, and what breaks a request is logged in short."""

from __future__ import annotations

from typing import Any

import gradio as gr
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blockviz.errors import report

# Beyond the largest number of a computer, which is about 1.8e308.
MOST_BITS = 1023


class Failures:
    """500 with a short id for a request that breaks; the server's own log repeats what was sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_begun = False

        async def passed_on(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._app(scope, receive, passed_on)
        except Exception as error:  # noqa: BLE001
            said = report(error, "a request failed")
            if not is_begun:
                await PlainTextResponse(said, status_code=500)(scope, receive, send)


def refuse_unreadable(values: Any) -> None:
    """Raises gr.Error for a number that is none here, and for half of a character.

    Wherever they stand in the values of an event; neither can be reckoned with or sent back.
    """
    waiting = [values]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend((*part.keys(), *part.values()))
        elif isinstance(part, (list, tuple)):
            waiting.extend(part)
        elif isinstance(part, int) and part.bit_length() > MOST_BITS:
            digits = len(f"{part:x}")
            raise _refusal(
                f"A number of {digits} hexadecimal digits was sent. It is larger than any that is "
                "taken here. Send a smaller one."
            )
        elif isinstance(part, str) and not _is_text(part):
            raise _refusal(
                f"A text of {len(part)} characters was sent. One of them is half of a character "
                "(a lone surrogate). Write the text anew, or leave it out."
            )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(text: str) -> gr.Error:
    return gr.Error(text, print_exception=False)
