"""Names -> components, and the one place where a handler's answer becomes gradio outputs."""

from __future__ import annotations

import inspect
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from blockviz.errors import BlockvizError

logger = logging.getLogger(__name__)
Update = dict[str, Any]
Handler = Callable[..., "Update | Iterator[Update]"]


@dataclass(frozen=True)
class Call:
    """Who called a handler and what the event carried; `data` and `query` are untrusted."""

    session: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


def error_view(text: str) -> dict[str, str]:
    """A message for the error box. Its id makes the same text show again after a dismissal."""
    return {"text": text, "id": secrets.token_hex(4)}


def failure(error: Exception) -> Update:
    """The screen after a handler raised: known errors in their own words, bugs by a short id."""
    if isinstance(error, BlockvizError):
        text = str(error)
    else:
        ref = secrets.token_hex(2)
        logger.error("ref %s", ref, exc_info=error)
        text = f"Something went wrong (ref {ref}). Nothing was lost."
    return {"error": error_view(text)}


def guarded(handler: Handler, call: Call, values: Sequence[Any]) -> Iterator[Update]:
    """Every update of a handler, and a last one with the error if it raises."""
    try:
        answer = handler(call, *values)
        if isinstance(answer, Mapping):
            yield answer
        else:
            yield from answer
    except Exception as error:
        logger.debug("handler failed", exc_info=True)
        yield failure(error)


class Screen:
    """All components of the page by name; `listen` joins a trigger to a handler."""

    def __init__(self) -> None:
        self._components: dict[str, Any] = {}

    def add(self, name: str, component: Any) -> Any:
        if name in self._components:
            raise ValueError(f"two components are called {name!r}")
        self._components[name] = component
        return component

    def __getitem__(self, name: str) -> Any:
        return self._components[name]

    def listen(
        self,
        trigger: Callable[..., Any],
        handler: Handler,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        **event: Any,
    ) -> Any:
        """The gradio dependency. `outputs` always include the error box."""
        names = tuple(dict.fromkeys((*outputs, "error")))
        is_stream = inspect.isgeneratorfunction(handler)
        run = _streamed(handler, names) if is_stream else _plain(handler, names)
        settings = {"queue": is_stream, "show_progress": "hidden", "api_visibility": "private"}
        return trigger(
            run,
            inputs=[self[name] for name in inputs],
            outputs=[self[name] for name in names],
            **{**settings, **event},
        )


def to_outputs(names: Sequence[str], update: Update) -> list[Any]:
    """One value per output, `gr.skip()` for those the update leaves alone."""
    unknown = set(update) - set(names)
    if unknown:
        raise KeyError(f"the handler answers for {sorted(unknown)}, which are not its outputs")
    return [update.get(name, gr.skip()) for name in names]


def _call_of(event: gr.EventData | None, request: gr.Request | None) -> Call:
    data = getattr(event, "_data", None)
    query = dict(request.query_params) if request else {}
    session = (request.session_hash if request else "") or ""
    client = request.client if request else None
    return Call(
        session=session,
        address=client.host if client else "",
        data=data if isinstance(data, Mapping) else {},
        query=query,
    )


def _plain(handler: Handler, names: Sequence[str]) -> Callable[..., list[Any]]:
    def run(event: gr.EventData, request: gr.Request, *values: Any) -> list[Any]:
        merged: Update = {}
        for update in guarded(handler, _call_of(event, request), values):
            merged.update(update)
        return to_outputs(names, merged)

    return run


def _streamed(handler: Handler, names: Sequence[str]) -> Callable[..., Iterator[list[Any]]]:
    def run(event: gr.EventData, request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        for update in guarded(handler, _call_of(event, request), values):
            yield to_outputs(names, update)

    return run
