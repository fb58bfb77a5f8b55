"""Policy gradient: every block has a chance to stay, and losses move the chances."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from blockviz.errors import BadInput
from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.search.oneshot import lowest_first, measured
from blockviz.types import Answer, Ask, RemovedSet, Searching, parts_of

N_SAMPLES = 2
BASELINE_STEPS = 5
# Near 0 and 1 the gradient of log p grows without bound; with few steps one of them would decide.
LEAST_VARIANCE = 0.05


@STRATEGIES.register
@dataclass(frozen=True)
class Policy(Strategy):
    """s <- P(s - rate mean((loss - baseline) grad log p(m))), m ~ Bernoulli(s); arXiv 2406.10576.

    s: chances to stay; grad log p = (m - s) / (s (1 - s)), the denominator at least 0.05 (ours);
    two masks a step; baseline: mean loss of the last 5 steps; P: one shift for all, found by
    bisection, and a cut to [0, 1], so that the expected cut is the goal's. The K lowest s go.

    A demonstration. The paper learns heads and channels from 120 000 samples at a rate of 0.002;
    the two masks of 200 steps at 0.02 say less of a model's blocks than as many askings of greedy.
    """

    steps: int = field(default=200, metadata={"label": "Steps", "min": 1, "max": 100000})
    rate: float = field(default=0.02, metadata={"label": "Learning rate", "min": 1e-5, "max": 1.0})

    name = "policy"
    title = "Policy gradient"
    meaning = "Learns every block's chance to stay from the losses of random cuts."
    reference = "https://arxiv.org/abs/2406.10576"
    citation = "Gao et al. 2024"
    is_experimental = True

    def n_sets(self, space: Space) -> int:
        return N_SAMPLES * self.steps + space.most_units()

    def search(self, space: Space) -> Searching:
        check_space(space)
        costs, budget = _costs(space)
        dice = np.random.default_rng(space.seed)
        keep = projected(np.full(len(costs), 1 - 1 / len(costs)), costs, budget)
        answers: list[Answer] = []
        losses: list[float] = []
        for step in range(1, self.steps + 1):
            masks = dice.random((N_SAMPLES, len(costs))) < keep
            sets = [_removed(space, mask, keep) for mask in masks]
            distinct = tuple(dict.fromkeys(sets))
            answer = yield Ask(distinct, keep=len(distinct), note=f"step {step} of {self.steps}")
            answers.append(answer)
            found = np.array([answer.values[s] for s in sets])
            if not np.isfinite(found).all():
                continue
            baseline = np.mean(losses[-BASELINE_STEPS:] or found)
            slopes = (masks - keep) / np.maximum(keep * (1 - keep), LEAST_VARIANCE)
            gradient = ((found - baseline)[:, None] * slopes).mean(axis=0)
            keep = projected(keep - self.rate * gradient, costs, budget)
            losses.append(float(found.mean()))
        chances = dict(zip(space.units, keep.tolist(), strict=True))
        return (yield from measured(space, lowest_first(space, chances), answers))


def projected(keep: np.ndarray, costs: np.ndarray, budget: float) -> np.ndarray:
    """(unit,) in [0, 1] with costs @ result = budget: `keep`, shifted by one number and cut."""
    low, high = -float(keep.max()), 1 - float(keep.min())
    for _ in range(60):
        shift = (low + high) / 2
        if costs @ np.clip(keep + shift, 0, 1) < budget:
            low = shift
        else:
            high = shift
    return np.clip(keep + (low + high) / 2, 0, 1)


def _costs(space: Space) -> tuple[np.ndarray, float]:
    """What keeping each unit costs, and how much may be kept."""
    goal = space.goal
    if goal.n_units is not None:
        costs = np.ones(len(space.units))
        return costs, float(len(costs) - space.most_units())
    if goal.max_parameters is not None:
        costs = np.array([float(sum(goal.sizes[b] for b in u.parts)) for u in space.units])
        return costs / costs.mean(), max(0.0, costs.sum() - goal.max_parameters) / costs.mean()
    raise BadInput(
        "The chances of blocks to stay were to be learned.",
        "The target names neither a number of blocks nor a share of parameters, so that there is "
        "no budget to keep.",
        "Set a number of blocks or a share of the parameters, or use the strategy greedy.",
    )


def _removed(space: Space, mask: np.ndarray, keep: np.ndarray) -> RemovedSet:
    """The set of a mask; where nothing would be left, its most likely unit stays."""
    gone = [u for u, stays in zip(space.units, mask, strict=True) if not stays]
    if len(parts_of(gone)) == space.n_blocks:
        gone.remove(space.units[int(keep.argmax())])
    return parts_of(gone)
