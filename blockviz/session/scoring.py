"""Every metric that is asked for, as one table: one sweep, one pass, and runs of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from blockviz.data import check_tasks, letter_prompts, load_tasks
from blockviz.engine import SetRunner, SweepResult, sweep, weights_and_gradients, weights_of
from blockviz.errors import BadInput
from blockviz.evaluate import check_questions, score_removals
from blockviz.metrics import (
    AblationMetric,
    ActivationMetric,
    GameMetric,
    Metric,
    TaskMetric,
    WeightMetric,
    parse_metrics,
)
from blockviz.models.model import BlockModel
from blockviz.session.fitting import only, possible
from blockviz.session.kept import KeptResults
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.views import ScoreRequest
from blockviz.types import (
    UNITS,
    BlockId,
    CalibrationSet,
    Done,
    Events,
    NotFinite,
    Progress,
    Scores,
    ScoreTable,
    TaskSet,
    TaskTable,
    passing,
)


def check_request(request: ScoreRequest) -> dict[str, Metric]:
    """The metrics of a request whose settings are all possible; BadInput or UnknownName if not."""
    for value, allowed, name in (
        (request.unit, UNITS, "unit"),
        (request.engine, ("fast", "reference"), "engine"),
        (request.mode, ("stream", "per_sample"), "calibration mode"),
    ):
        if value not in allowed:
            raise BadInput(
                f"The {name} {value!r} was asked for.",
                f"There is no such {name}.",
                f"Use {', '.join(allowed)}.",
            )
    if request.tasks:
        check_tasks((request.tasks,), limit=request.limit)
    return parse_metrics(request.metrics, has_tasks=bool(request.tasks))


def score_request(
    model: BlockModel, request: ScoreRequest, kept: KeptResults | None = None
) -> Events:
    """Done(ScoreTable) of a request; a partial table after every batch of windows.

    kept: evaluations of earlier runs, to which those of this one are added.
    """
    metrics = check_request(request)
    windows = yield from passing(open_windows(model, request))
    tasks = None
    if any(m.needs_tasks() for m in metrics.values()):
        tasks = yield from passing(load_tasks(request.tasks, limit=request.limit))
    yield from score_windows(model, windows, metrics, request, tasks=tasks, kept=kept)


def score_windows(
    model: BlockModel,
    windows: CalibrationSet,
    metrics: Mapping[str, Metric],
    request: ScoreRequest,
    *,
    tasks: TaskSet | None = None,
    kept: KeptResults | None = None,
) -> Events:
    """Done(ScoreTable) of metrics on given windows and, for those that need one, a task."""
    wanted = possible(model, windows, metrics, request.metrics)
    if tasks is not None:
        check_questions(model, tasks)
    run = _Run(model, windows, wanted, request, tasks, kept)
    for stage in (run.weights, run.text, run.prompts, run.gradients, run.games, run.tasks_masked):
        with contextlib.closing(stage()) as events:
            try:
                yield from events
            except NotFinite as error:
                raise BadInput(
                    f"The metrics {', '.join(wanted)} were to score every block.",
                    f"{error}.",
                    "Load the model in bfloat16 or float32, or leave that metric out.",
                ) from error
    yield Done(run.table())


@dataclass
class _Run:
    """One scoring run: the stages in the order of what they cost, and the scores so far."""

    model: BlockModel
    windows: CalibrationSet
    metrics: dict[str, Metric]
    request: ScoreRequest
    tasks: TaskSet | None
    kept: KeptResults | None
    found: dict[str, Scores] = field(default_factory=dict)

    def table(self, n_windows: int | None = None) -> ScoreTable:
        """The scores so far; partial if one is missing or on fewer windows than asked for."""
        origin = self.windows.origin
        if n_windows is not None:
            n_tokens = int(self.windows.attention_mask[:n_windows].sum())
            origin = replace(origin, n_samples=n_windows, n_tokens=n_tokens)
        ordered = {name: self.found[name] for name in self.metrics if name in self.found}
        is_partial = n_windows is not None or len(ordered) < len(self.metrics)
        return ScoreTable(provenance_of(self.model, origin), ordered, is_partial=is_partial)

    def of(self, *kinds: type[Metric]) -> dict[str, Metric]:
        return {name: m for name, m in self.metrics.items() if isinstance(m, kinds)}

    def blocks(self, metric: Metric) -> tuple[BlockId, ...]:
        return self.model.info.units(metric.unit_for(self.request.unit))

    def keep(self, name: str, scores: Scores, started: float, **more: object) -> None:
        self.found[name] = replace(
            scores,
            parameters={**scores.parameters, **more},
            seconds=round(time.perf_counter() - started, 3),
        )

    def weights(self) -> Iterator[Progress]:
        for name, metric in self.of(WeightMetric).items():
            if not metric.needs_gradient:
                started = time.perf_counter()
                yield Progress("weights", 0, 1, name)
                source = weights_of(self.model, self.blocks(metric))
                self.keep(name, metric.score(source), started)

    def text(self) -> Iterator[Progress]:
        """The one sweep, and the one pass that it begins with."""
        ablations = self.of(AblationMetric)
        passes = {n: m for n, m in self.of(ActivationMetric).items() if not m.reads_prompts()}
        if not ablations and not passes:
            return
        started = time.perf_counter()
        events = sweep(
            self.model,
            self.windows,
            tuple(ablations.values()),
            candidates=self._candidates(ablations),
            engine=self.request.engine,
            kept=self.kept,
            **self._wanted(passes),
        )
        n_windows: int | None = None
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    self._count(event.result)
                    return
                partial = None
                if event.partial is not None:
                    found: SweepResult = event.partial
                    self._take(found, ablations, passes, started)
                    is_whole = found.n_windows == len(self.windows)
                    n_windows = None if is_whole else found.n_windows
                    partial = self.table(n_windows)
                yield replace(event, partial=partial)

    def prompts(self) -> Iterator[Progress]:
        """One pass over a task's prompts."""
        metrics = {n: m for n, m in self.of(ActivationMetric).items() if m.reads_prompts()}
        if not metrics:
            return
        started = time.perf_counter()
        prompts = letter_prompts(
            self.tasks,
            self.model.tokenizer,
            max_seq_len=self.model.info.max_seq_len,
            n_rows=self.model.info.vocab_size,
        )
        events = sweep(
            self.model, prompts.windows, (), candidates=(), prompts=prompts, **self._wanted(metrics)
        )
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    self._take(event.result, {}, metrics, started, **self._task())
                else:
                    yield replace(event, stage="prompts", partial=None)

    def gradients(self) -> Iterator[Progress]:
        for name, metric in self.of(WeightMetric).items():
            if metric.needs_gradient:
                started = time.perf_counter()
                n = min(metric.n, len(self.windows))
                events = weights_and_gradients(self.model, self._first(n), self.blocks(metric))
                source = yield from passing(events)
                self.keep(name, metric.score(source), started)

    def games(self) -> Iterator[Progress]:
        for name, metric in self.of(GameMetric).items():
            started = time.perf_counter()
            blocks = self.blocks(metric)
            runner = SetRunner(self.model, self._first(metric.n_windows(len(self.windows))))
            total, done = metric.n_sets(len(blocks)), 0
            game, answer = metric.play(blocks), None
            while True:
                try:
                    removed = game.send(answer)
                except StopIteration as over:
                    self.keep(name, over.value, started)
                    break
                losses = []
                for batch in range(len(runner)):
                    losses.append(self._losses(runner, batch, removed))
                    done += 1 / len(runner)
                    yield Progress(name, round(done, 2), total, f"{len(removed)} removed")
                answer = torch.cat(losses)
            yield Progress(name, total, total, partial=self.table())

    def tasks_masked(self) -> Iterator[Progress]:
        """A task's answers with each block masked in turn."""
        metrics = self.of(TaskMetric)
        if not metrics:
            return
        started = time.perf_counter()
        blocks = self.model.info.units(self.request.unit)
        with contextlib.closing(score_removals(self.model, self.tasks, blocks)) as events:
            for event in events:
                if not isinstance(event, Done):
                    yield replace(event, partial=None)  # answers so far, not a table of scores
                    continue
                plan, without = event.result.plan, event.result.without
                table = TaskTable(plan.correct, {b: r.correct for b, r in without.items()})
                for name, metric in metrics.items():
                    self.keep(name, metric.score(table), started, **self._task())

    def _candidates(self, metrics: Mapping[str, Metric]) -> tuple[BlockId, ...]:
        """Every block that one of them scores."""
        blocks = dict.fromkeys(b for metric in metrics.values() for b in self.blocks(metric))
        return tuple(blocks)

    def _wanted(self, metrics: Mapping[str, ActivationMetric]) -> dict[str, object]:
        """What the dense pass has to gather, and for which blocks."""
        statistics: dict[type, dict[BlockId, None]] = {}
        passes: dict[object, dict[BlockId, None]] = {}
        for metric in metrics.values():
            blocks = dict.fromkeys(self.blocks(metric))
            for kind in metric.needs:
                statistics.setdefault(kind, {}).update(blocks)
            for asked in metric.passes():
                passes.setdefault(asked, {}).update(blocks)
        return {
            "statistics": {kind: tuple(blocks) for kind, blocks in statistics.items()},
            "passes": {asked: tuple(blocks) for asked, blocks in passes.items()},
        }

    def _take(
        self,
        found: SweepResult,
        ablations: Mapping[str, AblationMetric],
        passes: Mapping[str, ActivationMetric],
        started: float,
        **more: object,
    ) -> None:
        for table, (name, metric) in zip(found.tables, ablations.items(), strict=True):
            values = {b: table.values[b] for b in self.blocks(metric)}
            self.keep(name, metric.score(replace(table, values=values)), started, **more)
        for name, metric in passes.items():
            if all(asked in found.statistics.passes for asked in metric.passes()):
                source = only(found.statistics, self.blocks(metric))
                self.keep(name, metric.score(source), started, **more)

    def _losses(self, runner: SetRunner, batch: int, removed: Sequence[BlockId]) -> torch.Tensor:
        if self.kept is None:
            return runner.nll_of_batch(batch, removed)
        return self.kept.losses(runner, batch, removed)

    def _count(self, found: SweepResult) -> None:
        if self.kept is not None:
            self.kept.n_evaluated += found.n_evaluated
            self.kept.n_reused += found.n_reused

    def _first(self, n: int) -> CalibrationSet:
        return replace(
            self.windows,
            input_ids=self.windows.input_ids[:n],
            attention_mask=self.windows.attention_mask[:n],
        )

    def _task(self) -> dict[str, object]:
        tasks = self.tasks
        return {"task": tasks.name, "rows": len(tasks), "task_hash": tasks.hash[:16]}
