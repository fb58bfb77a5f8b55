"""A pruned model in a folder: put together, written beside it, checked, then moved there."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from blockviz.corrections import Repair, repaired_model
from blockviz.errors import BadInput, ExportMismatch, OverLimit
from blockviz.evaluate import Perplexity, measure_perplexity
from blockviz.export import (
    Assembled,
    assembled,
    distance,
    fingerprint,
    no_repair,
    texts_of,
    verify,
    weight_bytes,
    write_texts,
    write_weights,
)
from blockviz.models.convert import as_llama
from blockviz.models.load import quiet
from blockviz.models.model import BlockModel
from blockviz.session.export_facts import facts_of, notes_of, recipe_of
from blockviz.session.export_folder import beside, check_room, check_target
from blockviz.session.export_views import ExportRequest
from blockviz.session.fitted_repairs import FittedRepairs
from blockviz.session.opening import open_windows
from blockviz.session.repair_space import check_repair
from blockviz.session.repair_state import load_repair
from blockviz.session.repairing import FitWindows, fitted, open_fit_windows
from blockviz.settings import label_of
from blockviz.sources.child import started, ticks
from blockviz.types import (
    EXPORT_MODES,
    CalibrationSet,
    CheckRow,
    Done,
    Events,
    ExportReport,
    Progress,
    passing,
)


def check_export(request: ExportRequest) -> None:
    """BadInput where a request cannot be run, whatever the model is."""
    if request.mode not in EXPORT_MODES:
        raise BadInput(
            f"An export as {request.mode!r} was asked for.",
            "There is no such mode.",
            f"Use {', '.join(EXPORT_MODES)}.",
        )
    if request.repair is not None and len(check_repair(request.repair)) != 1:
        raise BadInput(
            f"An export with {', '.join(request.repair.corrections)} was asked for.",
            "A model carries one correction.",
            "Name one, or give the folder that correct --auto --state has written.",
        )
    if request.as_llama and request.mode == "custom":
        raise BadInput(
            "A custom export as a Llama was asked for.",
            "A custom export carries what has no place in its family.",
            "Leave one of the two out.",
        )


def export_request(
    model: BlockModel, request: ExportRequest, known: FittedRepairs | None = None
) -> Events:
    """Done(ExportReport) when the folder is there and every check of it has passed.

    A repair that is in `known` is not fitted again.

    ExportMismatch names the check that failed; then, as after a cancel, nothing is left behind.
    """
    check_export(request)
    check_target(request.folder)
    request.plan.check(model.info)
    with beside(request.folder) as partial:
        whole = as_llama(model) if request.as_llama else model
        windows = yield from passing(open_windows(model, request.evaluation, "evaluation"))
        repair = yield from passing(_repair(model, request, known))
        found = assembled(whole, repair, request.mode)
        check_room(request, found)
        try:
            yield from _Writing(model, request, repair, found, windows, partial).events()
        except (OSError, SafetensorError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise OverLimit(
                f"An export was to be written to {request.folder}.",
                f"It could not be ({why}).",
                "Free some space, or give --out a folder on another disk.",
            ) from error


def _repair(model: BlockModel, request: ExportRequest, known: FittedRepairs | None) -> Events:
    """Done(Repair): the one of the state, or one that is known, or fitted now, or none."""
    if request.state is not None:
        found = load_repair(request.state, model)
        if request.plan.removed and set(found.plan.removed) != set(request.plan.removed):
            raise BadInput(
                f"The fitted correction in {request.state.name} was to be written with this plan.",
                f"It was fitted on a plan without {', '.join(found.plan.shown())}.",
                "Give that plan, or none.",
            )
        yield Done(found)
    elif request.repair is None:
        yield Done(no_repair(request.plan))
    else:
        correction = next(iter(check_repair(request.repair).values()))
        fit_windows: FitWindows = yield from passing(open_fit_windows(model, request.repair))
        yield from fitted(model, request.repair, correction, fit_windows, known)


# Steps in between, as Progress; at the end a value.
Running = Generator[Progress, None, Any]


@dataclass
class _Writing:
    """One export on its way."""

    model: BlockModel
    request: ExportRequest
    repair: Repair
    found: Assembled
    windows: CalibrationSet
    partial: Path

    def events(self) -> Events:
        hooked = repaired_model(self.model, self.repair)
        original = yield from self._measured("original", self.model)
        shown = yield from self._measured("exported", hooked)
        known = fingerprint(self.found.module)
        folded = self._folding(hooked, known)
        if not folded.passed:
            raise _mismatch(folded)
        yield Progress("writing the weights", 0, 1)
        inside = self.partial / "model"
        inside.mkdir()
        report = self._write(inside, original, shown, known)
        report = yield from self._checked(self.partial, inside, report, shown, folded)
        inside.replace(self.request.folder)
        yield Done(report)

    def _measured(self, name: str, model: BlockModel) -> Running:
        with contextlib.closing(measure_perplexity(model, self.windows)) as events:
            for event in events:
                if isinstance(event, Done):
                    return event.result
                yield Progress(f"measuring {name}", event.done, event.total)
        raise RuntimeError("the task ended without a result")

    def _folding(self, hooked: BlockModel, known: dict[str, Any]) -> CheckRow:
        """Whether the model that is written computes what the repaired one beside it does."""
        row = CheckRow("fold", "The repair in the weights is the repair that was shown")
        gap, bound = distance(hooked.module, known), _bound(self.found, known["dtype"])
        how = "; ".join(self.found.rules) or "nothing had to be folded"
        detail = f"logits off by {gap:.1e} of the largest, {bound:.0e} is allowed; {how}"
        return CheckRow(row.name, row.title, gap <= bound, detail)

    def _write(
        self, folder: Path, original: Perplexity, shown: Perplexity, known: dict[str, Any]
    ) -> ExportReport:
        """The files, but for the check of them."""
        with quiet():
            write_weights(folder, self.found, self.model.tokenizer)
        info = self.model.info
        kept = [b.id.part for b in info.blocks if self.repair.plan.keeps(b.id)]
        report = ExportReport(
            mode=self.request.mode,
            removed=tuple(str(b) for b in self.repair.plan.removed),
            correction=label_of(self.repair.correction),
            n_layers=self.found.n_layers,
            n_parameters=self.found.n_parameters,
            n_parameters_before=info.n_parameters,
            n_bytes=weight_bytes(folder),
            n_bytes_before=info.n_parameters * self.found.module.dtype.itemsize,
            effective_ratio=info.parameters_of(self.repair.plan.removed) / info.n_parameters,
            perplexities={"original": original.value, "exported": shown.value},
            data=self.windows.origin.describe(),
            notes=notes_of(self.model, self.repair, self.found),
            n_attn=kept.count("attn"),
            n_mlp=kept.count("mlp"),
        )
        facts = facts_of(self.model, self.repair, self.found, report)
        recipe = recipe_of(self.model, self.request, self.repair, self.found, report)
        write_texts(folder, texts_of(facts), recipe=recipe, fingerprint=known)
        return report

    def _checked(
        self, beside: Path, folder: Path, report: ExportReport, shown: Perplexity, folded: CheckRow
    ) -> Running:
        """The report with every check of the written files, by a process that knows only them."""
        rows, out = [folded], beside / "rows"
        arguments = [sys.executable, "-m", "blockviz.export.check_child", str(folder)]
        arguments += ["--out", str(out), "--shown", str(self._shown(beside, shown))]
        if report.mode == "custom":
            arguments.append("--runs-own-file")
        environ = {
            "HF_MODULES_CACHE": str(beside / "modules"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        out.touch()
        with started(arguments, log=beside / "log", environ=environ) as process:
            for _ in ticks(process):
                rows = [folded, *_rows(out)]
                partial = report.checked(tuple(rows))
                yield Progress("checking the files", len(rows), 10, partial=partial)
        rows = [folded, *_rows(out)]
        failed = next((row for row in rows if row.passed is not True), None)
        if failed is not None:
            raise _mismatch(failed)
        if process.returncode != 0 or len(rows) < 2:
            ended = CheckRow("load", "Checks run", passed=False, detail="They ended too early.")
            raise _mismatch(ended)
        return report.checked(tuple(rows))

    def _shown(self, beside: Path, shown: Perplexity) -> Path:
        """The windows and their loss, for the process that checks."""
        pairs = zip(self.windows.input_ids, self.windows.attention_mask, strict=True)
        windows = [ids[mask].tolist() for ids, mask in pairs]
        path = beside / "shown"
        data = {"windows": [w for w in windows if len(w) > 1], "nll": shown.nll}
        path.write_text(json.dumps(data), encoding="utf-8")
        return path


def _rows(path: Path) -> list[CheckRow]:
    """The rows of which the whole line is written."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [CheckRow.from_json(json.loads(line)) for line in lines]


def _bound(found: Assembled, dtype: str) -> float:
    """How far folding may move a logit, beside the largest."""
    if dtype != "float32":
        return 0.1 if found.rules else 0.02
    if found.is_scaled:
        # Norms notice a factor by their epsilon.
        return 1e-3
    return 1e-4 if found.rules else 1e-5


def _mismatch(row: CheckRow) -> ExportMismatch:
    return ExportMismatch(
        "An export was written and checked before it was handed over.",
        f"The check {row.name!r} failed: {row.title}: {row.detail}",
        "Nothing was kept. Export in another mode, or in float32, or report this as a fault.",
    )


def verify_folder(folder: Path) -> Events:
    """Done(tuple of CheckRow): every check of an export that needs no more than its files."""
    rows: list[CheckRow] = []
    for row in verify(folder):
        rows.append(row)
        yield Progress("checking the files", len(rows), 8, row.name)
    yield Done(tuple(rows))
