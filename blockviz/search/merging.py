"""Searches that merge runs of layers into one, for as long as the last stream keeps its direction.

What is merged is written down as the steps of the correction `merge`, which puts it into a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.types import Answer, Ask, BlockId, Chosen, Searching, parts_of

THRESHOLD = {"label": "Cosine that must be kept", "min": -2.0, "max": 2.0}


@STRATEGIES.register
@dataclass(frozen=True)
class Laco(Strategy):
    """From the top down, `layers` layers are merged into the lowest of them where that may be.

    It may be where the mean cosine of the last stream with the whole model's, window by window, is
    above `threshold`; then it goes on `interval` layers further down, otherwise one. The last merge
    takes as few as a target leaves. Paper: arXiv 2402.11187, Algorithm 1; the defaults are those of
    its notebook. mode: how layers are merged, see the correction merge.
    """

    layers: int = field(default=7, metadata={"label": "Layers that become one", "min": 2})
    interval: int = field(default=1, metadata={"label": "Layers between two merges", "min": 1})
    threshold: float = field(default=0.45, metadata=THRESHOLD)
    mode: str = field(
        default="paper", metadata={"label": "How layers merge", "choices": ("paper", "code")}
    )

    name = "laco"
    title = "LaCo"
    meaning = "Merges runs of layers into their lowest one for as long as the result looks alike."
    reference = "https://arxiv.org/abs/2402.11187"
    citation = "Yang et al. 2024, LaCo"
    units = ("layer",)
    ends_itself = True
    repair = "merge"
    objective = "final_cos"

    def n_sets(self, space: Space) -> int:
        return max(1, space.n_blocks // 2 - 1)

    def search(self, space: Space) -> Searching:
        check_space(space)
        merging = _Merging(space, f"merge:mode={self.mode}", self.threshold)
        at = max(0, len(merging.alive) - self.layers)
        while at >= 0 and not merging.is_reached:
            group = merging.within_goal(merging.alive[at + 1 : at + self.layers])
            answer = yield from merging.tried(merging.alive[at], group)
            if answer is None:
                at -= 1
                continue
            yield merging.commit()
            at = min(at - self.interval, len(merging.alive) - self.layers)
        return merging.chosen


@STRATEGIES.register
@dataclass(frozen=True)
class SlidingMerge(Strategy):
    """A window of layers grows downwards for as long as merging all of it into its lowest may be.

    It may be where the mean cosine of the last stream with the whole model's is above `threshold`.
    Then the next window begins below it. The last layer stays. Paper: arXiv 2502.19159; a window
    that is still open at the bottom is merged too, which its code leaves out. factor: how far each
    layer of a window draws the merged one towards itself, 1 = the highest one's weights stay.
    """

    threshold: float = field(default=0.72, metadata=THRESHOLD)
    factor: float = field(
        default=1.0, metadata={"label": "Weight of each layer", "min": 0.0, "max": 1.0}
    )

    name = "sliding_merge"
    title = "Sliding merge"
    meaning = "Lets windows of layers grow and merges each once one layer more would change much."
    reference = "https://arxiv.org/abs/2502.19159"
    citation = "Ding et al. 2025, Sliding Layer Merging"
    units = ("layer",)
    ends_itself = True
    repair = "merge"
    objective = "final_cos"

    def n_sets(self, space: Space) -> int:
        return max(1, space.n_blocks // 2 - 2)

    def search(self, space: Space) -> Searching:
        check_space(space)
        how = f"merge:mode=code:factor={self.factor}"
        merging = _Merging(space, how, self.threshold)
        high = len(merging.alive) - 2
        low, is_open = high - 1, False
        while low >= 0 and not merging.is_reached:
            answer = yield from merging.tried(low, range(low + 1, high + 1))
            if answer is not None:
                low, is_open = low - 1, True
                continue
            if is_open:
                yield merging.commit()
            high, low, is_open = low, low - 1, False
        if is_open:
            yield merging.commit()
        return merging.chosen


class _Merging:
    """The layers that are left, what was merged so far, and the last merge that may be."""

    def __init__(self, space: Space, how: str, threshold: float) -> None:
        self.alive = list(range(space.n_blocks // 2))
        self.chosen = Chosen(())
        self._space, self._how, self._threshold = space, how, threshold
        self._units = {u.layer for u in space.units}
        self._steps: tuple[str, ...] = ()
        self._open: tuple[Chosen, str] | None = None

    @property
    def is_reached(self) -> bool:
        return self._space.goal.is_reached(self.chosen.removed)

    def within_goal(self, group: Sequence[int]) -> Sequence[int]:
        """As many of these layers, the lowest ones, as may still go."""
        while group and not self._space.may_be((*self.chosen.removed, *_layers(group))):
            group = group[:-1]
        return group

    def tried(self, base: int, group: Sequence[int]) -> Searching:
        """The Answer of merging `group` into the layer `base`; None where that may not be."""
        layers = _layers(group)
        removed = (*self.chosen.removed, *layers)
        is_free = bool(layers) and self._units.issuperset(group)
        if not is_free or not self._space.may_be(removed):
            return None
        step = f"{base}+{len(layers)}"
        repair = f"{self._how}:steps={'/'.join((*self._steps, step))}"
        note = f"merging {len(layers)} into layer {base}"
        answer: Answer = yield Ask((parts_of(removed),), note=note, repair=repair)
        # A value that is no number is not below anything.
        if not 1 - answer.value > self._threshold:
            return None
        doing = Chosen(removed, answer.value, answer.evaluated, 1, repair=repair)
        self._open = doing, step
        return answer

    def commit(self) -> Chosen:
        """The last merge that may be is made."""
        self.chosen, step = self._open
        self._steps = (*self._steps, step)
        gone = {b.layer for b in self.chosen.removed}
        self.alive = [i for i in self.alive if i not in gone]
        return self.chosen


def _layers(group: Sequence[int]) -> tuple[BlockId, ...]:
    return tuple(BlockId(i, "layer") for i in group)
