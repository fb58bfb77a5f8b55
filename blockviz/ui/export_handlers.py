"""What the Export tab does: settings to a request, its start, its checks, and the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BadInput, BlockvizError
from blockviz.session import Visitor
from blockviz.ui import export_cards, export_form, inputs
from blockviz.ui.compare_cards import NO_WORDS
from blockviz.ui.compare_form import NONE, choices, usual_to_export
from blockviz.ui.drawing import Drawing
from blockviz.ui.inputs import MAX_ID_CHARS
from blockviz.ui.job_handlers import JobHandlers
from blockviz.ui.offered import put_before, with_newest
from blockviz.ui.recipe_handlers import NO_RECIPE, saved
from blockviz.ui.repair_rows import blocks
from blockviz.ui.screen import Call, Update

if TYPE_CHECKING:
    from blockviz.session import Engine

DESCRIBED = ("export_says", "export_mode", "export_fix", "export_offered", "export_llama",
             "start_export", "recipe_save", *export_cards.OUTPUTS)  # fmt: skip
START, NOTHING_CUT = "Write and check", "Nothing is removed yet"


class ExportHandlers:
    """Handlers get the form's values in the order of `export_form.FORM`."""

    def __init__(self, engine: Engine, jobs: JobHandlers) -> None:
        self.engine, self.jobs, self.drawing = engine, jobs, Drawing(engine)

    def describe(self, call: Call, visitor: Visitor, jobs: Any, offered: Any, *form: Any) -> Update:
        """A setting or the plan has changed: what would be written, and what is stale by now.

        offered: the repairs that this page has put there last; one chosen by hand stays.
        """
        n = len(visitor.removed)
        has_cuts = bool(n) and visitor.model_key == self.engine.model_key
        cards, words, recipe = (), NO_WORDS, NO_RECIPE
        found, place = choices(self.engine, visitor), export_form.FORM.index("export_fix")
        usual = usual_to_export(self.engine, visitor)
        before = put_before(offered, usual)
        fix = usual if form[place] in before else form[place]
        fix = fix if fix in [label for _, label in found] else NONE
        form = (*form[:place], fix, *form[place + 1 :])
        try:
            plan = visitor.plan()
            cards = self.engine.export_modes(plan) if has_cuts else ()
            request = export_form.as_it_stands(self.engine, visitor, *form)
            words = export_form.said(self.engine, request, cards) if n else NO_WORDS
            if visitor.model_key == self.engine.model_key:
                recipe = saved(self.engine.info, request)
        except BlockvizError as error:
            words = {**NO_WORDS, **({"text": str(error)} if n else {})}
        return {
            **export_cards.drawn(self.engine, visitor, self.jobs.own_job(call, jobs)),
            "export_says": words,
            "recipe_save": recipe,
            "export_mode": gr.update(choices=export_form.mode_choices(cards)),
            "export_fix": gr.update(choices=found, value=fix),
            "export_offered": with_newest(before, usual),
            "export_llama": gr.update(visible=self.engine.can_export_as_llama()),
            "start_export": gr.update(
                value=f"{START} without {blocks(n)}" if n else NOTHING_CUT, interactive=has_cuts
            ),
        }

    def start(self, call: Call, visitor: Visitor, jobs: Any, *form: Any) -> Update:
        """The button that writes."""
        request = export_form.request_of(self.engine, visitor, *form)
        self.drawing.check_model(visitor)
        who = {"owner": call.session, "address": call.address}
        started = self.jobs.begin(call, jobs, lambda: self.engine.start_export(request, **who))
        job = self.jobs.own_job(call, started["jobs"])
        return {**started, **export_cards.drawn(self.engine, visitor, job)}

    def push(self, call: Call, visitor: Visitor, jobs: Any, repo: Any, is_private: Any) -> Update:
        """The button that sends the file to the Hub, in the name of whoever has signed in."""
        name = inputs.text(repo or "", "The repository", max_chars=MAX_ID_CHARS).strip()
        if not call.token:
            raise BadInput(
                "The file was to be pushed to the Hub.",
                "Nobody has signed in on this page.",
                "Press Sign in with Hugging Face first.",
            )
        started = self.jobs.begin(
            call,
            jobs,
            lambda: self.engine.start_push(
                visitor.export_key, name, call.token,
                is_private=is_private is not False, owner=call.session,
            ),
        )  # fmt: skip
        job = self.jobs.own_job(call, started["jobs"])
        return {**started, **export_cards.drawn(self.engine, visitor, job)}

    def draw(self, call: Call, visitor: Visitor, jobs: Any) -> Update:
        """A check is done, or the job has ended."""
        return export_cards.drawn(self.engine, visitor, self.jobs.own_job(call, jobs))
