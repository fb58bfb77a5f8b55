"""Searches that repair what they cut as they go, so that what can be repaired goes first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from blockviz.search.base import STRATEGIES, Space, Strategy, check_space, tie_key
from blockviz.search.deciding import decided, is_accepted
from blockviz.search.greedy import cheapest
from blockviz.search.lazy import Prices
from blockviz.search.oneshot import check_scores
from blockviz.types import Ask, Chosen, Rescore, Searching, parts_of


@STRATEGIES.register
@dataclass(frozen=True)
class RepairGreedy(Strategy):
    """R <- R + argmin over b of objective(R + b with a repair fitted to it), until the goal.

    Ours, no paper's. Every decision has two rounds. All candidates are raced in the model as the
    last decision left it, its repair in it, with nothing fitted for themselves; for the `rerank`
    best of them the repair is then fitted anew, and the lowest objective with it decides. With
    rerank=1 the repair changes what the next decision starts from, no more.
    """

    rerank: int = field(
        default=3, metadata={"label": "Candidates that are repaired", "min": 1, "max": 100}
    )
    slack: float = field(
        default=4.0, metadata={"label": "Leave out what cost so many times the cheapest", "min": 0}
    )

    name = "repair_greedy"
    title = "Greedy, repaired"
    meaning = "Removes the block that hurts least once what was cut is repaired, and goes on."
    citation = "blockviz, on the greedy search of Zhong et al. 2025"
    repair = "writer_refit"

    def n_sets(self, space: Space) -> int:
        every = sum(len(space.units) - k for k in range(space.most_units()))
        return every + self.rerank * space.most_units()

    def n_fits(self, space: Space) -> int:
        return self.rerank * space.most_units()

    def search(self, space: Space) -> Searching:
        check_space(space)
        chosen, prices = Chosen(()), Prices(0.0 if space.is_exhaustive else self.slack)
        while not space.goal.is_reached(chosen.removed):
            found = yield from cheapest(space, chosen, prices, self.rerank)
            if found is None:
                break
            units, answers = found
            sets = {parts_of((*chosen.removed, u)): u for u in units}
            note = f"removal {len(chosen.removed) + 1}, repaired"
            answer = yield Ask(tuple(sets), keep=len(sets), note=note, repair="")
            if not is_accepted(space.goal, answer.value):
                break
            removed = (*chosen.removed, sets[answer.best[0]])
            chosen = replace(decided(removed, answer.value, [*answers, answer]), repair="")
            yield chosen
        return chosen


@STRATEGIES.register
@dataclass(frozen=True)
class Iterative(Strategy):
    """R <- R + the unit of lowest importance in the model as it is by now, until the goal.

    With a repair each removal is made up for before the next scoring: with the metric bi and the
    correction scalar this is the loop of Prune&Comp (arXiv 2507.18212). The objective only measures
    what was chosen.
    """

    name = "iterative"
    title = "One by one"
    meaning = "Removes the lowest score, repairs if asked to, scores what is left anew, and so on."
    reference = "https://arxiv.org/abs/2507.18212"
    citation = "Chen et al. 2026, Prune&Comp"
    wants = "rescoring"
    repair = "none"

    def n_sets(self, space: Space) -> int:
        return 2 * space.most_units()

    def n_fits(self, space: Space) -> int:
        return space.most_units()

    def search(self, space: Space) -> Searching:
        check_space(space)
        chosen = Chosen(())
        while not space.goal.is_reached(chosen.removed):
            units = space.next_units(chosen.removed)
            if not units:
                break
            scores = yield Rescore(note=f"removal {len(chosen.removed) + 1}")
            check_scores(units, scores)
            unit = min(units, key=lambda u: (scores[u], tie_key(u)))
            removed = (*chosen.removed, unit)
            answer = yield Ask((parts_of(removed),), note=f"{len(removed)} removed", repair="")
            if not is_accepted(space.goal, answer.value):
                break
            chosen = replace(decided(removed, answer.value, [answer]), repair="")
            yield chosen
        return chosen
