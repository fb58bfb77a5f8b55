"""Beam: several best sets go on side by side, behind a greedy search."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.search.deciding import decided, is_accepted, is_done
from blockviz.search.greedy import Greedy
from blockviz.types import Answer, Ask, BlockId, Chosen, RemovedSet, Searching, parts_of

by_value = attrgetter("value")


@STRATEGIES.register
@dataclass(frozen=True)
class Beam(Strategy):
    """At every depth the `width` sets of lowest objective, each grown by its `expand` best units.

    Ours, no paper's. A whole greedy search comes first, and its set of every depth stands among
    those of the beam: what is decided on in the end is never worse than greedy, however the races
    went: not on the objective, nor, where that has a limit, on the number of units. Sets that are
    the same in another order are one. Towards a limit of parameters sets of several sizes end, and
    the one with the lowest objective is taken. It is no exhaustive search of sets.
    """

    width: int = field(default=3, metadata={"label": "Sets kept", "min": 1, "max": 64})
    expand: int = field(default=4, metadata={"label": "Units tried on", "min": 1, "max": 64})

    name = "beam"
    title = "Greedy, then beam"
    meaning = "Follows several best sets instead of one, and ends with the best of them."
    citation = "blockviz, on the greedy search of Zhong et al. 2025"

    def n_sets(self, space: Space) -> int:
        n, greedy = len(space.units), Greedy().n_sets(space)
        if self.width == 1:
            return greedy
        lines = ((n - k) * (self.width if k else 1) for k in range(space.most_units()))
        return greedy + sum(lines)

    def search(self, space: Space) -> Searching:
        check_space(space)
        path: list[Chosen] = []
        greedy = yield from _noted(Greedy().search(space), path)
        if self.width == 1 or not path:
            return greedy
        chain = {len(chosen.removed): chosen for chosen in path}
        open_, ends, answers = (Chosen(()),), [greedy], []
        while open_:
            grown = yield from self._grown(space, open_, chain, answers)
            if grown and space.goal.max_value is not None:
                ends.append(grown[0])
            ends += [c for c in grown if is_done(space, c.removed)]
            open_ = tuple(c for c in grown if not is_done(space, c.removed))
        best = min(ends, key=lambda c: _worth(space, c))
        last = decided(best.removed, best.value, answers)
        if best.parts != greedy.parts:
            yield last
        return last

    def _grown(
        self,
        space: Space,
        members: tuple[Chosen, ...],
        chain: dict[int, Chosen],
        answers: list[Answer],
    ) -> Generator[Ask, Answer, tuple[Chosen, ...]]:
        """The best accepted sets with one unit more, the best first."""
        depth = len(members[0].removed) + 1
        own = chain.get(depth)
        found = {} if own is None else {own.parts: own}
        keep = min(self.width, self.expand)
        # Each of the `width` best of all is among the `width` best of the set it grew from: with
        # `expand` no smaller, one asking finds them, and doubles are raced once.
        groups = [members] if self.expand >= self.width else [(c,) for c in members]
        for group in groups:
            sets = _grown_sets(space, group)
            if not sets:
                continue
            answer = yield Ask(tuple(sets), keep=min(keep, len(sets)), note=f"beam, depth {depth}")
            answers.append(answer)
            best = [Chosen(sets[s], answer.values[s]) for s in answer.best]
            for chosen in best:
                if is_accepted(space.goal, chosen.value):
                    found.setdefault(chosen.parts, chosen)
        return tuple(sorted(found.values(), key=by_value)[: self.width])


def _noted(searching: Searching, decisions: list[Chosen]) -> Searching:
    """The same search; what it decides on is noted on the way."""
    told = None
    while True:
        try:
            said = searching.send(told)
        except StopIteration as end:
            return end.value
        if isinstance(said, Chosen):
            decisions.append(said)
        told = yield said


def _worth(space: Space, chosen: Chosen) -> tuple[int, float]:
    """Where the objective has a limit, more units come first."""
    depth = 0 if space.goal.max_value is None else -len(chosen.removed)
    return depth, chosen.value


def _grown_sets(space: Space, members: Iterable[Chosen]) -> dict[RemovedSet, tuple[BlockId, ...]]:
    """Every set with one unit more, in the order of removal it is first reached by."""
    sets: dict[RemovedSet, tuple[BlockId, ...]] = {}
    for member in members:
        for unit in space.next_units(member.removed):
            removed = (*member.removed, unit)
            sets.setdefault(parts_of(removed), removed)
    return sets
