"""What has been found so far, asked for by key: tables, judgements, and what they say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from blockviz.corrections import CORRECTIONS
from blockviz.data import task_sources
from blockviz.errors import BadInput
from blockviz.metrics import METRICS, AblationMetric, GameMetric, TaskMetric
from blockviz.rankings import Between, between, read_scores, tied_with
from blockviz.search import PRESETS, STRATEGIES
from blockviz.session.example import Example, load_contest
from blockviz.session.exports import Exported
from blockviz.session.findings import Findings, Intervals, findings_of, intervals_of, run_label
from blockviz.session.recipe_file import scoring_to_json
from blockviz.session.repair_views import CorrectionCard
from blockviz.session.search_views import PresetCard, StrategyCard
from blockviz.session.views import MetricCard, ScoreRequest
from blockviz.store import Store, key
from blockviz.types import (
    BlockId,
    Comparison,
    Contest,
    Interactions,
    Judgement,
    Lens,
    ModelInfo,
    RepairTable,
    ScoreTable,
    SearchRun,
)


@dataclass(frozen=True)
class Scored:
    """Scores as they are kept, and what was asked; request: None where nobody asked us."""

    table: ScoreTable
    request: ScoreRequest | None


class Results:
    """The reading side of the engine. `example` names what ships with the app."""

    def __init__(self, store: Store, example: Example) -> None:
        self.store, self.example = store, example

    @property
    def info(self) -> ModelInfo:
        """Of the model in memory, or of the example's until one is."""
        return self.example.info

    @property
    def model_key(self) -> str:
        """Changes when another model is loaded; a visitor's plan belongs to one key."""
        return f"{self.info.name}@{self.info.revision}"

    def metrics(self) -> tuple[MetricCard, ...]:
        return tuple(
            MetricCard(
                name=c.name,
                title=c.title,
                meaning=c.meaning,
                reference=c.reference,
                unit_label=c.unit_label,
                citation=c.citation,
                units=c.units,
                cost=c.cost,
                needs_tasks=c.wants_tasks,
                is_quick=not issubclass(c, GameMetric | TaskMetric),
                formula=c.formula,
                sees=c.sees,
                misses=c.misses,
            )
            for c in METRICS.classes()
        )

    def tasks(self) -> tuple[str, ...]:
        """Names of the question sets that come without a file."""
        return tuple(task_sources())

    def table(self, table_key: str) -> ScoreTable | None:
        """The scores of the example, or those that a finished job named; None if forgotten."""
        if table_key == "example":
            return self.example.table if self.shows_example() else None
        found: Scored | None = self.store.get(table_key)
        return found.table if found else None

    def scoring(self, table_key: str) -> dict[str, Any]:
        """How a table was scored, as a recipe says it; empty where that is not known."""
        table, request = self.table(table_key), self._request_of(table_key)
        return scoring_to_json(request, table) if table and request else {}

    def judgement(self, judgement_key: str) -> Judgement | None:
        """What cuts cost of the example, or what a finished job named; None if forgotten."""
        if judgement_key == "example":
            return self.example.judgement if self.shows_example() else None
        return self.store.get(judgement_key)

    def strategies(self) -> tuple[StrategyCard, ...]:
        """The search strategies."""
        names = ("name", "title", "meaning", "reference", "citation", "units", "wants",
                 "is_experimental")  # fmt: skip
        return tuple(
            StrategyCard(**{name: getattr(cls, name) for name in names})
            for cls in STRATEGIES.classes()
        )

    def presets(self) -> tuple[PresetCard, ...]:
        """The papers' recipes."""
        names = PresetCard.__dataclass_fields__
        return tuple(PresetCard(**{name: getattr(p, name) for name in names}) for p in PRESETS)

    def objectives(self) -> tuple[MetricCard, ...]:
        """The metrics that any removed set can be measured by."""
        able = {c.name for c in METRICS.classes() if issubclass(c, AblationMetric | TaskMetric)}
        return tuple(card for card in self.metrics() if card.name in able)

    def search_run(self, search_key: str) -> SearchRun | None:
        """The search of the example, or one that a finished job named; None if forgotten."""
        if search_key == "example":
            return self.example.search if self.shows_example() else None
        return self.store.get(search_key)

    def interactions(self, pairs_key: str) -> Interactions | None:
        """The pairs of the example, or those that a finished job named; None if forgotten."""
        if pairs_key == "example":
            return self.example.interactions if self.shows_example() else None
        return self.store.get(pairs_key)

    def correction_cards(self) -> tuple[CorrectionCard, ...]:
        """The corrections, as they are with their default settings."""
        names = CorrectionCard.__dataclass_fields__
        made = [cls() for cls in CORRECTIONS.classes()]
        return tuple(CorrectionCard(**{name: getattr(c, name) for name in names}) for c in made)

    def repair_table(self, repair_key: str) -> RepairTable | None:
        """The corrections of the example, or those that a finished job named; None if forgotten."""
        if repair_key == "example":
            return self.example.repair if self.shows_example() else None
        return self.store.get(repair_key)

    @cached_property
    def contest(self) -> Contest | None:
        """Every recipe on the demo model, as it ships with the app."""
        return load_contest()

    def comparison(self, compare_key: str) -> Comparison | None:
        """The columns that a finished job named; None if forgotten."""
        return self.store.get(compare_key)

    def exported(self, export_key: str) -> Exported | None:
        """What a finished job wrote, or the checks of a running one; None if forgotten."""
        return self.store.get(export_key)

    @property
    def example_lens(self) -> Lens | None:
        """The early exits of the example's text."""
        return self.example.lens if self.shows_example() else None

    def findings(self, table_key: str, judgement_key: str) -> Findings | None:
        """What a table says as a whole; worked out once it is whole. None without a table."""
        table, judgement = self.table(table_key), self.judgement(judgement_key)
        if table is None:
            return None
        where = key("findings", self.model_key, table_key, judgement_key)
        grows = table.is_partial or (judgement is not None and judgement.is_partial)
        return self._once(where, lambda: findings_of(table, judgement), grows=grows)

    def intervals(self, table_key: str) -> dict[str, Intervals]:
        """Metric -> the ranks that each block could have on another draw of the text."""
        table = self.table(table_key)
        if table is None:
            return {}
        where = key("intervals", self.model_key, table_key)
        return self._once(where, lambda: intervals_of(table), grows=table.is_partial)

    def tied(self, table_key: str, metric: str, block: BlockId) -> tuple[BlockId, ...]:
        """The blocks that a metric cannot tell from this one; none where no error is known."""
        table = self.table(table_key)
        scores = table.metrics.get(metric) if table else None
        if scores is None:
            return ()
        found = [b for b in (block, BlockId(block.layer, "layer")) if b in scores.values]
        return (tied_with(scores, found[0]) or ()) if found else ()

    def compared(self, table_keys: Sequence[str]) -> Between | None:
        """How the rankings of several runs on one model agree; None with fewer than two."""
        tables = [t for t in map(self.table, dict.fromkeys(table_keys)) if t is not None]
        if len(tables) < 2:
            return None
        return between(tables, [run_label(t) for t in tables])

    def import_scores(self, data: object, name: str, table_key: str) -> str:
        """The key of a table with imported metrics as extra rows; BadInput if they do not fit."""
        table = self.table(table_key)
        if table is None and table_key not in ("", "example"):
            raise BadInput(
                f"The scores of {name} were to be added to those of this page.",
                "Those are not kept any more.",
                "Score the blocks again, then add the file.",
            )
        found = read_scores(data, self.info, name=name)
        if table is not None:
            found = replace(table, metrics={**table.metrics, **found.metrics})
        where = key("imported", table_key, found.to_json()["metrics"])
        self.store.put(where, Scored(found, self._request_of(table_key)))
        return where

    def _request_of(self, table_key: str) -> ScoreRequest | None:
        if table_key == "example":
            return self.example.request
        found: Scored | None = self.store.get(table_key)
        return found.request if found else None

    def _once(self, where: str, work_out: Callable[[], Any], *, grows: bool) -> Any:
        """Kept under a key, unless what it follows from still grows under that same key."""
        if grows:
            return work_out()
        found = self.store.get(where)
        if found is None:
            found = work_out()
            self.store.put(where, found)
        return found

    def shows_example(self) -> bool:
        """Whether the model in memory is the example's."""
        mine, info = self.example.info, self.info
        return (mine.name, mine.revision) == (info.name, info.revision)
