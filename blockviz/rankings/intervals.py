"""Which ranks a block could have, given the noise of a metric over its windows."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from blockviz.errors import BadInput
from blockviz.types import BlockId, Scores


def rank_intervals(scores: Scores, *, level: float = 0.95) -> dict[BlockId, tuple[int, int]] | None:
    """Block -> (lowest, highest) rank it could have, 1 = first to remove; None without errors.

    A block ranks above all those that are significantly lower and below all those that are
    significantly higher; its own rank always lies inside. Two blocks differ where a two-sided test
    at `level` says so: the paired t test over windows where `per_window` has at least two of them
    (every block sees the same text, so most of the noise cancels), otherwise the normal test of two
    independent numbers from `stderr`. There is NO correction for the number of pairs: at 0.95,
    about one in twenty pairs of equal blocks is told apart. Neither test knows of any noise but
    that of the windows.
    """
    is_higher = _apart(scores, level)
    if is_higher is None:
        return None
    ranks, n = scores.ranks(), len(scores.values)
    low = 1 + is_higher.sum(axis=1)
    high = n - is_higher.sum(axis=0)
    return {
        b: (min(int(low[i]), ranks[b]), max(int(high[i]), ranks[b]))
        for i, b in enumerate(scores.values)
    }


def tied_with(scores: Scores, block: BlockId, level: float = 0.95) -> tuple[BlockId, ...] | None:
    """The other blocks that cannot be told from `block`, lowest first; None without errors.

    By the test of `rank_intervals`. Being tied does not carry over: two blocks that are both tied
    with a third may be told from each other.
    """
    if block not in scores.values:
        raise BadInput(
            f"The blocks tied with {block} were asked for.",
            f"{scores.title} has no score for {block}.",
            f"Name one of its {len(scores.values)} blocks, such as {min(scores.values)}.",
        )
    is_higher = _apart(scores, level)
    if is_higher is None:
        return None
    blocks, ranks = list(scores.values), scores.ranks()
    at = blocks.index(block)
    is_tied = ~(is_higher[at] | is_higher[:, at])
    tied = [b for b, same in zip(blocks, is_tied, strict=True) if same and b != block]
    return tuple(sorted(tied, key=ranks.__getitem__))


def _apart(scores: Scores, level: float) -> np.ndarray | None:
    """(block, block) bool: is the row's block significantly higher than the column's?"""
    if not 0 < level < 1:
        raise BadInput(
            f"Ranks at a level of {level} were asked for.",
            "A level of confidence lies between 0 and 1.",
            "Use for example 0.95.",
        )
    windows = window_rows(scores)
    if windows is not None:
        return _by_windows(windows, level)
    if scores.stderr is None or not set(scores.values) <= set(scores.stderr):
        return None
    error = np.array([scores.stderr[b] for b in scores.values], dtype=np.float64)
    if not error.any():
        # The error of a single window is written as 0, which is unknown and not exact.
        return None
    values = np.array(list(scores.values.values()), dtype=np.float64)
    limit = stats.norm.ppf((1 + level) / 2) * np.hypot(error[:, None], error)
    return values[:, None] - values > limit


def _by_windows(windows: np.ndarray, level: float) -> np.ndarray:
    n = windows.shape[1]
    limit = stats.t.ppf((1 + level) / 2, n - 1) / math.sqrt(n)
    is_higher = np.empty((len(windows), len(windows)), dtype=bool)
    # Row by row: the differences themselves, since those of variances would lose their digits.
    for i, row in enumerate(windows):
        gaps = row - windows
        is_higher[i] = gaps.mean(axis=1) > limit * gaps.std(axis=1, ddof=1)
    return is_higher


def window_rows(scores: Scores) -> np.ndarray | None:
    """(block, window) float64 in the order of `values`; None without 2 windows for each block."""
    found = [(scores.per_window or {}).get(b, ()) for b in scores.values]
    lengths = {len(row) for row in found}
    if len(lengths) != 1 or min(lengths) < 2:
        return None
    return np.array(found, dtype=np.float64)
