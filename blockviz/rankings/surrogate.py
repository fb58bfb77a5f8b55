"""What pairs foretell of larger sets, and which blocks stand in for which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.cluster import hierarchy
from scipy.stats import rankdata, spearmanr

from blockviz.rankings.kendall import tau_b
from blockviz.types import BlockId, Interactions, RemovedSet, parts_of

# An interaction nearer to 0 than so many of its standard errors is not told from 0.
CLEAR_ERRORS = 2.0
# Sets of so many units and more are foretold; smaller ones were measured as they are.
FORETOLD = 3
# Fewer measured sets say nothing of how far the others may be off.
MIN_SETS = 3


@dataclass(frozen=True)
class Prediction:
    """A loss that was not measured, in nats per token; `stderr` is of `nll`."""

    nll: float
    stderr: float

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll, 700.0))

    def perplexity_at(self, errors: float) -> float:
        """The perplexity so many standard errors above the foretold loss."""
        return math.exp(min(self.nll + errors * self.stderr, 700.0))


@dataclass(frozen=True)
class RankAgreement:
    """How alike two orders of `n_sets` sets are, in [-1, 1]: Kendall's tau-b, Spearman's rho.

    None where there are fewer than 3 sets, or where one order ties them all.
    """

    n_sets: int
    tau: float | None = None
    rho: float | None = None


@dataclass(frozen=True)
class StandIn:
    """Two blocks that stand in for each other: `value` nats more than the sum of both alone."""

    first: BlockId
    second: BlockId
    value: float
    stderr: float


@dataclass(frozen=True)
class Surrogate:
    """Loss of any removed set from measured cuts: whole + singles + scale * pairs.

    The discrete second-order expansion at the whole model, exact for one and two units. `scale` is
    1 until `fitted` draws it from measured sets of three units and more, for which it stands for
    all that three and more blocks do together.

    spread: root mean square of the residuals of sets that were left out of the fit, each as a share
    of its stake, the sum of |pair|; before a fit 1, all of them. error: the same in nats, None
    before a fit. n_sets: measured sets in the fit.
    """

    interactions: Interactions
    scale: float = 1.0
    spread: float = 1.0
    error: float | None = None
    n_sets: int = 0

    def predict(self, removed: Iterable[BlockId]) -> Prediction | None:
        """The loss with these gone; None where one of them, or a pair, was not measured.

        The error is that of the pairs, as if they were independent, and for three units and more
        that of leaving higher orders out, `spread` of the stake.
        """
        terms = self._terms(removed)
        if terms is None:
            return None
        if terms.n_units < FORETOLD:
            return Prediction(terms.first + terms.second, terms.stderr)
        return Prediction(
            terms.first + self.scale * terms.second,
            math.hypot(self.scale * terms.stderr, self.spread * terms.stake),
        )

    def fitted(self, measured: Mapping[RemovedSet, float]) -> Surrogate:
        """The same with `scale`, `spread` and `error` fitted to mean losses of measured sets.

        Least squares, every residual as a share of its stake, so that a set that ruins the model
        does not decide alone. Sets of fewer than three units, infinite losses and what cannot be
        foretold are passed over; with fewer than 3 sets left nothing is fitted.
        """
        pairs = [(self._terms(removed), loss) for removed, loss in measured.items()]
        usable = [
            (t, loss)
            for t, loss in pairs
            if t is not None and t.n_units >= FORETOLD and t.stake > 0 and math.isfinite(loss)
        ]
        second = np.array([t.second / t.stake for t, _ in usable])
        square = float(second @ second)
        if len(usable) < MIN_SETS or square == 0:
            return Surrogate(self.interactions)
        stake = np.array([t.stake for t, _ in usable])
        rest = np.array([loss - t.first for t, loss in usable]) / stake
        scale = float(second @ rest) / square
        # The residual that a fit without the set would leave it, by its leverage.
        left_out = (rest - scale * second) / np.maximum(1 - second**2 / square, 1e-12)
        return replace(
            self,
            scale=scale,
            spread=_root_mean_square(left_out),
            error=_root_mean_square(left_out * stake),
            n_sets=len(usable),
        )

    def rank_agreement(self, measured: Mapping[RemovedSet, float]) -> RankAgreement:
        """How alike the foretold and the measured order are, over the sets that can be foretold.

        Losses or perplexities: only their order counts. An infinite one is the worst.
        """
        found = [
            (foretold.nll, number)
            for removed, number in measured.items()
            if not math.isnan(number) and (foretold := self.predict(removed)) is not None
        ]
        rows = np.array(found, dtype=np.float64).reshape(-1, 2).T
        tau = float(tau_b(rows[:1], rows[1:])[0, 0])
        if not math.isfinite(tau):
            return RankAgreement(len(found))
        return RankAgreement(len(found), tau, float(spearmanr(rows[0], rows[1]).statistic))

    def _terms(self, removed: Iterable[BlockId]) -> _Terms | None:
        known, parts = self.interactions, parts_of(removed)
        units = sorted(b for b in known.singles if parts.issuperset(b.parts))
        both = list(combinations(units, 2))
        if parts_of(units) != parts or any(p not in known.pairs for p in both):
            return None
        pairs = [known.pairs[p] for p in both]
        return _Terms(
            n_units=len(units),
            first=known.whole + math.fsum(known.singles[b] for b in units),
            second=math.fsum(pairs),
            stake=math.fsum(map(abs, pairs)),
            stderr=math.sqrt(math.fsum(known.stderr[p] ** 2 for p in both)),
        )


@dataclass(frozen=True)
class _Terms:
    """One set, in nats: whole and singles; pairs; the sum of |pair|; the error of `second`."""

    n_units: int
    first: float
    second: float
    stake: float
    stderr: float


def _root_mean_square(numbers: np.ndarray) -> float:
    return float(np.sqrt(np.mean(numbers**2)))


def is_clear(value: float, stderr: float) -> bool:
    """Whether an interaction is told from 0: at least 2 standard errors from it."""
    return value != 0 and abs(value) >= CLEAR_ERRORS * stderr


def stand_ins(interactions: Interactions, n: int) -> tuple[StandIn, ...]:
    """The `n` strongest positive pairs that are told from 0, the strongest first.

    One pair in 40 or so passes by chance alone; the strongest ones are safer than that.
    """
    found = [
        StandIn(a, b, value, interactions.stderr[a, b])
        for (a, b), value in interactions.pairs.items()
        if value > 0 and is_clear(value, interactions.stderr[a, b])
    ]
    return tuple(sorted(found, key=lambda s: (-s.value, s.first, s.second))[:n])


def clustered(interactions: Interactions) -> tuple[BlockId, ...]:
    """The blocks in an order that has those side by side that stand in for each other.

    Leaves of average linkage; the distance of two blocks is the share of pairs that stand in for
    each other at least as much as they do. An unmeasured pair counts as an interaction of 0.
    """
    blocks = sorted(interactions.singles)
    if len(blocks) < 3:
        return tuple(blocks)
    values = [interactions.between(a, b) or 0.0 for a, b in combinations(blocks, 2)]
    distance = rankdata(np.negative(values), method="max") / len(values)
    tree = hierarchy.linkage(distance, "average", optimal_ordering=True)
    order = [int(i) for i in hierarchy.leaves_list(tree)]
    if order[0] > order[-1]:
        # A tree has no left and right; keep the shallow blocks first.
        order.reverse()
    return tuple(blocks[i] for i in order)
