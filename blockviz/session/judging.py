"""Who is right: what single and cumulative removals really cost on held-out text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from blockviz.engine import SetRunner
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.session.kept import KeptResults
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.views import ScoreRequest
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Done,
    Events,
    Judgement,
    Measured,
    Progress,
    ScoreTable,
    passing,
)

JUDGE_REMOVALS = 8


def judge_request(
    model: BlockModel,
    table: ScoreTable,
    request: ScoreRequest,
    *,
    n_removals: int = JUDGE_REMOVALS,
    kept: KeptResults | None = None,
) -> Events:
    """Done(Judgement) of a table's metrics on a request's evaluation text."""
    check_table(model, table)
    windows = yield from passing(open_windows(model, request, "evaluation"))
    yield from judge_windows(model, table, windows, n_removals=n_removals, kept=kept)


def check_table(model: BlockModel, table: ScoreTable) -> None:
    """Nothing, if the table has scores of this model's blocks; BadInput otherwise."""
    blocks = {b for scores in table.metrics.values() for b in scores.values}
    known = {*model.info.units("block"), *model.info.units("layer")}
    if not blocks or not blocks <= known:
        raise BadInput(
            "Metrics were to be judged by what removals cost.",
            f"Their scores are not those of {model.info.name} with {model.info.n_layers} layers.",
            "Give scores of the model that is loaded.",
        )


def judge_windows(
    model: BlockModel,
    table: ScoreTable,
    windows: CalibrationSet,
    *,
    n_removals: int = JUDGE_REMOVALS,
    kept: KeptResults | None = None,
) -> Events:
    """Done(Judgement) on given windows; after every set a partial one with what is known so far.

    Singles: every block, and every layer if a metric scores layers. Curves: the 1, 2, ...
    `n_removals` lowest blocks of each metric, never the whole model.
    """
    asked = _Asked(model, table, n_removals)
    runner = SetRunner(model, windows)
    found: dict[frozenset[BlockId], tuple[float, ...]] = {}
    total = len(asked.sets)
    for done, removed in enumerate(asked.sets):
        losses = []
        for index in range(len(runner)):
            losses.append(_loss(runner, index, removed, kept))
            yield Progress("judging", done, total, f"{len(removed)} removed")
        found[frozenset(removed)] = tuple(torch.cat(losses).tolist())
        partial = asked.judgement(model, windows, found)
        yield Progress("judging", done + 1, total, partial=partial)
    yield Done(asked.judgement(model, windows, found))


def _loss(
    runner: SetRunner, index: int, removed: Sequence[BlockId], kept: KeptResults | None
) -> torch.Tensor:
    if kept is None:
        return runner.nll_of_batch(index, removed)
    return kept.losses(runner, index, removed)


class _Asked:
    """The removed sets that a judgement needs, each once, in an order that shares prefixes."""

    def __init__(self, model: BlockModel, table: ScoreTable, n_removals: int) -> None:
        self._singles = list(model.info.units("block"))
        self._orders: dict[str, list[BlockId]] = {}
        for name, scores in table.metrics.items():
            ranks = scores.ranks()
            self._orders[name] = sorted(ranks, key=ranks.__getitem__)
        if any(b.part == "layer" for order in self._orders.values() for b in order):
            self._singles += model.info.units("layer")
        whole = len(model.info.blocks)
        sets: dict[frozenset[BlockId], tuple[BlockId, ...]] = {frozenset(): ()}
        for block in self._singles:
            sets.setdefault(frozenset([block]), (block,))
        for order in self._orders.values():
            for n in range(1, n_removals + 1):
                cut = tuple(order[:n])
                if len(cut) == n and len({p for b in cut for p in b.parts}) < whole:
                    sets.setdefault(frozenset(cut), cut)
        self._n_removals = n_removals
        self.sets = list(sets.values())

    def judgement(
        self,
        model: BlockModel,
        windows: CalibrationSet,
        found: dict[frozenset[BlockId], tuple[float, ...]],
    ) -> Judgement:
        def curve(order: list[BlockId]) -> Iterator[Measured]:
            for n in range(1, self._n_removals + 1):
                cut = tuple(order[:n])
                if len(cut) < n or frozenset(cut) not in found:
                    return
                yield Measured(cut, found[frozenset(cut)])

        return Judgement(
            provenance=provenance_of(model, windows.origin),
            whole=Measured((), found[frozenset()]),
            singles={
                b: Measured((b,), found[frozenset([b])])
                for b in self._singles
                if frozenset([b]) in found
            },
            curves={name: tuple(curve(order)) for name, order in self._orders.items()},
            is_partial=len(found) < len(self.sets),
        )
