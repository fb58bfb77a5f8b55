"""How much a ranking owes to its windows: other windows of one run, and other runs altogether."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blockviz.errors import BadInput
from blockviz.rankings.intervals import window_rows
from blockviz.rankings.kendall import MIN_BLOCKS, as_rows, tau_b
from blockviz.types import Provenance, Scores, ScoreTable

SCHEMA = "blockviz/stability/1"


@dataclass(frozen=True)
class Stability:
    """Tau-b between the ranking of some windows and that of all the others, by how many there are.

    sizes (size,) numbers of windows; mean, low, high (size,) float over the draws: their mean, 5th
    and 95th percentile.
    """

    metric: str
    title: str
    n_blocks: int
    n_windows: int
    n_draws: int
    seed: int
    sizes: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        return {"schema": SCHEMA, "kind": "windows", **lists}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Stability:
        found = {name: data[name] for name in cls.__dataclass_fields__}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


def window_stability(scores: Scores, *, n_draws: int = 20, seed: int = 0) -> Stability | None:
    """Agreement of 1, 2, 4, ... random windows with all the others, up to half of them.

    The two sides never share a window, so the tau does not flatter; the other side is noisy too,
    so it does not reach 1 either. Beyond half the windows it would only mirror itself. A draw in
    which one side ties every block orders nothing, and counts as 0. None where the metric has no
    numbers for each window, or fewer than two windows or three blocks.
    """
    rows = window_rows(scores)
    if rows is None or len(rows) < MIN_BLOCKS:
        return None
    n_windows = rows.shape[1]
    sizes = tuple(2**i for i in range((n_windows // 2).bit_length()))
    generator = np.random.default_rng(seed)
    taus = np.array([_drawn(rows, size, n_draws, generator) for size in sizes])
    low, high = np.percentile(taus, (5, 95), axis=1)
    return Stability(
        metric=scores.metric,
        title=scores.title,
        n_blocks=len(rows),
        n_windows=n_windows,
        n_draws=n_draws,
        seed=seed,
        sizes=sizes,
        mean=tuple(taus.mean(axis=1).tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )


def _drawn(rows: np.ndarray, size: int, n_draws: int, generator: np.random.Generator) -> np.ndarray:
    """(n_draws,) tau-b of `size` windows with the rest; rows (block, window)."""
    taus = np.empty(n_draws)
    for i in range(n_draws):
        shuffled = generator.permutation(rows.shape[1])
        some = rows[:, shuffled[:size]].mean(axis=1)
        rest = rows[:, shuffled[size:]].mean(axis=1)
        taus[i] = tau_b(some[None], rest[None])[0, 0]
    return np.nan_to_num(taus, nan=0.0)


@dataclass(frozen=True, eq=False)
class Between:
    """How alike one metric ranks in several runs, for each metric.

    labels  (run,) str
    tau     (metric, run, run) float64 tau-b; NaN where a run lacks the metric, where two share
            fewer than 3 blocks, or where one ties them all
    mean    (metric,) float64, mean of tau over pairs of different runs that have one; NaN if none
    differ  names of metrics whose parameters are not the same in every run: part of what parts
            their rankings is not the text
    """

    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    titles: tuple[str, ...]
    tau: np.ndarray
    mean: np.ndarray
    differ: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON has no NaN: an absent tau is null."""
        metrics = {
            name: {
                "title": self.titles[i],
                "tau": [[_or_null(v) for v in row] for row in self.tau[i]],
                "mean": _or_null(self.mean[i]),
                "has_other_parameters": name in self.differ,
            }
            for i, name in enumerate(self.metrics)
        }
        return {"schema": SCHEMA, "kind": "runs", "runs": list(self.labels), "metrics": metrics}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Between:
        found, n = data["metrics"], len(data["runs"])
        tau = np.array([m["tau"] for m in found.values()], dtype=np.float64)
        return cls(
            labels=tuple(data["runs"]),
            metrics=tuple(found),
            titles=tuple(m["title"] for m in found.values()),
            tau=tau.reshape(len(found), n, n),
            mean=np.array([m["mean"] for m in found.values()], dtype=np.float64),
            differ=tuple(name for name, m in found.items() if m["has_other_parameters"]),
        )


def between(tables: Sequence[ScoreTable], labels: Sequence[str]) -> Between:
    """Tau-b of each metric between every two runs on one model: other text, size or seed.

    Metrics that only one run has are left out. BadInput for fewer than two runs, for runs on
    different models, and where no metric is in two of them.
    """
    _check_runs(tables, labels)
    counts: dict[str, int] = {}
    for table in tables:
        for name in table.metrics:
            counts[name] = counts.get(name, 0) + 1
    metrics = tuple(name for name, n in counts.items() if n > 1)
    if not metrics:
        raise BadInput(
            f"The rankings of {len(tables)} runs were to be compared.",
            "No metric was computed in two of them.",
            "Compute the same metric in each run.",
        )
    found = {name: [t.metrics[name] for t in tables if name in t.metrics] for name in metrics}
    tau = np.array([_tau_of(name, tables) for name in metrics])
    return Between(
        labels=tuple(labels),
        metrics=metrics,
        titles=tuple(found[name][0].title for name in metrics),
        tau=tau,
        mean=np.array([_mean_between(square) for square in tau]),
        differ=tuple(
            name
            for name, runs in found.items()
            if any(dict(s.parameters) != dict(runs[0].parameters) for s in runs)
        ),
    )


def model_of(provenance: Provenance) -> str:
    """Name, revision and quantisation of the model a number is of: alike only for like weights."""
    parts = (provenance.model, provenance.revision, provenance.quantisation)
    return " ".join(filter(None, parts))


def _check_runs(tables: Sequence[ScoreTable], labels: Sequence[str]) -> None:
    if len(tables) != len(labels):
        raise ValueError(f"{len(tables)} runs need as many labels, not {len(labels)}")
    asked = f"The rankings of {len(tables)} runs were to be compared."
    if len(tables) < 2:
        raise BadInput(
            asked, "It takes two to compare.", "Score with another text, size or seed as well."
        )
    models = [model_of(t.provenance) for t in tables]
    for label, model in zip(labels, models, strict=True):
        if model != models[0]:
            raise BadInput(
                asked,
                f"{labels[0]} is of {models[0]}, but {label} is of {model}.",
                "Compare runs on one and the same model.",
            )


def _tau_of(name: str, tables: Sequence[ScoreTable]) -> np.ndarray:
    rows = as_rows([t.metrics[name].values if name in t.metrics else {} for t in tables])
    return tau_b(rows, rows)


def _mean_between(square: np.ndarray) -> float:
    pairs = square[np.triu_indices(len(square), k=1)]
    known = pairs[np.isfinite(pairs)]
    return float(known.mean()) if known.size else math.nan


def _or_null(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
