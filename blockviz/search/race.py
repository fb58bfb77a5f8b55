"""Racing: finding the sets with the lowest mean without finishing those that cannot win.

All sets start on a few windows. After every round those are given up whose paired difference to
the leader is too large to be chance; the others see more windows, up to all of them. What is known
of the windows is exact, so with every window seen the answer is the exhaustive one. The doubt that
is left is the sum of the chances that one that was given up would have won.

The difference of two sets varies over windows, and a few windows say little of how much. But sets
of alike difference vary alike, and there are many of them: each variance is drawn towards the trend
over all sets, as strongly as their scatter around it allows (moderated t of Smyth 2004,
doi:10.2202/1544-6115.1027, with a trend in the mean). The windows are all there are, so a mean over
n of N of them has its error shrunk by sqrt(1 - n/N).
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma
from scipy.stats import t as student

# Windows seen after each round; a hopeless set costs the first number of them.
ROUNDS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28)
# A set's own windows weigh at least one part in so many more in its variance.
MOST_BORROWED = 4


@dataclass(frozen=True)
class Look:
    """Asks for the values of some sets on some windows: both by number."""

    sets: tuple[int, ...]
    windows: tuple[int, ...]


@dataclass(frozen=True)
class Raced:
    """`best`: numbers of the winners, the best first; means: of every set over what it was seen on.

    gaps: how much higher than the best each set lies, over what it was seen on. n_seen: windows
    each set was seen on; doubt: the chance, at most, that a loser would have won on these windows.
    rival: the chance that the nearest loser would beat the last winner on other windows of the
    same text; NaN where every set wins.
    """

    best: tuple[int, ...]
    means: tuple[float, ...]
    gaps: tuple[float, ...]
    n_seen: tuple[int, ...]
    doubt: float
    rival: float = math.nan


# Yields Looks, is sent (set, window) values; NaN counts as infinitely bad.
Racing = Generator[Look, np.ndarray, Raced]


def race(
    n_sets: int,
    n_windows: int,
    *,
    keep: int = 1,
    level: float = 0.05,
    seed: int = 0,
    is_exhaustive: bool = False,
) -> Racing:
    """The `keep` sets with the lowest mean over all windows.

    level: the doubt that may be spent in all. It is paid out over the rounds, more of it to the
    first ones, where many sets are given up for little; what a round leaves is there for the next.
    """
    order = np.random.default_rng(seed).permutation(n_windows)
    rounds = [n for n in ROUNDS if n < n_windows]
    if is_exhaustive or keep >= n_sets:
        rounds = []
    values = np.full((n_sets, n_windows), np.nan)
    alive, seen, spent = np.arange(n_sets), 0, 0.0
    n_seen = np.zeros(n_sets, dtype=int)
    for number, until in enumerate([*rounds, n_windows], 1):
        if len(alive) <= keep:
            until = n_windows
        windows = order[seen:until]
        found = yield Look(tuple(alive.tolist()), tuple(windows.tolist()))
        values[np.ix_(alive, windows)] = np.where(np.isnan(found), np.inf, found)
        seen = until
        n_seen[alive] = seen
        if seen == n_windows:
            break
        table = values[np.ix_(alive, order[:seen])]
        budget = level * math.sqrt(number / len(rounds)) - spent
        lost, doubt = _losers(table, keep, n_windows, budget)
        spent += doubt
        alive = alive[~lost]
    if not np.isfinite(values[alive]).all(axis=1).sum() >= keep and len(alive) < n_sets:
        # A leader without a number on a late window must not have beaten those that have one.
        late = np.setdiff1d(np.arange(n_sets), alive)
        for n in np.unique(n_seen[late]):
            those, windows = late[n_seen[late] == n], order[n:]
            found = yield Look(tuple(those.tolist()), tuple(windows.tolist()))
            values[np.ix_(those, windows)] = np.where(np.isnan(found), np.inf, found)
        n_seen[late], spent, alive = n_windows, 0.0, np.arange(n_sets)
    means = _means(values, order, n_seen)
    best = alive[np.argsort(means[alive], kind="stable")][:keep]
    with np.errstate(invalid="ignore"):
        gaps = means - _means(np.tile(values[best[0]], (n_sets, 1)), order, n_seen)
    return Raced(
        tuple(best.tolist()),
        tuple(means.tolist()),
        tuple(gaps.tolist()),
        tuple(n_seen.tolist()),
        spent,
        _rival(values, order, n_seen, best),
    )


def _rival(values: np.ndarray, order: np.ndarray, n_seen: np.ndarray, best: np.ndarray) -> float:
    """What no exhaustive race knows: these windows are a sample, and another has other values."""
    others = np.setdiff1d(np.arange(len(values)), best)
    if not len(others) or not np.isfinite(values[best[-1]]).all():
        return math.nan
    chances = [0.0]
    for n in np.unique(n_seen[others]):
        those, windows = others[n_seen[others] == n], order[:n]
        gaps = values[np.ix_(those, windows)] - values[best[-1], windows]
        gaps = gaps[np.isfinite(gaps).all(axis=1)]
        if len(gaps) and n < 2:  # one window says nothing of how much others differ
            chances.append(0.5)
        elif len(gaps):
            chances.append(float(chance_of_winning(gaps, math.inf).max()))
    return max(chances)


def _means(values: np.ndarray, order: np.ndarray, n_seen: np.ndarray) -> np.ndarray:
    """(set,) means of (set, window) values over the windows that each set was seen on."""
    return np.array([row[order[:n]].mean() for row, n in zip(values, n_seen, strict=True)])


def _losers(
    table: np.ndarray, keep: int, n_windows: int, budget: float
) -> tuple[np.ndarray, float]:
    """(set,) bool: which to give up, and the chance that one of them is among the `keep` best."""
    means = table.mean(axis=1)
    ranked = np.argsort(means, kind="stable")
    lost = np.zeros(len(table), dtype=bool)
    if len(table) <= keep:
        return lost, 0.0
    leader, others = ranked[keep - 1], ranked[keep:]
    hopeless = ~np.isfinite(means[others])
    lost[others[hopeless]] = np.isfinite(means[leader])
    others = others[~hopeless]
    if len(others) < 1 or not np.isfinite(means[leader]):
        return lost, 0.0
    chances = chance_of_winning(table[others] - table[leader], n_windows)
    cheap = np.argsort(chances, kind="stable")
    n_lost = int((np.cumsum(chances[cheap]) <= budget).sum())
    lost[others[cheap[:n_lost]]] = True
    return lost, float(chances[cheap[:n_lost]].sum())


def chance_of_winning(differences: np.ndarray, n_windows: float) -> np.ndarray:
    """(set,) one-sided p that a mean difference is below 0 over all windows.

    differences: (set, n) to the leader on n of the n_windows windows, n at least 2; of infinitely
    many where n are a sample of a text.
    """
    n = differences.shape[1]
    means = differences.mean(axis=1)
    variances, freedom = _moderated(differences.var(axis=1, ddof=1), means, n - 1)
    errors = np.sqrt(variances / n * (1 - n / n_windows))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Windows that agree to the last digit say nothing of how much others may differ.
        sure = np.inf if n == n_windows else 0.0
        t = np.where(errors > 0, means / errors, np.where(means > 0, sure, 0.0))
    return student.sf(t, freedom)


def _moderated(variances: np.ndarray, means: np.ndarray, freedom: int) -> tuple[np.ndarray, float]:
    """Variances drawn towards their trend over the mean, and the degrees of freedom they have.

    With few sets there is no trend to be had and they stay as they are.
    """
    usable = variances > 0
    if usable.sum() < 6:
        return variances, float(freedom)
    # E log s2 = log sigma2 + digamma(f/2) - log(f/2), and its variance is trigamma(f/2).
    logs = np.log(variances[usable]) - digamma(freedom / 2) + np.log(freedom / 2)
    sizes = np.log(np.abs(means[usable]) + 1e-9)
    design = np.stack([np.ones_like(sizes), sizes], axis=1)
    slopes, *_ = np.linalg.lstsq(design, logs, rcond=None)
    rest = logs - design @ slopes
    scatter = rest @ rest / max(1, len(rest) - 2) - polygamma(1, freedom / 2)
    prior = 2 * _inverse_trigamma(scatter) if scatter > 0 else np.inf
    # All sets were seen on the same windows: what these have in common shows in no scatter.
    prior = min(prior, MOST_BORROWED * freedom)
    trend = np.exp(np.stack([np.ones_like(means), np.log(np.abs(means) + 1e-9)], 1) @ slopes)
    trend = trend * np.exp(digamma(prior / 2) - np.log(prior / 2))
    drawn = (prior * trend + freedom * variances) / (prior + freedom)
    return np.where(usable, drawn, 0.0), prior + freedom


def _inverse_trigamma(value: float) -> float:
    """y with trigamma(y) = value > 0, by Newton's method on 1 / trigamma."""
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / value) / polygamma(2, y)
        y += step
        if abs(step) < 1e-9 * y:
            break
    return float(y)
