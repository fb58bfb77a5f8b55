"""Sparse weights of a plan's surviving blocks: made, measured, and set side by side."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from blockviz.corrections import Repair, repaired_model
from blockviz.corrections.linears import check_widths, linear_maps
from blockviz.corrections.sparsifying import (
    NoCorrection,
    Sparsity,
    check_room,
    sparsify,
    surviving,
)
from blockviz.data import overlap_warning
from blockviz.errors import BadInput
from blockviz.evaluate import Perplexity, measure_perplexity
from blockviz.memory import SHARE, free_bytes
from blockviz.models.model import BlockModel
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.repairing import FitWindows, added_by, fitted, open_fit_windows
from blockviz.session.sparsify_space import Asked, check_sparsify
from blockviz.session.sparsify_views import SparseRow, SparseTable, SparsifyRequest
from blockviz.settings import label_of
from blockviz.types import CalibrationSet, Done, Events, Progress, passing

# Is given the repair of every sparse row as it is done; the last one is the one to keep.
Keep = Callable[[Repair], None]
# Steps in between, as Progress; at the end a value.
Running = Generator[Progress, None, Any]


def sparsify_request(
    model: BlockModel, request: SparsifyRequest, keep: Keep | None = None
) -> Events:
    """Done(SparseTable) of a request; a partial table after every row."""
    asked = check_sparsify(request)
    _check_model(model, request, asked)
    windows = held = None
    if asked.needs_text:
        found: FitWindows = yield from passing(open_fit_windows(model, request.repair))
        windows, held = found.fit, found.held
    evaluation = yield from passing(open_windows(model, request.repair.evaluation, "evaluation"))
    yield from sparsify_windows(model, windows, evaluation, request, keep, held)


def sparsify_windows(
    model: BlockModel,
    windows: CalibrationSet | None,
    evaluation: CalibrationSet,
    request: SparsifyRequest,
    keep: Keep | None = None,
    held: CalibrationSet | None = None,
) -> Events:
    """Done(SparseTable) on given windows; None will do where nothing is fitted or looked at.

    held: what a correction is trained to keep its best step on.

    A score that comes to no numbers becomes a row that says why.
    """
    asked = check_sparsify(request)
    _check_model(model, request, asked)
    yield from _Run(model, request, asked, windows, evaluation, held).events(keep)


def _check_model(model: BlockModel, request: SparsifyRequest, asked: Asked) -> None:
    plan = request.repair.plan
    plan.check(model.info)
    kept = [b.id for b in model.info.blocks if plan.keeps(b.id)]
    check_widths(model, kept, asked.sparsities[0].pattern)


@dataclass
class _Run:
    """The rows so far."""

    model: BlockModel
    request: SparsifyRequest
    asked: Asked
    windows: CalibrationSet | None
    evaluation: CalibrationSet
    held: CalibrationSet | None = None
    rows: list[SparseRow] = field(default_factory=list)
    whole: Perplexity | None = None

    def __post_init__(self) -> None:
        n_before = 1 + bool(self.request.repair.plan.removed) + (self.asked.correction is not None)
        self.n_rows = n_before + len(self.asked.sparsities)

    def events(self, keep: Keep | None) -> Events:
        plan = self.request.repair.plan
        kept = [b.id for b in self.model.info.blocks if plan.keeps(b.id)]
        for sparsity in self.asked.sparsities:
            check_room(self.model, kept, self.windows, sparsity.score, self._memory())
        base = bare = Repair(NoCorrection(), plan)
        label = "none"
        if self.asked.correction is not None:
            # First of all, since it may be refused.
            label = label_of(self.asked.correction)
            made = FitWindows(self.windows, self.held)
            events = fitted(self.model, self.request.repair, self.asked.correction, made)
            base = yield from self._told(events, f"fitting {label}")
        variant = "pruned" if plan.removed else "original"
        yield from self._measured(
            SparseRow("original"), replace(bare, plan=replace(plan, removed=()))
        )
        if plan.removed:
            yield from self._measured(SparseRow(variant), bare)
        if base is not bare:
            yield from self._measured(SparseRow(variant, label), base)
        for sparsity in self.asked.sparsities:
            row = SparseRow(variant, label, label_of(sparsity.score), sparsity.energy)
            started = time.monotonic()
            try:
                repair = yield from self._told(
                    self._sparse(base, sparsity), f"making {row.label()}"
                )
            except BadInput as refusal:
                self.rows.append(replace(row, refused=str(refusal)))
                continue
            row = replace(row, seconds=round(time.monotonic() - started, 3))
            yield from self._measured(row, repair)
            if keep is not None:
                keep(repair)
        yield Done(self.table(is_partial=False))

    def _memory(self) -> int:
        return self.request.repair.memory_bytes or int(SHARE * free_bytes())

    def _sparse(self, base: Repair, sparsity: Sparsity) -> Events:
        return sparsify(self.model, base, self.windows, sparsity, memory_bytes=self._memory())

    def _measured(self, row: SparseRow, repair: Repair) -> Running:
        """Puts the row into the table, with its perplexity and its counts."""
        model = repaired_model(self.model, repair)
        events = measure_perplexity(model, self.evaluation)
        found: Perplexity = yield from self._told(events, f"measuring {row.label()}")
        self.whole = self.whole or found
        row = _counted(row, model, repair)
        if math.isfinite(found.nll):
            row = replace(
                row,
                nll=found.nll,
                stderr=found.nll_stderr,
                rise=found.nll - self.whole.nll,
                rise_stderr=found.rise_stderr(self.whole),
            )
        else:
            row = replace(row, refused=f"The perplexity of {row.label()} was to be measured. It "
                          "is no number. Make fewer weights zero.")  # fmt: skip
        self.rows.append(row)
        table = self.table(is_partial=True)
        done = len(self.rows)
        yield Progress(f"measured {row.label()}", done, self.n_rows, self._place(), partial=table)

    def _told(self, events: Events, stage: str) -> Running:
        """The result of `events`; its steps under another name, without what they carry."""
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    return event.result
                yield replace(event, stage=stage, note=self._place(), partial=None)
        raise RuntimeError("the task ended without a result")

    def _place(self) -> str:
        return f"{len(self.rows)} of {self.n_rows} rows done"

    def table(self, *, is_partial: bool) -> SparseTable:
        data = None if self.windows is None else self.windows.origin
        is_apart = self.windows is None
        return SparseTable(
            provenance=provenance_of(self.model, data),
            evaluation=provenance_of(self.model, self.evaluation.origin),
            removed=self.request.repair.plan.removed,
            pattern=str(self.asked.sparsities[0].pattern),
            clip=self.request.clip,
            rows=tuple(self.rows),
            n_predicted=self.whole.n_tokens if self.whole else 0,
            warning="" if is_apart else overlap_warning(self.windows, self.evaluation),
            is_partial=is_partial,
        )


def _counted(row: SparseRow, model: BlockModel, repair: Repair) -> SparseRow:
    """With what the model holds, zeros of its own included."""
    blocks = surviving(model, repair)
    matrices = [m.weight for block in blocks for m in linear_maps(model, block).values()]
    n_weights = sum(matrix.numel() for matrix in matrices)
    n_zeros = n_weights - sum(int(matrix.count_nonzero()) for matrix in matrices)
    every = list(model.module.parameters())
    zeros = sum(p.numel() - int(p.count_nonzero()) for p in every)
    gone = model.info.parameters_of(repair.plan.removed)
    n_parameters = model.info.n_parameters - gone + added_by(repair, model)
    return replace(
        row,
        n_weights=n_weights,
        n_zeros=n_zeros,
        n_parameters=n_parameters,
        n_nonzero=n_parameters - zeros,
    )
