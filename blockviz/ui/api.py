"""Named endpoints: what the page does, for programs. Each waits for its job and answers in JSON."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BlockvizError
from blockviz.session import ScoreRequest, Visitor
from blockviz.types import Done
from blockviz.ui import compare_form, export_form, inputs, search_form
from blockviz.ui.callers import caller
from blockviz.ui.file_names import FILE, FileNames
from blockviz.ui.job_handlers import DTYPES, MAX_SAMPLES, MAX_SEED, MAX_SEQ_LEN
from blockviz.ui.link import MAX_CHARS
from blockviz.ui.listeners import Listeners
from blockviz.ui.live_handlers import MAX_NEW_TOKENS
from blockviz.ui.text_fields import fit_windows

if TYPE_CHECKING:
    from blockviz.session import Engine

Answer = dict[str, Any]
POLL_SECONDS = 0.1


def add_endpoints(engine: Engine, listeners: Listeners, names: FileNames) -> None:
    """Inside a gr.Blocks: /load, /score, /search, /evaluate, /generate and /export."""
    api = Api(engine, listeners, names)
    for name in ("load", "score", "search", "evaluate", "generate", "export"):
        # Endpoints wait for the session's own queue of jobs, so that none of them holds gradio's.
        gr.api(getattr(api, name), api_name=name, concurrency_limit=16, concurrency_id="endpoints")


class Api:
    """Arguments are held to what the page holds its fields to, and the limits are the same.

    remove: block names with commas, `18.attn,7.mlp,3.layer`. A refusal is an error with the words
    that the page would show.
    """

    def __init__(self, engine: Engine, listeners: Listeners, names: FileNames) -> None:
        self.engine, self.listeners, self.names = engine, listeners, names

    def load(self, request: gr.Request, model: str = "demo", dtype: str = "auto") -> Answer:
        """Loads a model for everybody on this server; {"model": name, "blocks": [...]}."""

        def start() -> str:
            name = inputs.model_id(model, "")
            kind = inputs.choice(dtype, "The number format", DTYPES)
            return self.engine.start_load(name, dtype=kind, owner=_owner(request))

        self._result(request, start)
        return self.engine.info.to_json()

    def score(
        self,
        request: gr.Request,
        metrics: str = "ppl,bi",
        calibration: str = "demo",
        n_samples: int = 16,
        seq_len: int = 128,
        seed: int = 42,
        unit: str = "block",
    ) -> Answer:
        """Scores of every block under the named metrics, the JSON of `blockviz score`."""

        def start() -> str:
            names = [card.name for card in self.engine.metrics()]
            asked = ScoreRequest(
                metrics=inputs.choices(_names(metrics), "Metrics", names),
                unit=inputs.choice(unit, "The unit", search_form.UNIT_TITLES),
                **self._text(calibration, n_samples, seq_len, seed),
            )
            return self.engine.start_score(asked, **_who(request))

        return self._kept(request, start, "table_key", self.engine.table).to_json()

    def search(
        self,
        request: gr.Request,
        blocks: int = 6,
        strategy: str = "greedy",
        objective: str = "ppl",
        unit: str = "block",
        calibration: str = "demo",
        n_samples: int = 16,
        seq_len: int = 128,
        seed: int = 42,
    ) -> Answer:
        """A search that removes so many units, the JSON of `blockviz search`."""

        def start() -> str:
            way, _, settings = _text(strategy, "The strategy").partition(":")
            aim, _, details = _text(objective, "The objective").partition(":")
            form = {
                **search_form.BARE,
                "search_target": "count",
                "search_amount": blocks,
                "search_strategy": way,
                "strategy_settings": settings,
                "search_objective": aim,
                "objective_settings": details,
                "search_unit": unit,
                "search_text": calibration,
                "search_samples": n_samples,
                "search_seq_len": seq_len,
                "search_seed": seed,
            }
            asked = search_form.request_of(self.engine, *(form[n] for n in search_form.FORM))
            return self.engine.start_search(asked, **_who(request))

        return self._kept(request, start, "search_key", self.engine.search_run).to_json()

    def evaluate(
        self,
        request: gr.Request,
        remove: str,
        correction: str = "none",
        data: str = "demo",
        n_samples: int = 16,
        seq_len: int = 512,
        seed: int = 42,
        tasks: str = "",
        limit: int = 48,
    ) -> Answer:
        """The original, the plan and a repair of it on one text, the JSON of a comparison; tasks:
        names with commas, `limit` questions of each."""

        def start() -> str:
            n_fit, n_held = fit_windows(self.engine.limits)
            form = {
                "compare_a": correction,
                "compare_b": compare_form.NONE,
                "compare_prompt": self.engine.example_prompt,
                "compare_new": 8,
                "compare_chat": False,
                "compare_text": "demo",
                "compare_samples": n_fit,
                "compare_seq_len": 512,
                "compare_skip": 0,
                "compare_held": n_held,
                "compare_seed": seed,
                "against_text": data,
                "against_samples": n_samples,
                "against_seq_len": seq_len,
                "compare_tasks": _names(tasks),
                "compare_rows": limit,
                "compare_timed": False,
            }
            values = (form[name] for name in compare_form.FORM)
            asked = compare_form.request_of(self.engine, self._visitor(remove, correction), *values)
            return self.engine.start_compare(asked, **_who(request))

        return self._kept(request, start, "compare_key", self.engine.comparison).to_json()

    def generate(
        self, prompt: str, remove: str = "", max_new_tokens: int = 48, template: str = "none"
    ) -> Answer:
        """What the original and the pruned model write, word for word the likeliest; template:
        `none`, or `chat` to put the prompt into the model's own."""
        try:
            limits = self.engine.limits
            text = inputs.text(prompt, "The prompt", max_chars=limits.max_prompt_chars)
            most = limits.max_new_tokens or MAX_NEW_TOKENS
            n = inputs.whole(max_new_tokens, "The number of new tokens", low=1, high=most)
            plan = self._visitor(remove).plan()
            is_chat = inputs.choice(template, "The template", ("none", "chat")) == "chat"
            written = self.engine.write(text, plan, max_new_tokens=n, is_chat=is_chat)
            with closing(written) as events:
                found = next(event.result for event in events if isinstance(event, Done))
        except BlockvizError as error:
            raise _refusal(str(error)) from error
        return {"prompt": found.prompt, "original": found.original, "pruned": found.pruned,
                "removed": list(map(str, plan.removed))}  # fmt: skip

    def export(
        self,
        request: gr.Request,
        remove: str,
        mode: str = "stock-compact",
        correction: str = "none",
        seed: int = 42,
    ) -> Answer:
        """Writes and checks a pruned model; {"report": ..., "url": of the ZIP on this server}."""

        def start() -> str:
            most = self.engine.limits.n_samples or MAX_SAMPLES
            n_fit, n_held = fit_windows(self.engine.limits)
            form = {
                "export_mode": mode,
                "export_fix": correction,
                "export_llama": False,
                "export_text": "demo",
                "export_samples": n_fit,
                "export_seq_len": 512,
                "export_skip": 0,
                "export_held": n_held,
                "export_seed": seed,
                "shown_text": "demo",
                "shown_samples": min(16, most),
                "shown_seq_len": 512,
            }
            values = (form[name] for name in export_form.FORM)
            asked = export_form.request_of(self.engine, self._visitor(remove, correction), *values)
            return self.engine.start_export(asked, **_who(request))

        found = self._kept(request, start, "export_key", self.engine.exported)
        return {
            "report": found.report.to_json(),
            "url": f"{FILE}{self.names.shown(str(found.archive))}",
            "n_bytes": found.n_bytes,
        }

    def _visitor(self, remove: str, fix: str = "") -> Visitor:
        """Somebody with this plan, who is offered this correction."""
        blocks = inputs.removed_blocks(_names(remove), self.engine.info)
        known = fix if export_form.fits(_text(fix, "The correction"), self.engine) else ""
        return Visitor(model_key=self.engine.model_key, removed=blocks, fix=known)

    def _text(self, calibration: Any, n_samples: Any, seq_len: Any, seed: Any) -> dict[str, Any]:
        limits = self.engine.limits
        offered = [value for _, value in search_form.texts_to_search(limits)]
        most, longest = limits.n_samples or MAX_SAMPLES, limits.seq_len or MAX_SEQ_LEN
        return {
            "calibration": inputs.choice(calibration, "The calibration text", offered),
            "n_samples": inputs.whole(n_samples, "The number of samples", low=1, high=most),
            "seq_len": inputs.whole(seq_len, "The sample length", low=2, high=longest),
            "seed": inputs.whole(seed, "The seed", low=0, high=MAX_SEED),
        }

    def _kept(
        self, request: gr.Request, start: Callable[[], str], key: str, find: Callable[[str], Any]
    ) -> Any:
        """What the job has left under its key."""
        found = find(self._result(request, start)[key])
        if found is None:
            raise _refusal(
                "The result of this job was to be sent. So many came after it that it is not kept "
                "any more. Ask again."
            )
        return found

    def _result(self, request: gr.Request, start: Callable[[], str]) -> Any:
        """What the job has come to; an error with its own words if it came to nothing."""
        try:
            job_id = start()
        except BlockvizError as error:
            raise _refusal(str(error)) from error
        while (job := self.engine.job(job_id)) is not None and not job.is_over:
            if self.listeners.have_left(request.session_hash or ""):
                self.engine.cancel(job_id)
            time.sleep(POLL_SECONDS)
        if job is None or job.state != "done":
            raise _refusal((job and job.error) or "The job was stopped before it was done.")
        return job.result


def _refusal(text: str) -> gr.Error:
    """For the caller alone: what a stranger asked for is no matter for the log of the host."""
    return gr.Error(text, print_exception=False)


def _text(raw: Any, name: str) -> str:
    return inputs.text(raw, name, max_chars=MAX_CHARS)


def _names(raw: Any) -> list[str]:
    return [name.strip() for name in _text(raw, "A list of names").split(",") if name.strip()]


def _owner(request: gr.Request) -> str:
    """Who may have one long task at a time: a session, or an address that calls without one.

    Gradio draws a name of 32 digits for each call that came without a session.
    """
    session = request.session_hash or ""
    is_drawn = re.fullmatch("[0-9a-f]{32}", session) or not session
    return f"calls from {caller(request)}" if is_drawn else session


def _who(request: gr.Request) -> dict[str, str]:
    return {"owner": _owner(request), "address": caller(request)}
