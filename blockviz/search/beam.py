"""Beam: several best sets go on side by side, and the greedy one with them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from blockviz.search.base import STRATEGIES, Space, Strategy, check_space
from blockviz.search.deciding import decided, is_accepted, is_done
from blockviz.types import Answer, Ask, BlockId, Chosen, RemovedSet, Searching, parts_of

by_value = attrgetter("value")


@dataclass(frozen=True)
class _Grown:
    """`best`: the sets that go on, the best first; `path`: the greedy set, None where it ended."""

    best: tuple[Chosen, ...]
    path: Chosen | None
    answers: tuple[Answer, ...]

    @property
    def sets(self) -> tuple[Chosen, ...]:
        return self.best if self.path is None else (*self.best, self.path)


@STRATEGIES.register
@dataclass(frozen=True)
class Beam(Strategy):
    """At every depth the `width` sets of lowest objective, each grown by its `expand` best units.

    Ours, no paper's. Sets that are the same in another order are one. The greedy path is kept
    beside them, so that it never ends worse than greedy: not on the objective, nor, where that has
    a limit, on the number of units. Towards a limit of parameters sets of several sizes end, and
    the one with the lowest objective is taken. It is no exhaustive search of sets.
    """

    width: int = field(default=3, metadata={"label": "Sets kept", "min": 1, "max": 64})
    expand: int = field(default=4, metadata={"label": "Units tried on", "min": 1, "max": 64})

    name = "beam"
    title = "Beam"
    meaning = "Follows several best sets instead of one, and ends with the best of them."
    citation = "blockviz, on the greedy search of Zhong et al. 2025"

    def n_sets(self, space: Space) -> int:
        n = len(space.units)
        # The greedy path asks for itself where it has left the beam, which one set's cannot.
        lines = 1 if self.width == 1 else self.width + 1
        return sum((n - k) * (lines if k else 1) for k in range(space.most_units()))

    def search(self, space: Space) -> Searching:
        check_space(space)
        last = Chosen(())
        if space.goal.is_reached(()):
            return last
        open_, ends = _Grown((last,), last, ()), []
        while open_.sets:
            grown = yield from self._grown(space, open_)
            if not grown.sets:
                break
            best = min(grown.sets, key=by_value)
            last = decided(best.removed, best.value, grown.answers)
            yield last
            ends += [c for c in grown.sets if is_done(space, c.removed)]
            open_ = _open(space, grown)
        best = min(ends, key=by_value, default=last)
        if best.parts != last.parts:
            last = best
            yield last
        return last

    def _grown(self, space: Space, lines: _Grown) -> Generator[Ask, Answer, _Grown]:
        """The best accepted sets with one unit more."""
        found: dict[RemovedSet, Chosen] = {}
        answers, path = [], None
        for members, keep in self._groups(lines):
            sets = _grown_sets(space, members)
            note = f"removal {len(members[0].removed) + 1}"
            answer = yield Ask(tuple(sets), keep=min(keep, len(sets)), note=note)
            answers.append(answer)
            best = [Chosen(sets[s], answer.values[s]) for s in answer.best]
            best = [c for c in best if is_accepted(space.goal, c.value)]
            for chosen in best:
                found.setdefault(chosen.parts, chosen)
            if best and lines.path is not None and _is_only(members, lines.path):
                path = best[0]
        ranked = sorted(found.values(), key=by_value)
        return _Grown(tuple(ranked[: self.width]), path, tuple(answers))

    def _groups(self, lines: _Grown) -> list[tuple[tuple[Chosen, ...], int]]:
        """Which sets are grown in one asking, and how many of the results are wanted."""
        keep = min(self.width, self.expand)
        groups = [(c,) for c in lines.best]
        # Each of the `width` best of all is among the `width` best of the set it grew from: with
        # `expand` no smaller, one asking finds them, and doubles are raced once.
        if self.expand >= self.width and groups:
            groups = [lines.best]
        asked = [(group, keep) for group in groups]
        if lines.path is not None and not any(_is_only(g, lines.path) for g in groups):
            asked.append(((lines.path,), 1))
        return asked


def _grown_sets(space: Space, members: Iterable[Chosen]) -> dict[RemovedSet, tuple[BlockId, ...]]:
    """Every set with one unit more, in the order of removal it is first reached by."""
    sets: dict[RemovedSet, tuple[BlockId, ...]] = {}
    for member in members:
        for unit in space.next_units(member.removed):
            removed = (*member.removed, unit)
            sets.setdefault(parts_of(removed), removed)
    return sets


def _is_only(members: tuple[Chosen, ...], path: Chosen) -> bool:
    return len(members) == 1 and members[0].parts == path.parts


def _open(space: Space, grown: _Grown) -> _Grown:
    """Those that can still grow."""
    best = tuple(c for c in grown.best if not is_done(space, c.removed))
    is_open = grown.path is not None and not is_done(space, grown.path.removed)
    return _Grown(best, grown.path if is_open else None, ())
