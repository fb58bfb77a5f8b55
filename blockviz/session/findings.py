"""What a table of scores says as a whole, worked out once for every picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blockviz.rankings import (
    Agreement,
    MetricVerdict,
    Stability,
    agreement,
    between,
    disagreement,
    rank_intervals,
    verdicts,
    window_stability,
)
from blockviz.types import BlockId, Judgement, ScoreTable

Intervals = dict[BlockId, tuple[int, int]]


@dataclass(frozen=True)
class Findings:
    """agreement of the metrics; stability of each that has numbers a window; verdicts by what cuts
    really cost, if that was measured; disputed: blocks by how much the metrics differ on them, most
    first."""

    agreement: Agreement
    stability: tuple[Stability, ...]
    verdicts: tuple[MetricVerdict, ...]
    disputed: tuple[tuple[BlockId, float], ...]


def findings_of(table: ScoreTable, judgement: Judgement | None) -> Findings:
    """Everything that follows from the numbers of one table and one judgement."""
    scores = table.metrics
    steadiness = [window_stability(s) for s in scores.values()]
    return Findings(
        agreement=agreement(table),
        stability=tuple(s for s in steadiness if s is not None),
        verdicts=verdicts(table, judgement) if judgement is not None else (),
        disputed=disagreement(table),
    )


def intervals_of(table: ScoreTable) -> dict[str, Intervals]:
    """Metric -> the ranks that each block could have, where an error is known."""
    found = {name: rank_intervals(scores) for name, scores in table.metrics.items()}
    return {name: intervals for name, intervals in found.items() if intervals is not None}


def run_label(table: ScoreTable) -> str:
    """The text, size and seed that a table was scored on, in a few words."""
    data = table.provenance.data
    if data is None:
        return "imported"
    return f"{data.dataset}, {data.n_samples} × {data.seq_len}, seed {data.seed}"


def compare(tables: Sequence[ScoreTable], labels: Sequence[str]) -> dict[str, Any]:
    """JSON of how steady the rankings of several runs are: each in itself, and between them."""
    steadiness = [window_stability(s) for s in tables[0].metrics.values()]
    runs = between(tables, labels).to_json() if len(tables) > 1 else None
    return {
        "schema": "blockviz/stability/1",
        "kind": "comparison",
        "provenance": tables[0].provenance.to_json(),
        "windows": [s.to_json() for s in steadiness if s is not None],
        "runs": runs,
    }
