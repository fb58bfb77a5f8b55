"""Corrections of a plan side by side: each is fitted, measured, and becomes a row of a table."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any

from blockviz.corrections import Correction, Repair, Trained, fit, repaired_model
from blockviz.data import overlap_warning, part_of
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.evaluate import Perplexity, measure_perplexity
from blockviz.memory import SHARE, free_bytes
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.session.fitted_repairs import FittedRepairs, key_of
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.place_fits import place_fits
from blockviz.session.repair_space import check_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Done,
    Events,
    ExportMode,
    Progress,
    RepairRow,
    RepairTable,
    passing,
)

# So many numbers of channels go into a table; rows beyond have none.
MOST_NUMBERS = 1_500_000

# What is trained is measured now and then while it is; for so long it is trained between two
# measurements, as a multiple of what one takes.
PATIENCE = 4.0
UNFINISHED = "Its training was not over: this is the best until then."

# Is given the fitted repair of a row each time that row becomes the one to keep, and while the only
# one that was asked for is trained, the best so far.
Keep = Callable[[Repair], None]


@dataclass(frozen=True)
class FitWindows:
    """What corrections are fitted on, and what none has seen, to choose by; None: nothing is."""

    fit: CalibrationSet
    held: CalibrationSet | None


def repair_request(
    model: BlockModel,
    request: RepairRequest,
    keep: Keep | None = None,
    known: FittedRepairs | None = None,
) -> Events:
    """Done(RepairTable) of a request; a partial table after every row."""
    check_repair(request)
    request.plan.check(model.info)
    windows: FitWindows = yield from passing(open_fit_windows(model, request))
    evaluation = yield from passing(open_windows(model, request.evaluation, "evaluation"))
    yield from repair_windows(model, windows.fit, windows.held, evaluation, request, keep, known)


def open_fit_windows(model: BlockModel, request: RepairRequest) -> Events:
    """Done(FitWindows): of one text n_skip windows left out, those to fit on, those held back."""
    first, n_fit = request.n_skip, request.text.n_samples
    asked = replace(request.text, n_samples=first + n_fit + request.n_held)
    windows = yield from passing(open_windows(model, asked))
    last = first + n_fit
    held = part_of(windows, last, len(windows), role="selection") if request.n_held else None
    yield Done(FitWindows(part_of(windows, first, last, role="calibration"), held))


def repair_windows(
    model: BlockModel,
    fit_windows: CalibrationSet,
    held_windows: CalibrationSet | None,
    evaluation_windows: CalibrationSet,
    request: RepairRequest,
    keep: Keep | None = None,
    known: FittedRepairs | None = None,
) -> Events:
    """Done(RepairTable) on given windows: the original, the bare plan, then one row a correction.

    A correction that this model cannot have becomes a row that says why. `keep` gets the repair of
    the best one so far, or of the only one that was asked for. What is in `known` is not fitted
    again, and what is fitted is there afterwards.
    """
    corrections = check_repair(request)
    request.plan.check(model.info)
    warning = overlap_warning(fit_windows, evaluation_windows)
    windows = FitWindows(fit_windows, held_windows)
    run = _Run(model, request, corrections, windows, evaluation_windows, warning, known)
    yield from run.events(keep)


def fitted(
    model: BlockModel,
    request: RepairRequest,
    correction: Correction,
    windows: FitWindows,
    known: FittedRepairs | None = None,
) -> Events:
    """Done(Repair) of one correction of a request's plan; its steps carry nothing.

    One that is in `known` is not fitted again.
    """
    for event in _fitting(model, request, correction, windows, known):
        yield event if isinstance(event, Done) else replace(event, partial=None)


def _fitting(
    model: BlockModel,
    request: RepairRequest,
    correction: Correction,
    windows: FitWindows,
    known: FittedRepairs | None,
) -> Events:
    """The events of `fit`; its result is taken from `known` where it is there, and left there."""
    key = key_of(request.plan, correction, windows.fit, windows.held)
    repair = None if known is None else known.get(model, key)
    if repair is not None:
        yield Done(replace(repair, plan=request.plan))
        return
    started = time.monotonic()
    events = fit(
        model,
        request.plan,
        correction,
        windows.fit,
        held=windows.held,
        memory_bytes=request.memory_bytes or int(SHARE * free_bytes()),
    )
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Done):
                event = Done(replace(event.result, seconds=time.monotonic() - started))
                if known is not None:
                    known.put(model, key, event.result)
            yield event


def repaired_by(model: BlockModel, request: RepairRequest) -> Events:
    """Done(RepairedModel) by the first correction of a request."""
    correction = next(iter(check_repair(request).values()))
    request.plan.check(model.info)
    windows: FitWindows = yield from passing(open_fit_windows(model, request))
    repair = yield from passing(fitted(model, request, correction, windows))
    yield Done(repaired_model(model, repair))


# Steps in between, as Progress; at the end a value.
Running = Generator[Progress, None, Any]


@dataclass
class _Run:
    """The rows so far."""

    model: BlockModel
    request: RepairRequest
    corrections: dict[str, Correction]
    windows: FitWindows
    evaluation: CalibrationSet
    warning: str
    known: FittedRepairs | None = None
    rows: list[RepairRow] = field(default_factory=list)
    whole: Perplexity | None = None
    n_tokens: int = 0
    n_numbers: int = 0
    # What measuring a row took, the last time.
    measuring_seconds: float = 0.0

    def events(self, keep: Keep | None) -> Events:
        for name, title, removed in (
            ("original", "Original", ()),
            ("none", "No correction", self.request.plan.removed),
        ):
            row = RepairRow(name, title)
            self.rows.append((yield from self._measured(row, self.model, removed)))
            yield self._progress(name)
        for label, correction in self.corrections.items():
            try:
                repair = yield from self._row(label, correction, keep)
            except (UnsupportedModel, BadInput) as refusal:
                self.rows.append(RepairRow(label, correction.title, refused=str(refusal)))
                repair = None
            chosen = label if len(self.corrections) == 1 else self.best()
            if keep is not None and repair is not None and chosen == label:
                keep(repair)
            yield self._progress(label)
        yield Done(self.table(is_partial=False))

    def _row(self, label: str, correction: Correction, keep: Keep | None) -> Running:
        """The repair; its row is there afterwards."""
        repair: Repair = yield from self._fitted(label, correction, keep)
        self.n_tokens = max(self.n_tokens, repair.n_tokens)
        row = yield from self._met(label, repair, repair.seconds)
        self.rows.append(row)
        self.n_numbers += sum(len(c) for f in row.fits for c in f.channels.values())
        return repair

    def _fitted(self, label: str, correction: Correction, keep: Keep | None) -> Running:
        """The repair. While it is trained, a table now and then has a row of the best so far, which
        is what stays if nothing comes after it."""
        started = latest = time.monotonic()
        is_trained = isinstance(correction, Trained)
        with contextlib.closing(
            _fitting(self.model, self.request, correction, self.windows, self.known)
        ) as events:
            for event in events:
                if isinstance(event, Done):
                    return event.result
                loss = f"{event.note}; " if is_trained and event.note else ""
                note = loss + self._place()
                yield replace(event, stage=f"fitting {label}", note=note, partial=None)
                repair, now = event.partial, time.monotonic()
                if repair is None:
                    continue
                if keep is not None and len(self.corrections) == 1:
                    keep(repair)
                if now - latest >= PATIENCE * self.measuring_seconds:
                    row = yield from self._met(label, repair, now - started)
                    row = replace(row, notes=(*row.notes, UNFINISHED))
                    yield self._progress(label, *(() if row.refused else (row,)))
                    latest = time.monotonic()
        raise RuntimeError("the task ended without a result")

    def _met(self, label: str, repair: Repair, seconds: float) -> Running:
        """The row of a repair."""
        repaired = repaired_model(self.model, repair)
        row = RepairRow(
            label,
            repair.correction.title,
            n_added=added_by(repair, repaired),
            folds=repair.correction.folds,
            passes=round(repair.passes, 3),
            seconds=round(seconds, 3),
            notes=repair.notes,
            fits=place_fits(repair.fits, with_channels=self.n_numbers < MOST_NUMBERS),
        )
        return (yield from self._measured(row, repaired, ()))

    def _measured(self, row: RepairRow, model: BlockModel, removed: tuple[BlockId, ...]) -> Running:
        """The row with its perplexity on both texts."""
        started = time.monotonic()
        events = measure_perplexity(model, self.evaluation, removed=removed)
        found: Perplexity = yield from self._told(events, f"measuring {row.correction}")
        selection = None
        if self.windows.held is not None:
            events = measure_perplexity(model, self.windows.held, removed=removed)
            held: Perplexity = yield from self._told(events, f"measuring {row.correction}")
            selection = held.nll if math.isfinite(held.nll) else None
        self.measuring_seconds = time.monotonic() - started
        self.whole = self.whole or found
        if not math.isfinite(found.nll):
            return RepairRow(row.correction, row.title, refused=no_number(row.correction))
        return replace(
            row,
            nll=found.nll,
            stderr=found.nll_stderr,
            rise=found.nll - self.whole.nll,
            rise_stderr=found.rise_stderr(self.whole),
            selection=selection,
        )

    def _told(self, events: Events, stage: str) -> Running:
        """The result of `events`; its steps under another name, without what they carry."""
        with contextlib.closing(events):
            for event in events:
                if isinstance(event, Done):
                    return event.result
                yield replace(event, stage=stage, note=self._place(), partial=None)
        raise RuntimeError("the task ended without a result")

    def _progress(self, name: str, *unfinished: RepairRow) -> Progress:
        done, total = len(self.rows), 2 + len(self.corrections)
        table = self.table(*unfinished, is_partial=True)
        return Progress(f"measured {name}", done, total, self._place(), partial=table)

    def _place(self) -> str:
        return f"{len(self.rows)} of {2 + len(self.corrections)} rows done"

    def best(self) -> str:
        return best_of(self.rows, self.request.export_mode)

    def table(self, *unfinished: RepairRow, is_partial: bool) -> RepairTable:
        return RepairTable(
            provenance=provenance_of(self.model, self.windows.fit.origin),
            evaluation=provenance_of(self.model, self.evaluation.origin),
            removed=self.request.plan.removed,
            rows=(*self.rows, *unfinished),
            n_tokens=self.n_tokens,
            n_predicted=self.whole.n_tokens if self.whole else 0,
            best=self.best(),
            warning=self.warning,
            is_partial=is_partial,
            export_mode=self.request.export_mode,
        )


def best_of(rows: list[RepairRow], mode: ExportMode = "stock-compact") -> str:
    """The label with the lowest loss on the windows held back, of what the export can carry.

    Empty where nothing was held back, or where none is better there than the bare plan.
    """
    known = {row.correction: row.selection for row in rows[1:] if row.selection is not None}
    able = [row.correction for row in rows[2:] if row.correction in known and row.goes_into(mode)]
    if not able or "none" not in known:
        return ""
    best = min(able, key=known.__getitem__)
    return best if known[best] < known["none"] else ""


def no_number(label: str) -> str:
    """Why a correction has no perplexity."""
    return (
        f"The correction {label} was to be measured. With it the perplexity is no number. Fit on "
        "more tokens, or with a larger ridge."
    )


def added_by(repair: Repair, repaired: RepairedModel) -> int:
    """Parameters that an export has to store beside the plan's; what folds needs none."""
    return 0 if repair.correction.folds else repaired.n_added
