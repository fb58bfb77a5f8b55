"""Kendall's tau-b between many rankings at once: the signs of all pairs, multiplied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from blockviz.types import BlockId

MIN_BLOCKS = 3


def tau_b(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(m, k) float64 in [-1, 1]: tau-b of each row of `one` (m, n) with each of `other` (k, n).

    NaN in a row means that it does not rank that block: each two rows are compared over what both
    rank. The result is NaN where they share fewer than 3 blocks, or where one of them ties every
    pair of those: such rankings have no tau, and 0 would read as "unrelated".
    """
    one_sign, one_has = _pairs(one)
    other_sign, other_has = _pairs(other)
    # Counts of +1 and -1 below 2**24 are exact in float32, that is up to 5792 blocks.
    agree = (one_sign @ other_sign.T).astype(np.float64)
    one_untied = (np.abs(one_sign) @ other_has.T).astype(np.float64)
    other_untied = (one_has @ np.abs(other_sign).T).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = agree / np.sqrt(one_untied * other_untied)
    tau[n_shared(one, other) < MIN_BLOCKS] = np.nan
    return tau


def n_shared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(m, k) int64: how many blocks each row of `one` and each of `other` both rank."""
    return (~np.isnan(one)).astype(np.int64) @ (~np.isnan(other)).astype(np.int64).T


def as_rows(
    rankings: Sequence[Mapping[BlockId, float]], blocks: Iterable[BlockId] | None = None
) -> np.ndarray:
    """(ranking, block) float64, NaN where a ranking lacks a block; of all their blocks, sorted."""
    columns = sorted(set().union(*rankings)) if blocks is None else list(blocks)
    rows = [[float(ranking.get(b, np.nan)) for b in columns] for ranking in rankings]
    return np.array(rows, dtype=np.float64).reshape(len(rankings), len(columns))


def _pairs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(row, pair of blocks) float32, twice: the sign of the difference, and 1 where both are."""
    first, second = np.triu_indices(rows.shape[1], k=1)
    left, right = rows[:, first], rows[:, second]
    sign = (left > right).astype(np.float32) - (left < right).astype(np.float32)
    return sign, (~(np.isnan(left) | np.isnan(right))).astype(np.float32)
