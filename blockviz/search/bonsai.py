"""Bonsai: random blocks are removed many times, and a regression says what each was worth."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import ConstantInputWarning, kendalltau

from blockviz.errors import BadInput
from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.search.oneshot import lowest_first, measured
from blockviz.types import Ask, RemovedSet, Searching, parts_of

N_FOLDS = 5
PENALTIES = tuple(10.0**power for power in range(-6, 3))


@STRATEGIES.register
@dataclass(frozen=True)
class Bonsai(Strategy):
    """R = the K lowest beta of u = beta_0 + sum over b of beta_b keep_b, u = -objective.

    Ridge regression over `m` random masks (four a unit where it is 0), its penalty by the Kendall
    tau it reaches in 5-fold cross-validation; arXiv 2402.05406. A mask removes the share `p` of
    the units, and its complement within a pool of twice as many, drawn for it, is the next mask:
    in each pair one of the two has what the other lacks, and both are cut alike. The whole model
    is one more row, without which beta would be known up to a constant only.

    The paper removes heads and neurons, a few per round, drawn by the size of their activations;
    here it is whole blocks, drawn evenly, in one round. What two blocks do together is noise to it.
    """

    m: int = field(default=0, metadata={"label": "Masks, 0 = four a unit", "min": 0, "max": 100000})
    p: float = field(default=0.25, metadata={"label": "Share removed", "min": 0.01, "max": 0.5})

    name = "bonsai"
    title = "Bonsai regression"
    meaning = "Removes random blocks many times over, and learns from it what each is worth."
    reference = "https://arxiv.org/abs/2402.05406"
    citation = "Dery et al. 2024, Bonsai; for blocks: blockviz"

    def n_masks(self, space: Space) -> int:
        return self.m or 4 * len(space.units)

    def n_sets(self, space: Space) -> int:
        return self.n_masks(space) + 1 + space.most_units()

    def search(self, space: Space) -> Searching:
        check_space(space)
        _check_units(space)
        kept = self.masks(space)
        sets: list[RemovedSet] = [
            parts_of(u for u, k in zip(space.units, row, strict=True) if not k) for row in kept
        ]
        answer = yield Ask(tuple(sets), keep=len(sets), note=f"{len(sets)} masks")
        utilities = -_finite(np.array([answer.values[s] for s in sets]))
        penalty = best_penalty(kept, utilities, seed=space.seed)
        worth = dict(zip(space.units, ridge(kept, utilities, penalty).tolist(), strict=True))
        return (yield from measured(space, lowest_first(space, worth), [answer]))

    def masks(self, space: Space) -> np.ndarray:
        """(mask, unit) float64: 1 where a unit is kept; the whole model first, none twice."""
        n = len(space.units)
        size = max(1, min(round(self.p * n), n // 2))
        dice = np.random.default_rng(space.seed)
        kept = np.ones((1 + 2 * math.ceil(self.n_masks(space) / 2), n))
        for first in range(1, len(kept), 2):
            pool = dice.permutation(n)[: 2 * size]
            kept[first, pool[:size]] = kept[first + 1, pool[size:]] = 0
        _, places = np.unique(kept, axis=0, return_index=True)
        return kept[np.sort(places)][: self.n_masks(space) + 1]


def ridge(kept: np.ndarray, utilities: np.ndarray, penalty: float) -> np.ndarray:
    """(unit,) beta of (mask, unit) and (mask,): least squares with an intercept that goes free.

    The penalty is on the mean over masks, so that it means the same for any number of them.
    """
    centred = kept - kept.mean(axis=0)
    gram = centred.T @ centred / len(kept) + penalty * np.eye(kept.shape[1])
    return np.linalg.solve(gram, centred.T @ (utilities - utilities.mean()) / len(kept))


def best_penalty(kept: np.ndarray, utilities: np.ndarray, *, seed: int = 0) -> float:
    """The penalty whose predictions order masks best that it was not fitted on; least of equals."""
    folds = np.array_split(np.random.default_rng(seed).permutation(len(kept)), N_FOLDS)
    folds = [fold for fold in folds if 2 <= len(fold) < len(kept)]
    return max(PENALTIES, key=lambda penalty: _mean_tau(kept, utilities, folds, penalty))


def _mean_tau(
    kept: np.ndarray, utilities: np.ndarray, folds: list[np.ndarray], penalty: float
) -> float:
    """Mean Kendall tau over the folds; one where everything is tied says nothing and counts 0."""
    taus = [0.0]
    for fold in folds:
        seen = np.setdiff1d(np.arange(len(kept)), fold)
        predicted = kept[fold] @ ridge(kept[seen], utilities[seen], penalty)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConstantInputWarning)
            tau = kendalltau(predicted, utilities[fold]).statistic
        taus.append(0.0 if math.isnan(tau) else float(tau))
    return math.fsum(taus)


def _finite(values: np.ndarray) -> np.ndarray:
    """The values, those that are no number as bad as the worst that is one."""
    is_number = np.isfinite(values)
    if not is_number.any():
        raise BadInput(
            f"Random sets of blocks were measured, {len(values)} of them.",
            "Not one of them gave a number.",
            "Remove a smaller share with bonsai:p=0.1, or use another objective.",
        )
    return np.where(is_number, values, values[is_number].max())


def _check_units(space: Space) -> None:
    if len(space.units) < 2:
        raise BadInput(
            "Random halves of the candidates were to be removed.",
            "There is one candidate only.",
            "Protect fewer layers, or use the strategy greedy.",
        )
