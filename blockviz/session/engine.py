"""One engine a process: the shared model, the compute lock, the jobs, and what is known so far."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from blockviz.compute_lock import ComputeLock, steps
from blockviz.errors import BadInput
from blockviz.job_view import JobView
from blockviz.jobs import Jobs
from blockviz.models.convert import can_be_llama
from blockviz.session.allowance import Allowance
from blockviz.session.compare_views import CompareRequest
from blockviz.session.comparing import check_compare
from blockviz.session.estimating import estimate_search
from blockviz.session.example import Example
from blockviz.session.export_facts import mode_cards
from blockviz.session.export_views import ExportRequest, ModeCard
from blockviz.session.exporting import check_export
from blockviz.session.exports import Exports
from blockviz.session.fitted_repairs import FittedRepairs
from blockviz.session.judging import JUDGE_REMOVALS
from blockviz.session.lens import read_lens
from blockviz.session.live import LiveText, live_key, live_result, open_live_windows
from blockviz.session.opening import inspect_model, open_model
from blockviz.session.pairing import check_pairs
from blockviz.session.refusals import check_evaluations, check_fit, check_model, check_score
from blockviz.session.repair_space import check_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.scoring import check_request
from blockviz.session.search_space import check_search
from blockviz.session.search_views import PairsRequest, SearchRequest
from blockviz.session.views import (
    Continuation,
    Limits,
    LiveResult,
    ScoreRequest,
    Sizes,
    Verdict,
)
from blockviz.session.work import Work
from blockviz.session.writing import write_pair
from blockviz.sources import cache_dir
from blockviz.sources.hub_push import check_repo_id
from blockviz.store import MAX_BYTES, JsonFolder, Store
from blockviz.types import (
    Done,
    Events,
    PruningPlan,
    passing,
)

ORPHAN_SECONDS = 300
LOCAL_BYTES = 1 << 30


class Engine(Work):
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
        is_hosted = mode == "hosted"
        # What a trusted person has waited for is theirs until they close the app.
        keeps = self.limits.keep_seconds or math.inf
        store = Store(idle_seconds=keeps, max_bytes=MAX_BYTES if is_hosted else LOCAL_BYTES)
        super().__init__(store, example or Example.load())
        self.jobs = Jobs(
            is_one_per_owner=is_hosted,
            keep_seconds=keeps,
            orphan_seconds=ORPHAN_SECONDS if is_hosted else None,
        )
        self.lock = ComputeLock()
        # Strangers must not fill the disk; what a trusted person has computed outlives the app.
        self._shelf = self.store if is_hosted else JsonFolder(cache_dir() / "results")
        self._records = None if is_hosted else cache_dir() / "results"
        self._allowance = Allowance(self.limits.heavy_per_hour, self.limits.heavy_per_address)
        self._exports = Exports(cache_dir() / "exports", keep_seconds=keeps)
        # What an earlier process left is swept too.
        self._exports.sweep()
        self._live_text = live_text
        self._demo_job, self._demo_lock = "", threading.Lock()

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
        """Done(Continuation), streamed, ahead of any long job and behind what is measured."""
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
        return steps(events, self.lock, weight="patient")

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
        if self._scored(request) is not None:
            return self.jobs.submit(
                "score", lambda: self._score(request), owner=owner, address=address
            )
        return self._begin("score", lambda: self._score(request), owner, address)

    def start_judge(
        self, table_key: str, before: str = "", *, n_removals: int = JUDGE_REMOVALS, owner: str,
        address: str = "",
    ) -> str:  # fmt: skip
        """The id of a job whose result is {"judgement_key": ...}; partial likewise.

        before: the key of a judgement whose sets need not be measured again.
        """
        return self._begin(
            "judge", lambda: self._judge(table_key, before, n_removals), owner, address
        )

    def estimate_search(self, request: SearchRequest) -> Events:
        """Done(Estimate) of a search, ahead of any long job."""
        model, _ = self._loaded()
        self._check_search(request)
        return steps(estimate_search(model, request), self.lock, weight="light")

    def start_search(self, request: SearchRequest, *, owner: str, address: str = "") -> str:
        """The id of a job whose result is {"search_key": ..., "warning": ...}; partial likewise."""
        self._check_search(request)
        return self._begin("search", lambda: self._search(request), owner, address)

    def start_pairs(self, request: PairsRequest, *, owner: str, address: str = "") -> str:
        """The id of a job whose result is {"pairs_key": ..., "warning": ...}; partial likewise."""
        check_pairs(request)
        check_score(self.limits, request.text)
        return self._begin("pairs", lambda: self._pairs(request), owner, address)

    def start_repair(self, request: RepairRequest, *, owner: str, address: str = "") -> str:
        """The id of a job whose result is {"repair_key": ..., "warning": ...}; partial likewise."""
        check_repair(request)
        request.plan.check(self.info)
        check_fit(self.limits, request)
        return self._begin("repair", lambda: self._repair(request), owner, address)

    def start_compare(self, request: CompareRequest, *, owner: str, address: str = "") -> str:
        """The id of a job; its result is {"compare_key": ..., "warning": ...}; partial likewise."""
        model, _ = self._loaded()
        check_compare(model, request, self.limits)
        return self._begin("compare", lambda: self._compare(request), owner, address)

    def start_export(self, request: ExportRequest, *, owner: str, address: str = "") -> str:
        """The id of a job whose result is {"export_key": ..., "warning": ...}; partial likewise.

        Where it is written is decided here: the request's folder is not looked at.
        """
        check_export(request)
        request.plan.check(self.info)
        check_score(self.limits, request.evaluation)
        if request.repair is not None:
            check_fit(self.limits, request.repair)
        request = replace(request, n_copies=2, spare_bytes=self.limits.spare_disk_bytes)
        return self._begin("export", lambda: self._export(request, owner), owner, address)

    def start_push(
        self, export_key: str, repo_id: str, token: str, *, is_private: bool, owner: str
    ) -> str:
        """The id of a job whose result is {"pushed": address}. The token is kept no longer."""
        check_repo_id(repo_id)
        found = self.exported(export_key)
        if found is None or found.archive is None or not found.archive.exists():
            raise BadInput(
                f"An export was to be pushed to {repo_id}.",
                "Its file is not there any more.",
                "Write it again, then push it.",
            )
        archive = found.archive
        return self.jobs.submit(
            "push",
            lambda: self._push(archive, repo_id, token, is_private=is_private),
            owner=owner,
            weight="light",
        )

    @property
    def export_root(self) -> Path:
        """Where exports wait to be fetched; whoever knows a file's name there may have it."""
        return self._exports.root

    def export_modes(self, plan: PruningPlan) -> tuple[ModeCard, ...]:
        """What each way of writing a plan would store; empty until the model is in memory."""
        return () if self._model is None else mode_cards(self._model, plan.check(self.info))

    def can_export_as_llama(self) -> bool:
        return self._model is not None and can_be_llama(self._model)

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

    def _begin(self, kind: str, start: Callable[[], Events], owner: str, address: str) -> str:
        """The id of a long job that counts; OverLimit where it is one too many."""
        counted = self._allowance.take(owner, address)
        try:
            return self.jobs.submit(
                kind,
                start,
                owner=owner,
                address=address,
                on_end=lambda state, seconds: self._allowance.is_over(counted, state, seconds),
            )
        except BaseException:
            self._allowance.is_over(counted, "refused", None)
            raise

    def _check_search(self, request: SearchRequest) -> None:
        check_search(request, self.info)
        check_score(self.limits, request.text)
        check_evaluations(self.limits, request, self.info)

    def _load(self, name: str, dtype: str) -> Events:
        model = yield from passing(open_model(name, dtype=dtype))
        windows = yield from passing(open_live_windows(model, self._live_text))
        live = LiveText(model, windows, self.store, self.example)
        yield from passing(steps(live.measure(PruningPlan()), self.lock))
        self._model, self._live, self._repairs = model, live, FittedRepairs(model)
        yield Done(model.info)
