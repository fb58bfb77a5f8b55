"""The long tasks of the engine: each ends in a result that is kept under a key."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from blockviz.compute_lock import ComputeLock, steps
from blockviz.data import load_tasks, overlap_warning
from blockviz.errors import BadInput, BadSource
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.session.compare_views import CompareRequest
from blockviz.session.comparing import compare_request
from blockviz.session.example import Example
from blockviz.session.export_views import ExportRequest
from blockviz.session.exporting import export_request
from blockviz.session.exports import Exported, Exports, archive, archive_name
from blockviz.session.fitted_repairs import FittedRepairs
from blockviz.session.judging import check_table, judge_windows
from blockviz.session.kept import KeptResults, Shelf
from blockviz.session.ledger import Ledger, open_ledger
from blockviz.session.live import LiveText
from blockviz.session.objectives import objective_metric
from blockviz.session.opening import open_windows
from blockviz.session.pairing import pairs_windows, road_of
from blockviz.session.refusals import out_of_time
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import repair_request
from blockviz.session.results import Results, Scored
from blockviz.session.scoring import check_request, score_windows
from blockviz.session.search_views import PairsRequest, SearchRequest
from blockviz.session.searching import search_windows
from blockviz.session.views import Limits, ScoreRequest
from blockviz.sources.hub_push import push_archive
from blockviz.store import Store, key
from blockviz.types import (
    Comparison,
    Done,
    Events,
    ExportReport,
    Interactions,
    Judgement,
    ModelInfo,
    Progress,
    PruningPlan,
    RepairTable,
    ScoreTable,
    SearchRun,
    passing,
)


class Work(Results):
    """What runs for long. The compute lock is held step by step, and time may be limited."""

    limits: Limits
    lock: ComputeLock
    _shelf: Shelf
    _exports: Exports
    # Where evaluations outlive the process; None: nowhere.
    _records: Path | None

    def __init__(self, store: Store, example: Example) -> None:
        super().__init__(store, example)
        self._model: BlockModel | None = None
        self._live: LiveText | None = None
        # Of the model in memory: what Repair fits, Compare shows and Export writes.
        self._repairs: FittedRepairs | None = None

    @property
    def info(self) -> ModelInfo:
        """Of the model in memory, or of the example's until one is."""
        return self._model.info if self._model else self.example.info

    def _loaded(self) -> tuple[BlockModel, LiveText]:
        """The model in memory and its live text; BadSource while there is none."""
        if self._model is None or self._live is None:
            raise BadSource(
                "The model was to be run.",
                "Its weights are not in memory yet.",
                "Wait for the loading to end; single cuts of the example are answered meanwhile.",
            )
        return self._model, self._live

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

    def _judge(self, table_key: str, before: str, n_removals: int) -> Iterator[Progress | Done]:
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
        judged = judge_windows(
            model, table, live.windows, n_removals=n_removals, kept=kept,
            before=self.judgement(before),
        )  # fmt: skip

        def keep(judgement: Judgement) -> dict[str, str]:
            where = key("judgement", judgement.provenance, table_key, n_removals)
            self.store.put(where, judgement)
            return {"judgement_key": where, "warning": ""}

        yield from self._limited(judged, keep)

    def _search(self, request: SearchRequest) -> Iterator[Progress | Done]:
        model, live = self._loaded()
        windows = yield from passing(open_windows(model, request.text))
        warning = overlap_warning(windows, live.windows)
        ledger = self._ledger(model, objective_metric(request), request.engine)
        found = search_windows(model, windows, request, ledger)

        def keep(run: SearchRun) -> dict[str, str]:
            where = key("search", run.provenance, request)
            self.store.put(where, run)
            said = " ".join(filter(None, (warning, run.warning)))
            return {"search_key": where, "warning": said}

        yield from self._limited(found, keep)

    def _pairs(self, request: PairsRequest) -> Iterator[Progress | Done]:
        model, _ = self._loaded()
        windows = yield from passing(open_windows(model, request.text))
        ledger = self._ledger(model, parse_metric("ppl"), road_of(request))
        found = pairs_windows(model, windows, request, ledger)

        def keep(interactions: Interactions) -> dict[str, str]:
            where = key("pairs", interactions.provenance, request)
            self.store.put(where, interactions)
            return {"pairs_key": where, "warning": ""}

        yield from self._limited(found, keep)

    def _repair(self, request: RepairRequest) -> Iterator[Progress | Done]:
        model, _ = self._loaded()

        def keep(table: RepairTable) -> dict[str, str]:
            asked = replace(request, plan=PruningPlan(table.removed))
            where = key("repair", table.provenance, table.evaluation, asked)
            self.store.put(where, table)
            return {"repair_key": where, "warning": table.warning}

        yield from self._limited(repair_request(model, request, known=self._repairs), keep)

    def _compare(self, request: CompareRequest) -> Iterator[Progress | Done]:
        model, _ = self._loaded()

        def keep(found: Comparison) -> dict[str, str]:
            made = (found.provenance, found.evaluation, list(map(str, found.removed)))
            where = key("compare", *made, found.settings)
            self.store.put(where, found)
            return {"compare_key": where, "warning": found.warning}

        found = compare_request(model, request, self.limits, self._repairs)
        yield from self._limited(found, keep)

    def _export(self, request: ExportRequest, owner: str) -> Iterator[Progress | Done]:
        """The folder of the request is one of ours, whatever was asked."""
        model, _ = self._loaded()
        place = self._exports.begin(owner)
        n_removed, n_blocks = len(request.plan.removed), len(model.info.blocks)
        of = archive_name(model.info.name, n_removed, n_blocks, request.mode)
        asked = replace(request, folder=place / of)

        def exported() -> Iterator[Progress | Done]:
            report = yield from passing(export_request(model, asked, self._repairs))
            yield from archive(asked.folder, report)

        def keep(found: Exported | ExportReport) -> dict[str, str]:
            whole = found if isinstance(found, Exported) else Exported(found)
            where = key("export", place.name)
            self.store.put(where, whole)
            return {"export_key": where, "warning": ""}

        is_there = False
        try:
            for event in self._limited(exported(), keep):
                is_there = isinstance(event, Done)
                yield event
        finally:
            (self._exports.finish if is_there else self._exports.drop)(place)

    def _push(
        self, archive: Path, repo_id: str, token: str, *, is_private: bool
    ) -> Iterator[Progress | Done]:
        address = yield from passing(push_archive(archive, repo_id, token, is_private=is_private))
        yield Done({"pushed": address})

    def _ledger(self, model: BlockModel, metric: Any, engine: str) -> Ledger:
        return open_ledger(model, metric, engine=engine, folder=self._records)

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
                    ended = f"stopped at the limit of {minutes:.0f} min; what was done is kept"
                    said = [f"S{ended[1:]}.", kept.get("warning", "")]
                    yield Done({**kept, "warning": " ".join(filter(None, said)), "ended": ended})
                    return

    def _asked(self, request: ScoreRequest) -> str:
        return key("asked", self.model_key, self.info.dtype, request)

    def _scored(self, request: ScoreRequest) -> str | None:
        """The key of the whole table that this request gave before, if it is still kept."""
        table_key = self.store.get(self._asked(request))
        return table_key if table_key and self.table(table_key) is not None else None

    def _keep(self, table: ScoreTable, request: ScoreRequest) -> str:
        table_key = key("scores", table.provenance, request)
        self.store.put(table_key, Scored(table, request))
        return table_key
