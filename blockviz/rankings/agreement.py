"""Where metrics agree: Kendall's tau-b of every two, the like ones together, and odd blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from blockviz.rankings.kendall import as_rows, n_shared, tau_b
from blockviz.types import BlockId, ScoreTable

# Metrics stand in one group while they order at least three pairs of blocks in four alike.
GROUP_TAU = 0.5


@dataclass(frozen=True, eq=False)
class Agreement:
    """How alike metrics rank.

    tau      (metric, metric) float64, tau-b over the blocks that both score; NaN where they share
             fewer than 3, or where one of them ties them all
    n_common (metric, metric) int64, how many blocks both score
    order    indices of metrics, like ones side by side: leaves of average linkage on 1 - tau,
             where a missing tau counts as a distance of 1
    groups   `order`, cut where that linkage joins at a mean tau below 0.5
    """

    metrics: tuple[str, ...]
    titles: tuple[str, ...]
    tau: np.ndarray
    n_common: np.ndarray
    order: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]


def agreement(table: ScoreTable) -> Agreement:
    """Tau-b of every two metrics of a table over the very blocks they share.

    A score of a whole layer says nothing of its blocks: a layer metric and a block metric share
    none, and have no tau.
    """
    scores = tuple(table.metrics.values())
    rows = as_rows([s.values for s in scores])
    tau = tau_b(rows, rows)
    order, groups = _clustered(tau)
    return Agreement(
        metrics=tuple(table.metrics),
        titles=tuple(s.title for s in scores),
        tau=tau,
        n_common=n_shared(rows, rows),
        order=order,
        groups=groups,
    )


def _clustered(tau: np.ndarray) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    if len(tau) < 2:
        order = tuple(range(len(tau)))
        return order, tuple((i,) for i in order)
    distance = 1 - np.nan_to_num(tau, nan=0.0)
    np.fill_diagonal(distance, 0.0)
    tree = hierarchy.linkage(squareform(distance), "average", optimal_ordering=True)
    order = [int(i) for i in hierarchy.leaves_list(tree)]
    if order[0] > order[-1]:
        # A tree has no left and right; keep the first metrics of the table first.
        order.reverse()
    labels = hierarchy.fcluster(tree, 1 - GROUP_TAU, criterion="distance")
    groups: dict[int, list[int]] = {}
    for i in order:
        groups.setdefault(int(labels[i]), []).append(i)
    return tuple(order), tuple(tuple(members) for members in groups.values())


def disagreement(table: ScoreTable) -> tuple[tuple[BlockId, float], ...]:
    """(block, spread) of every block that two or more metrics rank, widest spread first.

    Spread: how far apart two metrics place the block on average, as a share of all ranks, in
    [0, 1]; 0.25 = a quarter of the ranking. Tied blocks share the mean of their ranks. A metric
    that ties all its blocks places none, and is left out.
    """
    metrics = [s.values for s in table.metrics.values() if len(set(s.values.values())) > 1]
    blocks = sorted(set().union(*metrics))
    rows = as_rows(metrics, blocks)
    place = np.full(rows.shape, np.nan)
    for row, to in zip(rows, place, strict=True):
        known = np.isfinite(row)
        to[known] = (rankdata(row[known]) - 1) / (known.sum() - 1)
    gaps = np.abs(place[:, None] - place)  # (metric, metric, block)
    n = np.isfinite(place).sum(axis=0)
    found = [
        (b, float(np.nansum(gaps[:, :, i]) / (n[i] * (n[i] - 1))))
        for i, b in enumerate(blocks)
        if n[i] > 1
    ]
    return tuple(sorted(found, key=lambda item: (-item[1], item[0])))
