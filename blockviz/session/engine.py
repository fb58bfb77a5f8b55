"""One engine a process: the shared model, the compute lock, the jobs, and what is known so far."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from blockviz.compute_lock import ComputeLock, steps
from blockviz.data import load_tasks, overlap_warning
from blockviz.errors import BadInput, BadSource
from blockviz.job_view import JobView
from blockviz.jobs import Jobs
from blockviz.models.model import BlockModel
from blockviz.session.allowance import Allowance
from blockviz.session.example import Example
from blockviz.session.judging import JUDGE_REMOVALS, check_table, judge_windows
from blockviz.session.kept import KeptResults, Shelf
from blockviz.session.lens import read_lens
from blockviz.session.live import LiveText, live_key, live_result, open_live_windows
from blockviz.session.opening import inspect_model, open_model, open_windows
from blockviz.session.refusals import check_model, check_score, out_of_time
from blockviz.session.results import Results
from blockviz.session.scoring import check_request, score_windows
from blockviz.session.views import (
    Continuation,
    Limits,
    LiveResult,
    ScoreRequest,
    Sizes,
    Verdict,
)
from blockviz.session.writing import write_pair
from blockviz.sources import cache_dir
from blockviz.store import JsonFolder, Store, key
from blockviz.types import (
    Done,
    Events,
    Judgement,
    ModelInfo,
    Progress,
    PruningPlan,
    ScoreTable,
    passing,
)

ORPHAN_SECONDS = 300


class Engine(Results):
    """What every front end calls. Public methods may be called from any thread.

    The loaded model is shared and read-only: a plan is an argument of a call and never outlives
    it. Everything that runs the model holds the compute lock step by step.
    """

    def __init__(
        self,
        mode: str = "local",
        *,
        limits: Limits | None = None,
        example: Example | None = None,
        live_text: str = "demo",
    ) -> None:
        self.mode = mode
        self.limits = limits or Limits.of(mode, os.environ)
        super().__init__(Store(), example or Example.load())
        is_hosted = mode == "hosted"
        self.jobs = Jobs(
            is_one_per_owner=is_hosted, orphan_seconds=ORPHAN_SECONDS if is_hosted else None
        )
        self.lock = ComputeLock()
        # Strangers must not fill the disk; what a trusted person has computed outlives the app.
        self._shelf: Shelf = self.store if is_hosted else JsonFolder(cache_dir() / "results")
        self._allowance = Allowance(self.limits.heavy_per_hour)
        self._live_text = live_text
        self._demo_job, self._demo_lock = "", threading.Lock()
        self._model: BlockModel | None = None
        self._live: LiveText | None = None

    @property
    def info(self) -> ModelInfo:
        """Of the model in memory, or of the example's until one is."""
        return self._model.info if self._model else self.example.info

    @property
    def is_ready(self) -> bool:
        return self._live is not None

    @property
    def example_prompt(self) -> str:
        return self.example.continuation.prompt

    @property
    def example_continuation(self) -> Continuation | None:
        return self.example.continuation if self.shows_example() else None

    @property
    def example_removed(self) -> tuple[str, ...]:
        return self.example.removed

    def sizes(self, plan: PruningPlan) -> Sizes:
        return Sizes.of(self.info, plan.check(self.info))

    def known(self, plan: PruningPlan) -> LiveResult | None:
        """The live perplexity of a plan if it needs no computing."""
        if self._live is not None:
            return self._live.known(plan)
        found = self.example.live.get(live_key(plan.removed))
        if found is None:
            return None
        baseline, origin = self.example.live[()], self.example.origin
        dtype = self.example.info.dtype
        return live_result(found, baseline, origin.describe(), dtype, "bundled")

    def measure(self, plan: PruningPlan) -> Events:
        """Done(LiveResult), ahead of any long job."""
        _, live = self._loaded()
        return steps(live.measure(plan), self.lock, weight="light")

    def write(
        self, prompt: str, plan: PruningPlan, *, max_new_tokens: int = 48, is_chat: bool = False
    ) -> Events:
        """Done(Continuation), streamed, ahead of any long job."""
        model, _ = self._loaded()
        events = write_pair(
            model,
            prompt,
            plan,
            max_new_tokens=max_new_tokens,
            is_chat=is_chat,
            store=self.store,
            limits=self.limits,
        )
        return steps(events, self.lock, weight="light")

    def inspect(self, model: str) -> Verdict:
        check_model(self.limits, model)
        return inspect_model(model)

    def start_demo(self) -> str:
        """The id of the one job that loads the demo model; started anew only if it failed."""
        with self._demo_lock:
            view = self.jobs.view(self._demo_job)
            if view is None or view.state in ("failed", "cancelled", "expired"):
                self._demo_job = self.jobs.submit(
                    "load", lambda: self._load("demo", "auto"), owner=""
                )
            return self._demo_job

    def start_load(self, model: str, *, dtype: str = "auto", owner: str = "") -> str:
        """The id of a job that loads another model; the present one serves until it is there."""
        check_model(self.limits, model)
        if self.limits.bundled_only:
            return self.start_demo()
        return self.jobs.submit("load", lambda: self._load(model, dtype), owner=owner)

    def start_score(self, request: ScoreRequest, *, owner: str, address: str = "") -> str:
        """The id of a job whose result is {"table_key": ..., "warning": ...}; partial likewise."""
        check_request(request)
        check_score(self.limits, request)
        if self._scored(request) is None:
            self._allowance.take(address)
        return self.jobs.submit("score", lambda: self._score(request), owner=owner)

    def start_judge(
        self, table_key: str, *, n_removals: int = JUDGE_REMOVALS, owner: str, address: str = ""
    ) -> str:
        """The id of a job whose result is {"judgement_key": ...}; partial likewise."""
        self._allowance.take(address)
        return self.jobs.submit("judge", lambda: self._judge(table_key, n_removals), owner=owner)

    def lens(self, text: str, position: int = -1) -> Events:
        """Done(Lens) of a position of a text, ahead of any long job."""
        model, _ = self._loaded()
        events = read_lens(model, text, position=position, limits=self.limits)
        return steps(events, self.lock, weight="light")

    def job(self, job_id: str) -> JobView | None:
        return self.jobs.view(job_id)

    def cancel(self, job_id: str) -> None:
        self.jobs.cancel(job_id)

    def forget(self, owner: str) -> None:
        self.jobs.forget(owner)

    def close(self) -> None:
        self.jobs.close()

    def _load(self, name: str, dtype: str) -> Events:
        model = yield from passing(open_model(name, dtype=dtype))
        windows = yield from passing(open_live_windows(model, self._live_text))
        live = LiveText(model, windows, self.store, self.example)
        yield from passing(steps(live.measure(PruningPlan()), self.lock))
        self._model, self._live = model, live
        yield Done(model.info)

    def _score(self, request: ScoreRequest) -> Iterator[Progress | Done]:
        model, live = self._loaded()
        known = self._scored(request)
        if known is not None:
            yield Done({"table_key": known, "warning": ""})
            return
        metrics = check_request(request)
        windows = yield from passing(open_windows(model, request))
        tasks = None
        if any(metric.needs_tasks() for metric in metrics.values()):
            tasks = yield from passing(load_tasks(request.tasks, limit=request.limit))
        warning = overlap_warning(windows, live.windows)
        kept = KeptResults(self._shelf, model, engine=request.engine)
        scored = score_windows(model, windows, metrics, request, tasks=tasks, kept=kept)

        def keep(table: ScoreTable) -> dict[str, str]:
            return {"table_key": self._keep(table, request), "warning": warning}

        for event in self._limited(scored, keep):
            if isinstance(event, Done) and not self.table(event.result["table_key"]).is_partial:
                self.store.put(self._asked(request), event.result["table_key"])
            yield event

    def _judge(self, table_key: str, n_removals: int) -> Iterator[Progress | Done]:
        model, live = self._loaded()
        table = self.table(table_key)
        if table is None:
            raise BadInput(
                "Metrics were to be judged.",
                "Their scores are no longer kept.",
                "Score the blocks again first.",
            )
        check_table(model, table)
        kept = KeptResults(self._shelf, model, engine="fast")
        judged = judge_windows(model, table, live.windows, n_removals=n_removals, kept=kept)

        def keep(judgement: Judgement) -> dict[str, str]:
            where = key("judgement", judgement.provenance, table_key, n_removals)
            self.store.put(where, judgement)
            return {"judgement_key": where, "warning": ""}

        yield from self._limited(judged, keep)

    def _limited(
        self, events: Events, keep: Callable[[Any], dict[str, str]]
    ) -> Iterator[Progress | Done]:
        """The events with results that are kept by name, stopped when the job's time is over."""
        until = time.monotonic() + (self.limits.job_seconds or math.inf)
        kept: dict[str, str] = {}
        with contextlib.closing(steps(events, self.lock)) as locked:
            for event in locked:
                if isinstance(event, Done):
                    yield Done(keep(event.result))
                    return
                if event.partial is not None:
                    kept = keep(event.partial)
                yield replace(event, partial=kept or None)
                if time.monotonic() > until:
                    if not kept:
                        raise out_of_time(self.limits)
                    minutes = (self.limits.job_seconds or 0) / 60
                    said = f"Stopped at the limit of {minutes:.0f} min; what was done is kept."
                    yield Done({**kept, "warning": said})
                    return

    def _asked(self, request: ScoreRequest) -> str:
        return key("asked", self.model_key, self.info.dtype, request)

    def _scored(self, request: ScoreRequest) -> str | None:
        """The key of the whole table that this request gave before, if it is still kept."""
        table_key = self.store.get(self._asked(request))
        return table_key if table_key and self.table(table_key) is not None else None

    def _keep(self, table: ScoreTable, request: ScoreRequest) -> str:
        table_key = key("scores", table.provenance, request)
        self.store.put(table_key, table)
        return table_key

    def _loaded(self) -> tuple[BlockModel, LiveText]:
        if self._model is None or self._live is None:
            raise BadSource(
                "The model was to be run.",
                "Its weights are not in memory yet.",
                "Wait for the loading to end; single cuts of the example are answered meanwhile.",
            )
        return self._model, self._live
