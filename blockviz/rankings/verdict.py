"""Who is right: each metric's ranking against what the cuts really cost on held-out text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blockviz.errors import BadInput
from blockviz.rankings.kendall import as_rows, n_shared, tau_b
from blockviz.rankings.stability import model_of
from blockviz.types import Judgement, Measured, Scores, ScoreTable, Unit


@dataclass(frozen=True)
class MetricVerdict:
    """How well one metric foretold the measured cuts. None = could not be judged by that.

    tau: tau-b of its importance with the loss of `n_blocks` single cuts, 1 = the same order; low,
    high: 90 % interval over held-out windows (None for a single window).
    rise: mean nats of loss over the whole model along its first `n_removals` cumulative cuts;
    regret: that minus the smallest such mean of any metric that cuts the same `unit`, 0 = the best.
    """

    metric: str
    title: str
    unit: Unit
    n_blocks: int
    tau: float | None = None
    low: float | None = None
    high: float | None = None
    n_removals: int = 0
    rise: float | None = None
    regret: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MetricVerdict:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def verdicts(
    table: ScoreTable, judgement: Judgement, *, n_boot: int = 200, seed: int = 0
) -> tuple[MetricVerdict, ...]:
    """Every metric of a table, the highest tau first; equal ones by regret, the unjudged last.

    A layer metric is held against single cuts of layers, if they were measured. The interval comes
    from resampled windows, the same for every metric. Resampling adds noise, which draws every tau
    towards 0, so the draws are moved until their median is the tau. It says how far another text of
    that size could move the tau, and nothing of the noise in the metric itself. A curve that is
    missing, or whose cuts are not the lowest blocks of this ranking, gives no regret. BadInput
    where the judgement is of another model.
    """
    _check_model(table, judgement)
    scores = tuple(table.metrics.values())
    known = set().union(*(s.values for s in scores))
    blocks = sorted(known & set(judgement.singles))
    rows = as_rows([s.values for s in scores], blocks)
    losses = np.array([judgement.singles[b].nll for b in blocks], dtype=np.float64)
    losses = losses.reshape(len(blocks), len(judgement.whole.nll))
    measured = losses.mean(axis=1)[None]
    tau, n_blocks = tau_b(rows, measured)[:, 0], n_shared(rows, measured)[:, 0]
    low, high = _interval(rows, losses, tau, n_boot=n_boot, seed=seed)
    standings = _regrets(table.metrics, judgement)
    found = [
        MetricVerdict(
            metric=name,
            title=s.title,
            unit=unit_of(s),
            n_blocks=int(n_blocks[i]),
            tau=_or_none(tau[i]),
            low=_or_none(low[i]),
            high=_or_none(high[i]),
            **standings.get(name, {}),
        )
        for i, (name, s) in enumerate(table.metrics.items())
    ]
    return tuple(sorted(found, key=_standing))


def unit_of(scores: Scores) -> Unit:
    """The unit that a metric ranks: `attn`, `mlp` or `layer` where all are, otherwise `block`."""
    parts = {b.part for b in scores.values}
    return parts.pop() if len(parts) == 1 else "block"


def _check_model(table: ScoreTable, judgement: Judgement) -> None:
    ours, theirs = model_of(table.provenance), model_of(judgement.provenance)
    if ours != theirs:
        raise BadInput(
            f"The metrics of {ours} were to be judged.",
            f"The measured cuts are of {theirs}.",
            "Measure the cuts of the model that was scored.",
        )


def _interval(
    rows: np.ndarray, losses: np.ndarray, tau: np.ndarray, *, n_boot: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(metric,) twice: 5th and 95th percentile of tau over resampled windows of `losses`."""
    n_windows = losses.shape[1]
    if n_windows < 2 or not n_boot:
        return np.full_like(tau, np.nan), np.full_like(tau, np.nan)
    even = np.full(n_windows, 1 / n_windows)
    weights = np.random.default_rng(seed).multinomial(n_windows, even, size=n_boot) / n_windows
    with np.errstate(invalid="ignore"):
        draws = tau_b(rows, weights @ losses.T)
    low, high = np.full_like(tau, np.nan), np.full_like(tau, np.nan)
    for i, row in enumerate(draws):
        drawn = row[np.isfinite(row)]
        if drawn.size:
            low[i], middle, high[i] = np.percentile(drawn, (5, 50, 95))
            shift = tau[i] - middle
            low[i], high[i] = low[i] + shift, high[i] + shift
    return np.clip(low, -1, 1), np.clip(high, -1, 1)


def _regrets(metrics: Mapping[str, Scores], judgement: Judgement) -> dict[str, dict[str, Any]]:
    """n_removals, rise and regret of each metric whose curve says something."""
    own = {name: _own_curve(s, judgement.curves.get(name, ())) for name, s in metrics.items()}
    found: dict[str, dict[str, Any]] = {}
    for unit in {unit_of(s) for s in metrics.values()}:
        curves = {n: c for n, c in own.items() if c and unit_of(metrics[n]) == unit}
        lengths = [len(c) for c in curves.values()]
        # A cancelled run leaves curves of different lengths: use the most measured points.
        k = max(lengths, key=lambda k: (k * sum(n >= k for n in lengths), k), default=0)
        rises = {n: _mean_rise(c[:k], judgement.whole) for n, c in curves.items() if len(c) >= k}
        finite = {n: rise for n, rise in rises.items() if math.isfinite(rise)}
        for name, rise in finite.items():
            regret = rise - min(finite.values())
            found[name] = {"n_removals": k, "rise": rise, "regret": regret}
    return found


def _own_curve(scores: Scores, curve: Sequence[Measured]) -> tuple[Measured, ...]:
    """The curve as far as it removes the lowest blocks of this very ranking, one by one."""
    for k, point in enumerate(curve, start=1):
        gone = {part for b in point.removed for part in b.parts}
        removed = [b for b in scores.values if gone.issuperset(b.parts)]
        kept = [v for b, v in scores.values.items() if not gone.intersection(b.parts)]
        highest = max((scores.values[b] for b in removed), default=-math.inf)
        if len(removed) != k or highest > min(kept, default=math.inf):
            return tuple(curve[: k - 1])
    return tuple(curve)


def _mean_rise(curve: Sequence[Measured], whole: Measured) -> float:
    return math.fsum(point.mean_nll - whole.mean_nll for point in curve) / len(curve)


def _standing(verdict: MetricVerdict) -> tuple[float, float]:
    tau = -math.inf if verdict.tau is None else verdict.tau
    return -tau, math.inf if verdict.regret is None else verdict.regret


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
