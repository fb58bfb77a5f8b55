"""Who is right: what single and cumulative removals really cost on held-out text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

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
    ModelInfo,
    Progress,
    Provenance,
    RemovedSet,
    ScoreTable,
    passing,
)

JUDGE_REMOVALS = 8
# Perplexities of one model on one text that differ by less are of one and the same arithmetic.
SAME = 1e-3


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
    before: Judgement | None = None,
) -> Events:
    """Done(Judgement) on given windows; after every set a partial one with what is known so far.

    Singles: every block, and every layer if a metric scores layers. Curves: the 1, 2, ...
    `n_removals` lowest blocks of each metric, never the whole model. before: an earlier judgement,
    whose sets are not measured again if it is of this model and text and the whole model still
    has its perplexity there.
    """
    asked = _Asked(model.info, table, n_removals)
    runner = SetRunner(model, windows)
    provenance = provenance_of(model, windows.origin)
    found: dict[RemovedSet, tuple[float, ...]] = {}
    total = len(asked.sets)
    for done, removed in enumerate(asked.sets):
        if frozenset(removed) in found:
            yield Progress("judging", done + 1, total, "known")
            continue
        losses = []
        for index in range(len(runner)):
            losses.append(_loss(runner, index, removed, kept))
            yield Progress("judging", done, total, f"{len(removed)} removed")
        found[frozenset(removed)] = tuple(torch.cat(losses).tolist())
        if not removed and before is not None:
            found |= _still_known(before, asked.judgement(provenance, found))
        partial = asked.judgement(provenance, found)
        yield Progress("judging", done + 1, total, partial=partial)
    yield Done(asked.judgement(provenance, found))


def n_left(info: ModelInfo, table: ScoreTable, judgement: Judgement) -> int:
    """How many sets judge_windows would still have to measure of a table."""
    known = {frozenset(m.removed) for m in judgement.all_measured()}
    return sum(frozenset(removed) not in known for removed in _Asked(info, table).sets)


def _still_known(before: Judgement, now: Judgement) -> dict[RemovedSet, tuple[float, ...]]:
    """Removed set -> losses of an earlier judgement, if they may stand beside those of now."""
    of = [(j.provenance.model, j.provenance.revision, j.provenance.quantisation, j.provenance.dtype,
           j.provenance.data.token_hash if j.provenance.data else "", len(j.whole.nll))
          for j in (before, now)]  # fmt: skip
    is_same = math.isclose(before.whole.perplexity, now.whole.perplexity, rel_tol=SAME)
    if of[0] != of[1] or not is_same:
        return {}
    return {frozenset(m.removed): m.nll for m in before.all_measured() if m.removed}


def _loss(
    runner: SetRunner, index: int, removed: Sequence[BlockId], kept: KeptResults | None
) -> torch.Tensor:
    if kept is None:
        return runner.nll_of_batch(index, removed)
    return kept.losses(runner, index, removed)


class _Asked:
    """The removed sets that a judgement needs, each once, in an order that shares prefixes."""

    def __init__(
        self, info: ModelInfo, table: ScoreTable, n_removals: int = JUDGE_REMOVALS
    ) -> None:
        self._singles = list(info.units("block"))
        self._orders: dict[str, list[BlockId]] = {}
        for name, scores in table.metrics.items():
            ranks = scores.ranks()
            self._orders[name] = sorted(ranks, key=ranks.__getitem__)
        if any(b.part == "layer" for order in self._orders.values() for b in order):
            self._singles += info.units("layer")
        whole = len(info.blocks)
        sets: dict[RemovedSet, tuple[BlockId, ...]] = {frozenset(): ()}
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
        self, provenance: Provenance, found: Mapping[RemovedSet, tuple[float, ...]]
    ) -> Judgement:
        def curve(order: list[BlockId]) -> Iterator[Measured]:
            for n in range(1, self._n_removals + 1):
                cut = tuple(order[:n])
                if len(cut) < n or frozenset(cut) not in found:
                    return
                yield Measured(cut, found[frozenset(cut)])

        return Judgement(
            provenance=provenance,
            whole=Measured((), found[frozenset()]),
            singles={
                b: Measured((b,), found[frozenset([b])])
                for b in self._singles
                if frozenset([b]) in found
            },
            curves={name: tuple(curve(order)) for name, order in self._orders.items()},
            is_partial=len(found) < len(self.sets),
        )
