"""Local swap: a removed block comes back and another one goes for it, while that helps."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from blockviz.search.base import STRATEGIES, Space, Strategy, tie_key
from blockviz.search.beam import Beam
from blockviz.search.deciding import decided, is_done
from blockviz.search.greedy import Greedy
from blockviz.search.oneshot import OneShot
from blockviz.types import Answer, Ask, Chosen, Searching, parts_of

STARTS = {"greedy": Greedy, "oneshot": OneShot, "beam": Beam}


@STRATEGIES.register
@dataclass(frozen=True)
class Swap(Strategy):
    """R <- R - a + b for the best b, if objective(R - a + b) < objective(R); for each a in turn.

    Ours, no paper's. It begins with a whole search of another kind (`start`) and ends once no
    exchange helps, or after `sweeps` times through the removed units. One turn asks for R and for
    every R - a + b, so that a race gives up what is not better than R: C - K evaluations at most
    with C candidates of which K are removed, so K (C - K) a sweep beside those of `start`. The
    objective never rises. An exchange cuts as far as the goal wants as before, and of two units
    that are not of one size the smaller one goes only if no other unit fits beside it. It finds no
    set that takes two exchanges at once, and adds no unit where a limit of the value leaves room.
    """

    start: str = field(
        default="greedy", metadata={"label": "Begins with", "choices": tuple(STARTS)}
    )
    sweeps: int = field(default=2, metadata={"label": "Sweeps at most", "min": 1, "max": 100})

    name = "swap"
    title = "Greedy, then swaps"
    meaning = "Exchanges one removed block for one that was kept for as long as that helps."
    citation = "blockviz, on the greedy search of Zhong et al. 2025"

    def needs(self) -> str:
        """What it wants of the space, which depends on how it begins."""
        return STARTS[self.start].wants

    def n_sets(self, space: Space) -> int:
        n, most = len(space.units), space.most_units()
        # A limit of parameters leaves open how many go.
        at_least = 0 if space.goal.n_units is None else most
        sweep = max(k * (n - k + 1) for k in range(at_least, most + 1))
        return STARTS[self.start]().n_sets(space) + self.sweeps * sweep

    def search(self, space: Space) -> Searching:
        chosen = yield from STARTS[self.start]().search(space)
        answers: list[Answer] = []
        n, n_quiet = len(chosen.removed), 0
        for turn in range(self.sweeps * n):
            better, answer = yield from _exchanged(space, chosen, turn % n)
            answers.append(answer)
            if better is None:
                n_quiet += 1
            else:
                # What came in was the best in this place: its own turn would find the same.
                chosen, n_quiet = decided(better.removed, better.value, answers), 1
                answers = []
                yield chosen
            if n_quiet == n:
                break
        return decided(chosen.removed, chosen.value, answers) if answers else chosen


def _exchanged(
    space: Space, chosen: Chosen, place: int
) -> Generator[Ask, Answer, tuple[Chosen | None, Answer]]:
    """The set with the best other unit in one place of the order, None where none is better."""
    removed, gone = chosen.removed, set(chosen.removed)
    others = sorted((u for u in space.units if u not in gone), key=tie_key)
    swapped = [(*removed[:place], u, *removed[place + 1 :]) for u in others]
    is_whole = is_done(space, removed)
    fitting = (r for r in swapped if space.may_be(r) and (is_done(space, r) or not is_whole))
    # R comes first: equals leave it as it is, and a race sees from the start what is to be beaten.
    sets = {parts_of(r): r for r in (removed, *fitting)}
    answer = yield Ask(tuple(sets), note=f"exchange of {removed[place]}")
    best = sets[answer.best[0]]
    is_better = best != removed and answer.value < chosen.value
    return (Chosen(best, answer.value) if is_better else None), answer
