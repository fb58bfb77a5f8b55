"""Window: one run of neighbouring layers goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from blockviz.errors import BadInput
from blockviz.search.base import STRATEGIES, Space, Strategy
from blockviz.search.deciding import decided, is_accepted
from blockviz.types import Ask, BlockId, Chosen, Searching, parts_of

# Number of layers -> first layer -> the units of that run.
Runs = Mapping[int, Mapping[int, tuple[BlockId, ...]]]


@STRATEGIES.register
@dataclass(frozen=True)
class Window(Strategy):
    """R = layers l* to l* + n - 1 with l* = argmin over l of d(l, n); arXiv 2403.17887, Section 3.

    d compares the streams in front of and behind the run; the shallower of equals goes.
    `by=objective` (ours) measures every run of that length instead and takes the best. n is the
    goal's number of layers, half its number of blocks, or the longest run that fits its limit of
    parameters. Towards a limit of the value or a saving of time n grows by one layer after the
    other; the run of n + 1 layers need not hold that of n. What is scattered it never finds.
    """

    by: str = field(
        default="distance",
        metadata={"label": "Runs compared by", "choices": ("distance", "objective")},
    )

    name = "window"
    title = "Contiguous layers"
    meaning = "Removes the one run of neighbouring layers that changes the stream least."
    reference = "https://arxiv.org/abs/2403.17887"
    citation = "Gromov et al. 2024; Chen et al. 2024, LLM-Streamline"
    wants = "windows"
    units = ("layer", "block")

    def needs(self) -> str:
        """What it wants of the space, which depends on what runs are compared by."""
        return self.wants if self.by == "distance" else ""

    def n_sets(self, space: Space) -> int:
        runs = _wanted(space)
        return sum(len(runs[n]) if self.by == "objective" else 1 for n in runs)

    def search(self, space: Space) -> Searching:
        runs = _wanted(space)
        _check_runs(space, runs)
        if self.by == "distance":
            _check_distances(space, runs)
        chosen = Chosen(())
        for n in runs:
            found = yield from self._best(space, n, runs[n])
            if not is_accepted(space.goal, found.value):
                break
            chosen = found
            yield chosen
            if space.goal.is_reached(chosen.removed):
                break
        return chosen

    def _best(self, space: Space, n: int, runs: Mapping[int, tuple[BlockId, ...]]) -> Searching:
        """The best run of n layers, measured."""
        if self.by == "distance":
            first = min(runs, key=lambda first: (space.windows[first, n], first))
            runs = {first: runs[first]}
        sets = {parts_of(removed): removed for removed in runs.values()}
        answer = yield Ask(tuple(sets), note="1 layer" if n == 1 else f"{n} layers")
        return decided(sets[answer.best[0]], answer.value, [answer])


def _wanted(space: Space) -> Runs:
    """The runs of the longest length that is allowed, or of every length up to it."""
    runs = _runs(space)
    goal = space.goal
    is_open = goal.max_value is not None or goal.min_seconds is not None
    return runs if is_open or not runs else {max(runs): runs[max(runs)]}


def _runs(space: Space) -> Runs:
    """Every run of whole candidate layers that may be removed, the shortest first."""
    of_layer: dict[int, tuple[BlockId, ...]] = {}
    for unit in space.units:
        of_layer[unit.layer] = (*of_layer.get(unit.layer, ()), unit)
    whole = {layer: units for layer, units in of_layer.items() if len(parts_of(units)) == 2}
    found: dict[int, dict[int, tuple[BlockId, ...]]] = {}
    for first in sorted(whole):
        removed: tuple[BlockId, ...] = ()
        for n in range(1, len(whole) + 1):
            removed = (*removed, *whole.get(first + n - 1, ()))
            if first + n - 1 not in whole or not space.may_be(removed):
                break
            found.setdefault(n, {})[first] = removed
    return {n: found[n] for n in sorted(found)}


def _check_runs(space: Space, runs: Runs) -> None:
    if not runs:
        raise BadInput(
            f"A run of neighbouring layers was to be chosen from {len(space.units)} candidates.",
            "Not one whole layer may be removed within the target and the protected layers.",
            "Search the unit layer, ask for a larger cut, or protect fewer layers.",
        )


def _check_distances(space: Space, runs: Runs) -> None:
    missing = [
        (first, n)
        for n in runs
        for first in runs[n]
        if not math.isfinite(space.windows.get((first, n), math.nan))
    ]
    if missing:
        (first, n), n_runs = missing[0], sum(map(len, runs.values()))
        raise BadInput(
            "Runs of layers were to be compared by the distance across them.",
            f"Of {n_runs} runs {len(missing)} have none, the first is {n} from layer {first}.",
            "Order by a metric of runs of layers: cos_win or ang_win.",
        )
