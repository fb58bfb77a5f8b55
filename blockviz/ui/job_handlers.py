"""Opening the page, loading models, scoring: detached jobs that outlive a reload."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BadInput, BlockvizError
from blockviz.session import JobView, Limits, ScoreRequest, Visitor
from blockviz.session.search_views import PairsRequest
from blockviz.types import TEXT_ENDINGS, UNITS, ModelInfo
from blockviz.ui import inputs, views
from blockviz.ui.drawing import Drawing
from blockviz.ui.found import found, is_of, step_of, with_found, without_dropped
from blockviz.ui.screen import Call, Update, error_view, failure
from blockviz.ui.turns import Turns
from blockviz.ui.visitors import Visitors

if TYPE_CHECKING:
    from blockviz.session import Engine

NO_JOBS: dict[str, Any] = {"own": None, "past": (), "demo": None}
DTYPES = ("auto", "float32", "bfloat16", "float16")
MODES = ("stream", "per_sample")
BUNDLED_TEXTS = (("Demo: BoolQ passages, of Wikipedia", "demo"), ("Our own short essays", "own"))
LOCAL_TEXTS = (
    *BUNDLED_TEXTS,
    ("Alpaca (Hub)", "alpaca"),
    ("WikiText-2 (Hub)", "wikitext2"),
    ("C4 (Hub)", "c4"),
)
UPLOAD = "upload"
MOST_TABLES = 8
# Seconds between two looks at a job at first.
QUICK = 0.5
MAX_SAMPLES, MAX_SEQ_LEN, MAX_SEED = 4096, 32768, 2**32 - 1


def texts_for(limits: Limits) -> tuple[tuple[str, str], ...]:
    """(label, value) of the calibration texts offered under these limits."""
    return BUNDLED_TEXTS if limits.bundled_only else (*LOCAL_TEXTS, ("Uploaded file", UPLOAD))


class JobHandlers:
    """Knowing a job's id is the permission to see and cancel it; the browser keeps the last ones.

    What each open page has begun is kept here too: an event that was under way meanwhile writes
    the page's state as it was before, as the answer to the page's opening does.
    """

    def __init__(self, engine: Engine, turns: Turns, visitors: Visitors | None = None) -> None:
        self.engine, self.turns, self.drawing = engine, turns, Drawing(engine)
        self._visitors = visitors or Visitors()
        self._begun: dict[str, tuple[str, ...]] = {}
        self._demo: str | None = None
        self._demo_lock = threading.Lock()

    def open(self, call: Call, painted: Visitor, kept: Any, shade: Any) -> Update:
        """A page was opened or reloaded: what it was, the link's view, and this browser's jobs.

        `painted` is what the page shows already. Where that is right nothing is drawn again, so
        that a block switched before this answer arrives stays switched.
        """
        visitor, dropped = without_dropped(self.engine, self._came_back(call, kept))
        metric, problem = "", {}
        try:
            visitor, linked = self.drawing.linked_visitor(call.query, visitor)
            metric = linked.metric
            said = linked.refused or dropped
            problem = {"error": error_view(said)} if said else {}
            last = inputs.unanswered(kept)
            if last is not None:
                visitor = visitor.with_removed(inputs.removed_blocks(last, self.engine.info))
        except BlockvizError as error:
            problem = failure(error)
        past = [job for job in map(self._known_job, inputs.job_ids(kept)) if job is not None]
        ids = tuple(job.id for job in past)
        own = self.own_job(call, {"own": ids[-1] if ids else None})
        jobs = {"own": own.id if own else None, "past": ids, "demo": self.start_demo()}
        for job in (*past, own):
            if job is not None and job.id not in visitor.told:
                visitor = self._with_result(visitor, job)
        has_acted = painted.model_key == visitor.model_key and bool(painted.past)
        is_right = has_acted or (painted == visitor and not metric)
        return {
            **({} if is_right else self.drawing.everything(visitor, metric, shade)),
            **problem,
            "jobs": jobs,
            "job": views.job_lane(own),
            "timer": gr.update(active=True, value=QUICK),
        }

    def _came_back(self, call: Call, kept: Any) -> Visitor:
        """Who opens the page: who was there before a reload, or somebody new on the example."""
        first = self.drawing.first_visitor()
        known = self._visitors.came_back(call.session, inputs.page_id(kept))
        return known if known and known.model_key == first.model_key else first

    def first_screen(self, visitor: Visitor) -> Update:
        """The example with its text, drawn before anybody has asked for anything."""
        written = self.engine.example_continuation
        is_example = set(visitor.removed) == set(self.engine.example_removed)
        return {
            **self.drawing.everything(visitor, None, "rank"),
            "texts": views.texts(written if is_example else None, visitor),
        }

    def exemplified(self, call: Call, example: Any) -> Update:
        """An example was chosen: it fills the model box and is not yet checked."""
        name = inputs.text(example, "The example", max_chars=inputs.MAX_ID_CHARS)
        return {"model": name, "revision": "", **self.unchecked(call)}

    def check(self, call: Call, model: Any, revision: Any) -> Update:
        """The Check button: the verdict, and Load switched on if the model can be taken."""
        closed = {"verdict": views.NO_VERDICT, "load": gr.update(interactive=False)}
        try:
            found = self.engine.inspect(inputs.model_id(model, revision))
        except BlockvizError as error:
            return {**closed, **failure(error)}
        return {
            "verdict": views.verdict(found),
            "load": gr.update(interactive=found.is_supported),
        }

    def unchecked(self, call: Call) -> Update:
        """The model id was edited: what was checked is no longer what would be loaded."""
        return {"verdict": views.NO_VERDICT, "load": gr.update(interactive=False)}

    def load(self, call: Call, jobs: Any, model: Any, revision: Any, dtype: Any) -> Update:
        """The Load button."""
        name = inputs.model_id(model, revision)
        dtype = inputs.choice(dtype, "The number format", DTYPES)
        return self.begin(
            call, jobs, lambda: self.engine.start_load(name, dtype=dtype, owner=call.session)
        )

    def score(self, call: Call, jobs: Any, *raw: Any) -> Update:
        """The Score button."""
        request, who = self._request(*raw), {"owner": call.session, "address": call.address}
        return self.begin(call, jobs, lambda: self.engine.start_score(request, **who))

    def judge(self, call: Call, visitor: Visitor, jobs: Any) -> Update:
        """The button that measures what cuts cost."""
        self.drawing.check_model(visitor)
        asked = (visitor.table_key, visitor.judgement_key)
        who = {"owner": call.session, "address": call.address}
        return self.begin(call, jobs, lambda: self.engine.start_judge(*asked, **who))

    def pairs(self, call: Call, visitor: Visitor, jobs: Any) -> Update:
        """The button that measures which blocks stand in for which."""
        self.drawing.check_model(visitor)
        who = {"owner": call.session, "address": call.address}
        return self.begin(call, jobs, lambda: self.engine.start_pairs(PairsRequest(), **who))

    def begin(self, call: Call, jobs: Any, start: Callable[[], str]) -> Update:
        """Starts a job of this browser; BadInput while its last one still runs."""
        own = self.own_job(call, jobs)
        if own and not own.is_over:
            raise BadInput(
                "Another job was to be started.",
                f"Your {own.kind} job is still {own.state}.",
                "Wait for it, or press Cancel first.",
            )
        job_id, kept = start(), jobs if isinstance(jobs, dict) else NO_JOBS
        begun = (*self._begun.get(call.session, ()), job_id)[-inputs.MOST_JOBS :]
        self._begun[call.session] = begun
        known = dict.fromkeys((*kept.get("past", ()), *begun))
        return {
            "jobs": {**kept, "own": job_id},
            "browser": {"jobs": list(known)[-inputs.MOST_JOBS :]},
            "job": views.job_lane(self.engine.job(job_id)),
            "timer": gr.update(active=True, value=QUICK),
            # What was refused before is over, now that something runs.
            "error": views.NO_ERROR,
        }

    def own_job(self, call: Call, jobs: Any) -> JobView | None:
        """What this page began last, or the job that its browser knew before."""
        begun = self._begun.get(call.session, ())
        return self._known_job(begun[-1] if begun else _own(jobs))

    def cancel(self, call: Call, visitor: Visitor, jobs: Any) -> Update:
        """Stops the running job of this browser and the work of this page."""
        own = self.own_job(call, jobs)
        self.turns.cancel(call.session)
        update = self.drawing.score(visitor, state="stale")
        if own and not own.is_over:
            self.engine.cancel(own.id)
            return {**update, "job": views.CANCELLING}
        return {**update, "work": views.CANCELLED}

    def poll(self, call: Call, visitor: Visitor, jobs: Any, metric: Any, shade: Any) -> Update:
        """Time and again while a job runs: the status line, and its result once it is there."""
        own, demo = self.own_job(call, jobs), self._known_job(jobs.get("demo"))
        running = [job for job in (own, demo) if job and not job.is_over]
        update: Update = {"job": views.job_lane(running[0] if running else own)}
        ended = [j for j in (own, demo) if j and j.is_over and j.id not in visitor.told]
        for job in ended:
            update |= self._ended(update.get("visitor", visitor), job, metric, shade)
        now = update.get("visitor", visitor)
        if ended:
            now = now.was_told(job.id for job in ended)
        elif own in running:
            now = with_found(self.engine, now, own)
        update |= {"visitor": now} if now is not visitor else {}
        update["job"] = {**update["job"], "settled": now.n_told, **step_of(self.engine, own)}
        update["timer"] = gr.update(active=False)
        if running:
            update["timer"] = gr.update(active=True, value=pace(running[0].elapsed))
        return update

    def look(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        """A tab was opened: whether all that this visitor has made is still kept."""
        kept, said = without_dropped(self.engine, visitor)
        if not said or visitor.model_key != self.engine.model_key:
            return {}
        return {**self.drawing.everything(kept, metric, shade), "error": error_view(said)}

    def add_scores(self, call: Call, visitor: Visitor, file: Any, *look: Any) -> Update:
        """A scores file was uploaded: its metrics become extra rows of the table."""
        self.drawing.check_model(visitor)
        data, name = inputs.json_file(file, "A scores file")
        key = self.engine.import_scores(data, name, visitor.table_key)
        return self.drawing.everything(replace(visitor, table_key=key), *look)

    def leave(self, session: str) -> None:
        """The page was closed."""
        self.turns.forget(session)
        self._begun.pop(session, None)
        self.engine.forget(session)

    def _ended(self, visitor: Visitor, job: JobView, metric: Any, shade: Any) -> Update:
        said = job.result.get("warning") if isinstance(job.result, dict) else ""
        if job.state == "failed":
            said = job.error or "The job failed. Nothing was lost."
        update = {"error": error_view(said)} if said else {}
        if found(job):
            return {**update, "visitor": with_found(self.engine, visitor, job)}
        if job.state == "failed" or (job.result is None and job.partial is None):
            return update
        changed = self._with_result(visitor, job)
        return {**self.drawing.everything(changed, metric, shade), **update}

    def _with_result(self, visitor: Visitor, job: JobView | None) -> Visitor:
        """The visitor on what a finished job made: another model, or another score table."""
        result = (job.result or job.partial) if job else None
        if isinstance(result, ModelInfo) and visitor.model_key != self.engine.model_key:
            first = self.drawing.first_visitor()
            is_same = first.table_key and first.table_key == visitor.table_key
            if is_same:
                return replace(visitor, model_key=first.model_key)
            return replace(
                first, changes=visitor.changes + 1, seq=visitor.seq, told=visitor.told,
                n_told=visitor.n_told,
            )  # fmt: skip
        if not isinstance(result, dict):
            return visitor
        if isinstance(result.get("table_key"), str):
            key = result["table_key"]
            table = self.engine.table(key)
            if table is not None and is_of(table, self.engine.info):
                before = [t for t in (*visitor.tables, visitor.table_key) if t and t != key]
                tables = (*dict.fromkeys(before), key)[-MOST_TABLES:]
                return replace(visitor, table_key=key, tables=tables)
        if isinstance(result.get("judgement_key"), str):
            key = result["judgement_key"]
            judged = self.engine.judgement(key)
            is_ours = judged is not None and is_of(judged, self.engine.info)
            return replace(visitor, judgement_key=key) if is_ours else visitor
        return with_found(self.engine, visitor, job)

    def _request(self, metrics: Any, source: Any, upload: Any, n_samples: Any, seq_len: Any,
                 seed: Any, mode: Any, unit: Any, tasks: Any, rows: Any
                 ) -> ScoreRequest:  # fmt: skip
        limits = self.engine.limits
        offered = [value for _, value in texts_for(limits)]
        source = inputs.choice(source, "The calibration text", offered)
        if source == UPLOAD and not isinstance(upload, str):
            raise BadInput(
                "An uploaded file was to be the calibration text.",
                "No file was uploaded.",
                f"Upload a file ({', '.join(TEXT_ENDINGS)}), or choose another text.",
            )
        most, longest = limits.n_samples or MAX_SAMPLES, limits.seq_len or MAX_SEQ_LEN
        return ScoreRequest(
            metrics=inputs.choices(metrics, "Metrics", [c.name for c in self.engine.metrics()]),
            calibration=upload if source == UPLOAD else source,
            n_samples=inputs.whole(n_samples, "The number of samples", low=1, high=most),
            seq_len=inputs.whole(seq_len, "The sample length", low=2, high=longest),
            mode=inputs.choice(mode, "The sampling", MODES),
            seed=inputs.whole(seed, "The seed", low=0, high=MAX_SEED),
            unit=inputs.choice(unit, "The unit", UNITS),
            tasks=inputs.choice(tasks, "The questions", ("", *self.engine.tasks())),
            limit=inputs.whole(
                rows, "The number of questions", low=1, high=limits.task_rows or MAX_SAMPLES
            ),
        )

    def _known_job(self, job_id: str | None) -> JobView | None:
        return self.engine.job(job_id) if job_id else None

    def start_demo(self) -> str | None:
        """The job that loads the demo model: one for all pages, again if it failed."""
        with self._demo_lock:
            job = self._known_job(self._demo)
            if not self.engine.is_ready and (job is None or job.is_over):
                self._demo = self.engine.start_demo()
            return self._demo


def pace(elapsed: float) -> float:
    """Seconds until the next look at a job that has run so long: few of a long one's matter."""
    return QUICK if elapsed < 10 else 1.0 if elapsed < 60 else 2.0


def _own(jobs: Any) -> str | None:
    return jobs.get("own") if isinstance(jobs, dict) else None
