"""What the Compare tab does: settings to a request, its start, and which comparison is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BlockvizError
from blockviz.session import Visitor
from blockviz.types import Comparison
from blockviz.ui import compare_cards, compare_form
from blockviz.ui.chat_field import chat_offered
from blockviz.ui.drawing import Drawing
from blockviz.ui.job_handlers import JobHandlers
from blockviz.ui.offered import put_before, with_newest
from blockviz.ui.repair_rows import blocks
from blockviz.ui.screen import Call, Update

if TYPE_CHECKING:
    from blockviz.session import Engine

DESCRIBED = ("compare_says", "compare_note", "compare_table", "start_compare")
OFFERED = ("compare_a", "compare_b", "compare_offered", "compare_chat")
OUTPUTS = (*compare_cards.card_outputs(), "compare_shown")
START, NOTHING_CUT = "Compare", "Nothing is removed yet"


class CompareHandlers:
    """Handlers get the form's values in the order of `compare_form.FORM`."""

    def __init__(self, engine: Engine, jobs: JobHandlers) -> None:
        self.engine, self.jobs, self.drawing = engine, jobs, Drawing(engine)

    def offer(self, call: Call, visitor: Visitor, a: Any, b: Any, offered: Any) -> Update:
        """The corrections there are; the usual two, unless somebody has chosen others.

        offered: of each of the two, what was put there last, by this page and not by hand.
        """
        found = compare_form.choices(self.engine, visitor)
        usual = compare_form.usual(self.engine, visitor)
        pair = offered if isinstance(offered, list) and len(offered) == len(usual) else [None, None]
        before = [put_before(raw, new) for raw, new in zip(pair, usual, strict=True)]
        known = [label for _, label in found]
        values = [
            new if value in old or value not in known else value
            for value, old, new in zip((a, b), before, usual, strict=True)
        ]
        return {
            "compare_a": gr.update(choices=found, value=values[0]),
            "compare_b": gr.update(choices=found, value=values[1]),
            "compare_offered": list(map(with_newest, before, usual)),
            "compare_chat": chat_offered(self.engine.info),
        }

    def describe(self, call: Call, visitor: Visitor, jobs: Any, shown: Any, *form: Any) -> Update:
        """A setting or the plan has changed: what would be compared, and what is stale by now."""
        n, settings = len(visitor.removed), ""
        has_cuts = bool(n) and visitor.model_key == self.engine.model_key
        try:
            request = compare_form.request_of(self.engine, visitor, *form)
            settings = request.settings
            words = compare_form.said(self.engine, request)
        except BlockvizError as error:
            words = {**compare_cards.NO_WORDS, **({"text": str(error)} if n else {})}
        found = self._found(visitor, shown)[1]
        job = self.jobs.own_job(call, jobs)
        return {
            **compare_cards.stated(self.engine, visitor, found, job, settings),
            "compare_says": words,
            "start_compare": gr.update(
                value=f"{START} without {blocks(n)}" if n else NOTHING_CUT, interactive=has_cuts
            ),
        }

    def start(self, call: Call, visitor: Visitor, jobs: Any, *form: Any) -> Update:
        """The Compare button."""
        request = compare_form.request_of(self.engine, visitor, *form)
        self.drawing.check_model(visitor)
        who = {"owner": call.session, "address": call.address}
        started = self.jobs.begin(call, jobs, lambda: self.engine.start_compare(request, **who))
        job = self.jobs.own_job(call, started["jobs"])
        note = compare_cards.state_of(self.engine, visitor, None, job, ())
        return {**started, "compare_note": {"text": note}}

    def draw(self, call: Call, visitor: Visitor, jobs: Any, shown: Any, *form: Any) -> Update:
        """The comparison that is chosen, or the newest."""
        offered = compare_cards.choices(self.engine, visitor)
        key, found = self._found(visitor, shown)
        job, settings = self.jobs.own_job(call, jobs), self._settings(visitor, form)
        return {
            **compare_cards.drawn(self.engine, visitor, found, job, settings),
            "compare_shown": gr.update(
                choices=offered, value=key or None, visible=len(offered) > 1
            ),
        }

    def newest(self, call: Call, visitor: Visitor, jobs: Any, *form: Any) -> Update:
        """A column is finished, or a job has ended: the newest comparison."""
        return self.draw(call, visitor, jobs, None, *form)

    def _settings(self, visitor: Visitor, form: tuple[Any, ...]) -> str:
        """The key of what the page would ask for; empty where that cannot be asked."""
        try:
            return compare_form.request_of(self.engine, visitor, *form).settings
        except BlockvizError:
            return ""

    def _found(self, visitor: Visitor, shown: Any) -> tuple[str, Comparison | None]:
        """The chosen comparison of this visitor's, or the newest; nobody sees another's."""
        keys = [key for _, key in compare_cards.choices(self.engine, visitor)]
        key = shown if isinstance(shown, str) and shown in keys else (keys or [""])[0]
        return key, self.engine.comparison(key) if key else None
