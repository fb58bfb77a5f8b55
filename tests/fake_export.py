"""Exports without a model: checks that pass one after the other, and a file of a few bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from blockviz.session.export_views import ExportRequest, ModeCard
from blockviz.session.exports import Exported
from blockviz.types import EXPORT_MODES, CheckRow, ExportReport, ModelInfo, PruningPlan

CHECKS = ("fold", "files", "sums", "load", "layers", "parameters", "logits", "tokenizer",
          "perplexity", "cache")  # fmt: skip


def make_modes(info: ModelInfo, plan: PruningPlan) -> tuple[ModeCard, ...]:
    """Packed saves half of what custom does, in place nothing."""
    share = info.parameters_of(plan.removed) / info.n_parameters
    saved = dict(zip(EXPORT_MODES, (share / 2, 0.0, share), strict=True))
    return tuple(
        ModeCard(mode, f"What {mode} is", round(info.n_parameters * (1 - s)), s)
        for mode, s in saved.items()
    )


def make_report(info: ModelInfo, request: ExportRequest, *, note: str = "") -> ExportReport:
    card = next(c for c in make_modes(info, request.plan) if c.mode == request.mode)
    return ExportReport(
        mode=request.mode,
        removed=tuple(str(b) for b in request.plan.removed),
        correction=request.repair.corrections[0] if request.repair else "none",
        n_layers=info.n_layers - 1,
        n_attn=info.n_layers - 1,
        n_mlp=info.n_layers,
        n_parameters=card.n_parameters,
        n_parameters_before=info.n_parameters,
        n_bytes=2 * card.n_parameters,
        n_bytes_before=2 * info.n_parameters,
        effective_ratio=info.parameters_of(request.plan.removed) / info.n_parameters,
        perplexities={"original": 32.94, "exported": 41.2},
        data=f"Wikipedia passages{note}, 16 x 512",
        rows=tuple(
            CheckRow(name, f"Check {name}{note}", passed=True, detail=f"found {name}{note}")
            for name in CHECKS
        ),
        notes=(f"5 half layers stay in the file as zeros{note}.",),
    )


def growing_export(report: ExportReport) -> Iterator[ExportReport]:
    """The report after every check."""
    for n in range(1, len(report.rows) + 1):
        yield replace(report, rows=report.rows[:n])


def make_exported(report: ExportReport, folder: Path) -> Exported:
    """With a file that is there."""
    path = folder / "blockviz-demo-3of60.zip"
    path.write_bytes(b"PK" + bytes(98))
    return Exported(report, path, 100, f"# {report.data} without {len(report.removed)} blocks")
