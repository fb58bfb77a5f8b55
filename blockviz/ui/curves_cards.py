"""Which removal curves belong in one figure: those measured on one text, in one unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blockviz.plots import CurveLine, CurvePoint, FigureCard, removal_curves, visible
from blockviz.session import Visitor
from blockviz.types import (
    BlockId,
    Judgement,
    Measured,
    ModelInfo,
    Provenance,
    RemovedSet,
    SearchRun,
    parts_of,
)
from blockviz.ui.found import is_of
from blockviz.ui.insight_cards import still_true
from blockviz.ui.search_cards import objective_title
from blockviz.ui.words import short

if TYPE_CHECKING:
    from blockviz.session import Engine

HELD_OUT = "held-out"
ROUNDING = 5e-3  # what one perplexity in bfloat16 differs by between two machines
Point = tuple[tuple[BlockId, ...], float]


@dataclass(frozen=True)
class Group:
    """Curves that may stand side by side: one model, one text, one unit.

    lines: name -> its sets in order of size, each with its number; known: every set whose number
    is known on this text.
    """

    key: str
    title: str
    unit_label: str
    baseline: float
    provenance: Provenance
    lines: Mapping[str, tuple[Point, ...]]
    known: Mapping[RemovedSet, float] = field(default_factory=dict)

    def points(self) -> dict[str, str]:
        """Removed set as text -> what it is, each set once."""
        found: dict[str, str] = {}
        for name, line in self.lines.items():
            for removed, number in line:
                said = f"{name}: {len(removed)} removed, {self.unit_label} {short(number)}"
                found.setdefault(as_text(removed), said)
        return found


def groups(engine: Engine, visitor: Visitor) -> dict[str, Group]:
    """Key -> group: the searches by text and objective, the newest first, then the metrics."""
    found: dict[str, list[tuple[str, SearchRun]]] = {}
    for key in reversed(visitor.searches):
        run = engine.search_run(key)
        if run is not None and run.steps and is_of(run, engine.info):
            found.setdefault(_text_key(run), []).append((key, run))
    made = [_of_searches(engine, text, runs) for text, runs in found.items()]
    made += _of_metrics(engine, visitor)
    return {group.key: group for group in made if group.lines}


def card(info: ModelInfo, visitor: Visitor, group: Group, *, is_log: bool) -> FigureCard:
    """The figure of one group, with the visitor's own set where its number is known."""
    removed = visitor.plan().removed
    number = group.known.get(parts_of(removed)) if removed else None

    def drawn(point: Point) -> CurvePoint:
        share = info.parameters_of(point[0]) / info.n_parameters
        return CurvePoint(share, point[1], tuple(str(b) for b in point[0]))

    return removal_curves(
        [CurveLine(name, tuple(map(drawn, line))) for name, line in group.lines.items()],
        baseline=group.baseline,
        unit_label=group.unit_label,
        is_log=is_log,
        current=None if number is None else drawn((removed, number)),
        provenance=group.provenance,
    )


def as_text(removed: Sequence[BlockId]) -> str:
    """`18.attn,7.mlp`, as the marks of the figure send it."""
    return ",".join(str(b) for b in removed)


def _text_key(run: SearchRun) -> str:
    data, of = run.provenance.data, run.provenance
    text = (data.token_hash, data.n_samples, data.seq_len) if data else ()
    return "-".join(map(str, (*text, of.model, of.revision, of.dtype, run.objective)))


def _of_searches(engine: Engine, key: str, runs: Sequence[tuple[str, SearchRun]]) -> Group:
    first, lines, known = runs[0][1], {}, {}
    for run_key, run in runs:
        name, n_same = _short_name(run, run_key), 2
        while name in lines:
            name, n_same = f"{_short_name(run, run_key)} ({n_same})", n_same + 1
        lines[name] = tuple(_line(run))
        known |= {parts_of(removed): number for removed, number in run.measured}
        known |= {parts_of(s.removed): s.number for s in run.steps if s.number is not None}
    data = first.provenance.data
    text = visible(f"{data.describe()}, seed {data.seed}", 120) if data else "unknown text"
    return Group(
        key=key,
        title=f"Searches: {objective_title(engine, first.objective)}, on their text: {text}",
        unit_label=first.unit_label, baseline=first.baseline, provenance=first.provenance,
        lines=lines, known=known,
    )  # fmt: skip


def _short_name(run: SearchRun, key: str) -> str:
    """`greedy, 12 blocks`: what tells the searches on one text apart, short enough for a legend."""
    n = len(run.best.removed) if run.best else 0
    kind = {"attn": "attention", "mlp": "MLP"}.get(run.unit, f"{run.unit}s" if n > 1 else run.unit)
    return f"{run.strategy}, {n} {kind}{' (example)' if key == 'example' else ''}"


def _line(run: SearchRun) -> Iterator[Point]:
    """Of every size that was decided on, the last decision; those never measured are left out."""
    last = {len(step.removed): step for step in run.steps if step.number is not None}
    for size in sorted(last):
        yield last[size].removed, last[size].number


def _of_metrics(engine: Engine, visitor: Visitor) -> list[Group]:
    judgement = engine.judgement(visitor.judgement_key)
    table = engine.table(visitor.table_key) if visitor.table_key else None
    if judgement is None or table is None or not is_of(judgement, engine.info):
        return []
    curves = still_true(judgement, table)
    lines = {
        visible(table.metrics[name].title): tuple((m.removed, m.perplexity) for m in curve)
        for name, curve in curves.items()
    }
    data = judgement.provenance.data
    text = visible(data.describe(), 120) if data else "held-out text"
    text += ", bundled" if visitor.judgement_key == "example" else ""
    return [Group(
        key=HELD_OUT, title=f"Metrics' lowest blocks, on held-out text: {text}",
        unit_label="perplexity", baseline=judgement.whole.perplexity,
        provenance=judgement.provenance, lines=lines,
        known=_held_out(engine, visitor, judgement),
    )]  # fmt: skip


def _held_out(engine: Engine, visitor: Visitor, judgement: Judgement) -> dict[RemovedSet, float]:
    """Every set with a perplexity on the judgement's text; the scoreboard's if it is that text."""
    sets: list[Measured] = [*judgement.singles.values()]
    sets += [m for curve in judgement.curves.values() for m in curve]
    known = {parts_of(m.removed): m.perplexity for m in sets}
    plan, data = visitor.plan(), judgement.provenance.data
    live = engine.known(plan)
    if live and data and live.data == data.describe():
        is_same = math.isclose(live.baseline, judgement.whole.perplexity, rel_tol=ROUNDING)
        known |= {parts_of(plan.removed): live.perplexity} if is_same else {}
    return known
