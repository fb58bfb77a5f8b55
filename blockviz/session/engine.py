"""One engine a process: the shared model, the compute lock, the jobs, and what is known so far."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from blockviz.compute_lock import ComputeLock, steps
from blockviz.data import overlap_warning
from blockviz.errors import BadSource, OverLimit
from blockviz.job_view import JobView
from blockviz.jobs import Jobs
from blockviz.metrics import METRICS
from blockviz.models.model import BlockModel
from blockviz.session.allowance import Allowance
from blockviz.session.example import Example
from blockviz.session.live import LiveText, live_key, live_result, open_live_windows
from blockviz.session.opening import inspect_model, open_model, open_windows
from blockviz.session.scoring import check_request, score_windows
from blockviz.session.views import (
    Continuation,
    Limits,
    LiveResult,
    MetricCard,
    ScoreRequest,
    Sizes,
    Verdict,
)
from blockviz.session.writing import write_pair
from blockviz.store import Store, key
from blockviz.types import Done, Events, ModelInfo, Progress, PruningPlan, ScoreTable, passing

BUNDLED_TEXTS = ("demo", "own")
ORPHAN_SECONDS = 300


class Engine:
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
        self.example = example or Example.load()
        is_hosted = mode == "hosted"
        self.jobs = Jobs(
            is_one_per_owner=is_hosted, orphan_seconds=ORPHAN_SECONDS if is_hosted else None
        )
        self.lock = ComputeLock()
        self.store = Store()
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
    def model_key(self) -> str:
        """Changes when another model is loaded; a visitor's plan belongs to one key."""
        return f"{self.info.name}@{self.info.revision}"

    @property
    def is_ready(self) -> bool:
        return self._live is not None

    @property
    def example_prompt(self) -> str:
        return self.example.continuation.prompt

    @property
    def example_continuation(self) -> Continuation | None:
        return self.example.continuation if self._shows_example() else None

    @property
    def example_removed(self) -> tuple[str, ...]:
        return self.example.removed

    def metrics(self) -> tuple[MetricCard, ...]:
        return tuple(
            MetricCard(c.name, c.title, c.meaning, c.reference, c.unit_label)
            for c in METRICS.classes()
        )

    def table(self, table_key: str) -> ScoreTable | None:
        """The scores of the example, or those that a finished job named; None if forgotten."""
        if table_key == "example":
            return self.example.table if self._shows_example() else None
        return self.store.get(table_key)

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
        self._check_model(model)
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
        self._check_model(model)
        if self.limits.bundled_only:
            return self.start_demo()
        return self.jobs.submit("load", lambda: self._load(model, dtype), owner=owner)

    def start_score(self, request: ScoreRequest, *, owner: str, address: str = "") -> str:
        """The id of a job whose result is {"table_key": ..., "warning": ...}; partial likewise."""
        check_request(request)
        self._check_request(request)
        if self._scored(request) is None:
            self._allowance.take(address)
        return self.jobs.submit("score", lambda: self._score(request), owner=owner)

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
        windows = yield from passing(open_windows(model, request))
        warning = overlap_warning(windows, live.windows)
        scored = score_windows(model, windows, check_request(request), request)
        until = time.monotonic() + (self.limits.job_seconds or math.inf)
        kept: dict[str, str] = {}
        with contextlib.closing(steps(scored, self.lock)) as events:
            for event in events:
                if isinstance(event, Done):
                    kept = {"table_key": self._keep(event.result, request), "warning": warning}
                    self.store.put(self._asked(request), kept["table_key"])
                    yield Done(kept)
                    return
                if event.partial is not None:
                    kept = {"table_key": self._keep(event.partial, request), "warning": warning}
                yield replace(event, partial=kept or None)
                if time.monotonic() > until:
                    yield self._stopped(kept)
                    return

    def _stopped(self, kept: dict[str, str]) -> Done:
        minutes = (self.limits.job_seconds or 0) / 60
        if not kept:
            raise OverLimit(
                "Blocks were to be scored.",
                f"Not one batch of windows was done in {minutes:.0f} min, the limit here.",
                "Ask for shorter windows, or run blockviz on your own machine.",
            )
        warning = f"Stopped at the limit of {minutes:.0f} min; the windows done so far are kept."
        return Done({**kept, "warning": warning})

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

    def _shows_example(self) -> bool:
        mine, info = self.example.info, self.info
        return (mine.name, mine.revision) == (info.name, info.revision)

    def _check_model(self, model: str) -> None:
        if self.limits.bundled_only and model.strip() != "demo":
            raise OverLimit(
                f"The model {model[:96]!r} was asked for.",
                "This server runs the demo model only.",
                "Run blockviz on your own machine to load any model.",
            )

    def _check_request(self, request: ScoreRequest) -> None:
        limits = self.limits
        if limits.bundled_only and request.calibration not in BUNDLED_TEXTS:
            raise OverLimit(
                f"The text {request.calibration[:96]!r} was asked for.",
                "This server scores on its bundled texts only.",
                f"Use {' or '.join(BUNDLED_TEXTS)}, or run blockviz on your own machine.",
            )
        for value, limit, what in (
            (request.n_samples, limits.n_samples, "windows"),
            (request.seq_len, limits.seq_len, "tokens a window"),
        ):
            if limit is not None and value > limit:
                raise OverLimit(
                    f"{value} {what} were asked for.",
                    f"The limit here is {limit}.",
                    "Lower it, or run blockviz on your own machine.",
                )
