"""What a block adds to the model's log-likelihood: left out alone, in orders, in random halves."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from blockviz.errors import BadInput
from blockviz.metrics.base import (
    METRICS,
    AblationMetric,
    Game,
    GameMetric,
    mean_and_error,
    window_numbers,
)
from blockviz.types import AblationTable, BlockId, Readout, Scores

_REFERENCE = "https://arxiv.org/abs/2407.16286"
_CITATION = "Siddiqui et al. 2024, A deeper look at depth pruning"


@METRICS.register
@dataclass(frozen=True)
class LeaveOneOut(AblationMetric):
    """phi = v(all) - v(all but b), v = -NLL: the rise of the loss; arXiv 2407.16286.

    `baseline=masks` compares with the mean over all the other single removals in place of the
    whole model, as the published code does under the name of Shapley.
    """

    baseline: str = field(
        default="whole", metadata={"label": "Compared with", "choices": ("whole", "masks")}
    )

    name = "shapley_loo"
    title = "Leave-one-out"
    meaning = "How much log-likelihood goes when only this block does."
    formula = (
        "φ(b) = NLL(b) − NLL(nothing removed)\n"
        "NLL(b): mean next-token loss in nats of the calibration text with block b skipped."
    )
    sees = (
        "The cost of a single cut as a difference on the very same windows, so that what is "
        "hard about a text cancels."
    )
    misses = (
        "Stand-ins: of two blocks that do the same work each seems idle, as the other is still "
        "there. Removing both is what hurts."
    )
    reference = _REFERENCE
    citation = _CITATION
    unit_label = "nats"

    def positions(self, readout: Readout) -> torch.Tensor:
        return readout.has_target

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return readout.nll

    def score(self, source: AblationTable) -> Scores:
        if self.baseline == "masks" and len(source.values) > 1:
            total = torch.stack(list(source.values.values())).sum(dim=0)
            n = len(source.values) - 1
            rises = {b: v - (total - v) / n for b, v in source.values.items()}
        else:
            rises = {b: v - source.baseline for b, v in source.values.items()}
        means = {b: mean_and_error(v) for b, v in rises.items()}
        return self.scores(means, baseline=0.0, per_window=window_numbers(rises))


class _Game(GameMetric):
    """`windows` of the calibration text are used, all of them for 0."""

    reference = _REFERENCE
    citation = _CITATION
    unit_label = "nats"

    def n_windows(self, available: int) -> int:
        return min(available, self.windows) if self.windows else available


@METRICS.register
@dataclass(frozen=True)
class PermutationShapley(_Game):
    """phi = mean over orders of v(those before b and b) - v(those before b), v = -NLL.

    Orders come in pairs, one and its reverse. An order is walked from the whole model down and
    broken off once the loss is within `tolerance` nats of that with nothing left, if that is not 0;
    the blocks then left share the rest equally, so that the increments of an order always add up.
    """

    m: int = field(default=20, metadata={"label": "Orders", "min": 1, "max": 10000})
    windows: int = field(default=8, metadata={"label": "Windows read, 0 = all", "min": 0})
    tolerance: float = field(default=0.0, metadata={"label": "Break off within", "min": 0.0})
    seed: int = field(default=42, metadata={"label": "Seed", "min": 0, "max": 2**32 - 1})

    name = "shapley_perm"
    title = "Shapley value"
    meaning = "What the block adds to the log-likelihood, averaged over orders of adding blocks."
    formula = (
        "φ(b) = mean over orders of [ v(S ∪ b) − v(S) ],  v(S) = −NLL with the blocks S alone\n"
        "S: the blocks that come before b in an order."
    )
    sees = (
        "Shared work: blocks that stand in for each other divide the credit, and all values add"
        " up to what the blocks are worth together."
    )
    misses = (
        "The company matters: in most orders b joins a model so broken that nobody would use "
        "it, and those steps are averaged in. A few dozen orders still leave a wide error."
    )

    def n_sets(self, n_blocks: int) -> int:
        return 2 + self.m * max(0, n_blocks - 1)

    def play(self, blocks: Sequence[BlockId]) -> Game:
        whole = (yield ()).mean().item()
        empty = (yield tuple(blocks)).mean().item()
        rows: list[dict[BlockId, float]] = []
        for order in _orders(blocks, self.m, self.seed):
            row, loss = {}, whole
            for place, block in enumerate(order, start=1):
                is_all = place == len(order)
                now = empty if is_all else (yield tuple(order[:place])).mean().item()
                row[block], loss = now - loss, now
                rest = order[place:]
                if rest and self.tolerance and abs(empty - loss) < self.tolerance:
                    row |= {b: (empty - loss) / len(rest) for b in rest}
                    break
            rows.append(row)
        # An order and its reverse are one draw, not two.
        draws = [rows[i : i + 2] for i in range(0, len(rows), 2)]
        means = {}
        for b in blocks:
            values = [math.fsum(row[b] for row in draw) / len(draw) for draw in draws]
            means[b] = mean_and_error(torch.tensor(values, dtype=torch.float64))
        mean = {b: math.fsum(row[b] for row in rows) / len(rows) for b in blocks}
        return self.scores(
            {b: (mean[b], means[b][1]) for b in blocks},
            has_error=len(draws) > 1,
        )


@METRICS.register
@dataclass(frozen=True)
class RandomSubsets(_Game):
    """phi = mean v over random sets with b - mean v over those without it, v = -NLL.

    Every set keeps the share `frac` of the blocks; arXiv 2407.16286, its code's random subnetworks.
    """

    frac: float = field(default=0.5, metadata={"label": "Share kept", "min": 0.05, "max": 0.95})
    m: int = field(default=128, metadata={"label": "Sets", "min": 2, "max": 100000})
    windows: int = field(default=8, metadata={"label": "Windows read, 0 = all", "min": 0})
    seed: int = field(default=42, metadata={"label": "Seed", "min": 0, "max": 2**32 - 1})

    name = "shapley_random"
    title = "Random subsets"
    meaning = "How much better random halves of the model are with the block than without it."
    formula = (
        "φ(b) = mean v(S with b) − mean v(S without b),  v(S) = −NLL with the blocks S alone\n"
        "S: m random sets that all keep the same share of the blocks, a half unless set."
    )
    sees = "What a block is worth among random others, many cuts at a time."
    misses = (
        "Models with half their blocks gone are far from any that one would ship. Who else "
        "happened to be kept moves every number, and that noise shrinks only with many sets."
    )

    def n_sets(self, n_blocks: int) -> int:
        return self.m

    def play(self, blocks: Sequence[BlockId]) -> Game:
        kept = self._sets(blocks)
        losses = []
        for chosen in kept:
            losses.append((yield tuple(b for b in blocks if b not in chosen)).mean().item())
        means = {}
        for block in blocks:
            without = [x for x, k in zip(losses, kept, strict=True) if block not in k]
            with_it = [x for x, k in zip(losses, kept, strict=True) if block in k]
            means[block] = _difference(without, with_it)
        return self.scores(means)

    def _sets(self, blocks: Sequence[BlockId]) -> list[frozenset[BlockId]]:
        """m sets of kept blocks; BadInput if one is in all of them or in none.

        They are drawn in pairs from the two ends of an order: halves are each other's complement,
        so that each block is in every second one.
        """
        draw = random.Random(self.seed)
        size = max(1, min(len(blocks) - 1, round(self.frac * len(blocks))))
        kept: list[frozenset[BlockId]] = []
        while len(kept) < self.m:
            order = draw.sample(list(blocks), len(blocks))
            kept += [frozenset(order[:size]), frozenset(order[-size:])]
        kept = kept[: self.m]
        shares = {b: sum(b in chosen for chosen in kept) for b in blocks}
        alone = [str(b) for b, n in shares.items() if n in (0, self.m)]
        if alone:
            raise BadInput(
                f"{self.name} was asked for with m={self.m} and frac={self.frac}.",
                f"Every set or none would keep {', '.join(alone[:4])}: nothing to compare with.",
                "Raise m, or set frac nearer to 0.5.",
            )
        return kept


def _orders(blocks: Sequence[BlockId], m: int, seed: int) -> list[list[BlockId]]:
    """m orders, every second one the reverse of the one before it."""
    draw = random.Random(seed)
    orders: list[list[BlockId]] = []
    while len(orders) < m:
        order = draw.sample(list(blocks), len(blocks))
        orders += [order, order[::-1]]
    return orders[:m]


def _difference(a: list[float], b: list[float]) -> tuple[float, float]:
    """(mean of a - mean of b, its standard error as if they were independent)."""
    one, two = (mean_and_error(torch.tensor(x, dtype=torch.float64)) for x in (a, b))
    return one[0] - two[0], math.hypot(one[1], two[1])
