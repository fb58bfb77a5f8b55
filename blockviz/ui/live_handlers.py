"""Work that belongs to one open page: the perplexity of its plan, and what the model writes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from blockviz.errors import BadInput, BlockvizError
from blockviz.session import Continuation, Visitor
from blockviz.types import Done, Events, Progress
from blockviz.ui import inputs, views
from blockviz.ui.drawing import Drawing, said
from blockviz.ui.screen import Call, Update
from blockviz.ui.turns import Turns
from blockviz.ui.words import sentence

if TYPE_CHECKING:
    from blockviz.session import Engine

MEASURING, WRITING = "Measuring perplexity", "Writing"
MAX_NEW_TOKENS = 256
UNFINISHED = "Cancelled before its end. Press Write to have it whole."


class LiveHandlers:
    """Generators: gradio closes them when the page goes, and `closing` passes that on."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        self.engine, self.turns, self.drawing = engine, turns, Drawing(engine)

    def follow(self, call: Call, visitor: Visitor, shade: Any) -> Iterator[Update]:
        """After a change: the perplexity, unless a newer change comes."""
        self.drawing.check_model(visitor)
        # What waited in the queue while its page pressed Cancel must not start after all.
        if self.turns.is_cancelled(call.session):
            if self.engine.known(visitor.plan()) is None:
                yield {"work": views.CANCELLED}
            return
        turn = self.turns.newest(call.session)
        yield from self._measured(call.session, turn, visitor)
        if self.turns.is_over(call.session, turn):
            return
        # Drawn last: it costs the browser more than all the rest, and nobody waits for its crosses.
        yield self.drawing.heat(visitor, shade)
        self.turns.has_measured(call.session, turn)

    def text(
        self, call: Call, visitor: Visitor, prompt: Any, n_new: Any, is_chat: Any
    ) -> Iterator[Update]:
        """After its perplexity: what the model writes now. Nobody's perplexity waits for it."""
        if not self.turns.takes_text(call.session):
            return
        turn = self.turns.newest(call.session)
        bundled = self._bundled(visitor, prompt, is_chat)
        if bundled is not None:
            yield {"texts": views.texts(bundled, visitor)}
        elif prompt:
            yield from self._written(call.session, turn, visitor, prompt, n_new, is_chat)

    def ask_measure(self, call: Call) -> Update:
        """The Measure now button was pressed: from now on its wish can be cancelled."""
        return self._asked(call, MEASURING)

    def ask_write(self, call: Call) -> Update:
        """The Write button was pressed: what was being written stops, and Cancel is for this."""
        return self._asked(call, WRITING)

    def _asked(self, call: Call, label: str) -> Update:
        self.turns.begin(call.session)
        return {"work": views.lane("running", label)}

    def write(
        self, call: Call, visitor: Visitor, prompt: Any, n_new: Any, is_chat: Any
    ) -> Iterator[Update]:
        """After the Write button, once it is this page's turn."""
        if self.turns.is_cancelled(call.session):
            yield {"work": views.CANCELLED}
            return
        turn = self.turns.newest(call.session)
        try:
            yield from self._written(call.session, turn, visitor, prompt, n_new, is_chat)
        except BlockvizError:
            yield {"work": views.IDLE}
            raise

    def _measured(self, session: str, turn: int, visitor: Visitor) -> Iterator[Update]:
        plan, work = visitor.plan(), {"work": views.IDLE}
        if self.engine.known(plan) is None:
            if not self.engine.is_ready:
                yield {**self.drawing.score(visitor, state="waiting"), **work}
                return
            work = {}
            yield self.drawing.score(visitor, state="measuring")
            yield from self._run(session, turn, visitor, MEASURING, self.engine.measure(plan))
        if not self.turns.is_over(session, turn):
            live = {"text": said(self.engine.info, visitor, "", self.engine.known(plan))}
            yield {**self.drawing.score(visitor, state="stale"), "live": live, **work}

    def _written(
        self, session: str, turn: int, visitor: Visitor, prompt: Any, n_new: Any, is_chat: Any
    ) -> Iterator[Update]:
        limits = self.engine.limits
        prompt = inputs.text(prompt, "The prompt", max_chars=limits.max_prompt_chars)
        if not prompt.strip():
            raise BadInput(
                "A text was to be written.",
                "The prompt is empty.",
                "Write what the model is to go on from.",
            )
        most = limits.max_new_tokens or MAX_NEW_TOKENS
        n_new = inputs.whole(n_new, "The number of new tokens", low=1, high=most)
        if not self.engine.is_ready:
            note = "The model is still loading; this is written as soon as it is ready."
            yield {"texts": views.texts(None, visitor, note=note), "work": views.IDLE}
            return
        events = self.engine.write(
            prompt, visitor.plan(), max_new_tokens=n_new, is_chat=is_chat is True
        )
        yield from self._run(session, turn, visitor, WRITING, events)

    def _bundled(self, visitor: Visitor, prompt: Any, is_chat: Any) -> Continuation | None:
        """The example's text while the screen shows the example: a class opens it for nothing."""
        written = self.engine.example_continuation
        is_same = set(visitor.removed) == set(self.engine.example_removed)
        is_example = is_same and written is not None and prompt == written.prompt
        return written if is_example and (is_chat is True) == written.is_chat else None

    def _run(
        self, session: str, turn: int, visitor: Visitor, label: str, events: Events
    ) -> Iterator[Update]:
        """One update per event, until the work ends or a newer wish of this page replaces it."""
        started, last = time.monotonic(), None
        try:
            with closing(events):
                for event in events:
                    if self.turns.is_over(session, turn):
                        yield self._stopped(session, visitor, last)
                        return
                    last = event
                    yield shown(event, visitor, label, time.monotonic() - started)
        except GeneratorExit:
            raise
        except BaseException:
            lane = views.lane("failed", f"{label} failed")
            yield {**self.drawing.score(visitor, state="stale"), "work": lane}
            raise

    def _stopped(self, session: str, visitor: Visitor, last: Progress | Done | None) -> Update:
        """The screen after work that was cancelled, or that a newer wish replaced: what came before
        this may reach the page after the answer to the Cancel button."""
        if not self.turns.is_cancelled(session):
            return {"work": views.IDLE}
        so_far = last.partial if isinstance(last, Progress) else None
        if not isinstance(so_far, Continuation):
            return {**self.drawing.score(visitor, state="stale"), "work": views.CANCELLED}
        texts = {**views.texts(so_far, visitor, note=UNFINISHED), "is_busy": False}
        return {"work": views.CANCELLED, "texts": texts}


def shown(event: Progress | Done, visitor: Visitor, label: str, seconds: float) -> Update:
    """The screen after one event of a running task."""
    if isinstance(event, Done):
        update: Update = {"work": views.lane("done", f"{label}: done", seconds=seconds)}
        product: object = event.result
    else:
        stage = sentence(event.stage) or label
        lane = views.lane("running", stage, done=event.done, total=event.total, seconds=seconds)
        update, product = {"work": lane}, event.partial
    if isinstance(product, Continuation):
        update["texts"] = views.texts(product, visitor)
    return update
