"""Names -> components, and the one place where a handler's answer becomes gradio outputs."""

from __future__ import annotations

import functools
import inspect
import secrets
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BlockvizError, report
from blockviz.ui.callers import caller
from blockviz.ui.visitors import Update, Visitors

if TYPE_CHECKING:
    from blockviz.session import Visitor

Handler = Callable[..., "Update | Iterator[Update]"]
# For events that carry something: "always_last" runs one that had to wait again with what the first
# carried, and the default drops it.
EACH = {"trigger_mode": "multiple"}
# An event of the page alone. It would look for every output at every step to show nothing on it.
QUIET = {"api_visibility": "private", "show_progress": "hidden", "show_progress_on": []}


@dataclass(frozen=True)
class Call:
    """Who called a handler and what the event carried; `data` and `query` are untrusted.

    token: of the visitor who has signed in, for handlers that were asked for with `is_signed`.
    """

    session: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    token: str = field(default="", repr=False)


def error_view(text: str) -> dict[str, str]:
    """A message for the error box. Its id makes the same text show again after a dismissal."""
    return {"text": text, "id": secrets.token_hex(4)}


def failure(error: BaseException) -> Update:
    """The screen after a handler raised: known errors in their own words, bugs by a short id."""
    known = isinstance(error, BlockvizError)
    text = str(error) if known else report(error, "a handler failed")
    return {"error": {**error_view(text), "is_refusal": True}}


def guarded(handler: Handler, call: Call, values: Sequence[Any]) -> Iterator[Update]:
    """Every update of a handler, and a last one with the error if it raises."""
    try:
        answer = handler(call, *values)
        if isinstance(answer, Mapping):
            yield answer
        else:
            yield from answer
    except GeneratorExit:
        raise
    except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception
        yield failure(error)


class Screen:
    """All components of the page by name; `listen` joins a trigger to a handler."""

    def __init__(self) -> None:
        self._components: dict[str, Any] = {}
        self.visitors = Visitors()

    def add(self, name: str, component: Any) -> Any:
        if name in self._components:
            raise ValueError(f"two components are called {name!r}")
        self._components[name] = component
        return component

    def __getitem__(self, name: str) -> Any:
        return self._components[name]

    def listen(
        self,
        trigger: Callable[..., Any] | Sequence[Callable[..., Any]],
        handler: Handler,
        *,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        is_signed: bool = False,
        **event: Any,
    ) -> Any:
        """The gradio dependency. `outputs` always include the error box.

        Triggers of components that call the same belong into one sequence: the page looks through
        all dependencies for each of its components. A `.then` stands alone.
        """
        names = tuple(dict.fromkeys((*outputs, "error")))
        is_stream = inspect.isgeneratorfunction(handler)
        wrap = _streamed if is_stream else _plain
        run = wrap(handler, names, tuple(inputs), self.visitors)
        run = _signed(run) if is_signed else run
        settings = {"queue": is_stream, **QUIET}
        return _joined(trigger)(
            run,
            inputs=[self[name] for name in inputs],
            outputs=[self[name] for name in names],
            **{**settings, **event},
        )


def _joined(trigger: Callable[..., Any] | Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """What makes a dependency of one trigger or several."""
    if not isinstance(trigger, Sequence):
        return trigger
    # The events that an HTML component names itself come in a form that `gr.on` cannot read.
    methods = [
        types.MethodType(one.func, *one.args) if isinstance(one, functools.partial) else one
        for one in trigger
    ]
    return functools.partial(gr.on, methods)


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
    return Call(
        session=session,
        address=caller(request),
        data=data if isinstance(data, Mapping) else {},
        query=query,
    )


def _signed(run: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """The same with the token of whoever has signed in; gradio fills it in by its annotation."""

    def signed(
        event: gr.EventData, request: gr.Request, token: gr.OAuthToken | None, *values: Any
    ) -> list[Any]:
        return run(event, request, *values, token=token.token if token else "")

    return signed


def _plain(
    handler: Handler, names: Sequence[str], inputs: Sequence[str], visitors: Visitors
) -> Callable[..., list[Any]]:
    action = handler.__qualname__

    def run(event: gr.EventData, request: gr.Request, *values: Any, token: str = "") -> list[Any]:
        call = replace(_call_of(event, request), token=token)
        given = dict(zip(inputs, values, strict=True))

        def answer(visitor: Visitor | None) -> Update:
            merged: Update = {}
            now = {**given, "visitor": visitor} if "visitor" in given else given
            for update in guarded(handler, call, tuple(now.values())):
                merged.update(update)
            return merged

        if "visitor" in given and "visitor" in names:
            update = visitors.settled(call.session, given["visitor"], answer)
        else:
            has = "visitor" in given
            update = answer(visitors.newest(call.session, given["visitor"]) if has else None)
        return to_outputs(names, visitors.refusals.answered(call.session, action, update))

    return run


def _streamed(
    handler: Handler, names: Sequence[str], inputs: Sequence[str], visitors: Visitors
) -> Callable[..., Iterator[list[Any]]]:
    action = handler.__qualname__

    def run(event: gr.EventData, request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        call, given = _call_of(event, request), dict(zip(inputs, values, strict=True))
        if "visitor" in given:
            given["visitor"] = visitors.newest(call.session, given["visitor"])
        for update in guarded(handler, call, tuple(given.values())):
            yield to_outputs(names, visitors.refusals.answered(call.session, action, update))

    return run
