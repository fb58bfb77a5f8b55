"""What the Export tab shows of a written model: its checks, its sizes, and the file to fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.plots import visible
from blockviz.session import JobView, Visitor
from blockviz.session.exports import Exported
from blockviz.types import BlockId, ExportReport, parts_of
from blockviz.ui.export_form import MODES
from blockviz.ui.repair_rows import blocks
from blockviz.ui.words import grouped, percent, rise_between, short, size

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.ui.screen import Update

View = dict[str, Any]
NO_CHECKS: View = {"title": "", "lead": "", "rows": [], "facts": [], "code": "", "notes": []}
OUTPUTS = ("export_checks", "export_note", "export_file", "model_card")
NO_FILE = "Nothing to download yet"
PACKED = {"stock-compact": ", in which blocks of several layers share one where they can"}


def drawn(engine: Engine, visitor: Visitor, job: JobView | None) -> Update:
    """The visitor's last export, or how far the running one has come."""
    found = engine.exported(visitor.export_key) if visitor.export_key else None
    is_there = found is not None and found.archive is not None and found.archive.exists()
    return {
        "export_checks": NO_CHECKS if found is None else checks_view(found),
        "export_note": {"text": state_of(visitor, found, job, is_there=is_there)},
        "export_file": gr.update(
            value=str(found.archive) if is_there else None,
            label=f"Download ZIP, {size(found.n_bytes)}" if is_there else NO_FILE,
            interactive=is_there,
        ),
        "model_card": gr.update(value=found.card if is_there else "", visible=is_there),
    }


def state_of(
    visitor: Visitor, found: Exported | None, job: JobView | None, *, is_there: bool
) -> str:
    """Running, failed, stale or gone, in words; nothing where the file is what the Map shows."""
    if job is not None and job.kind == "push":
        return pushed(job)
    is_ours = job is not None and job.kind == "export"
    if is_ours and not job.is_over:
        return "Writing: the file is offered once every check has passed."
    if is_ours and job.state == "failed" and job.error:
        return f"No file is offered. {job.error}"
    if found is None:
        return ""
    if found.archive is None:
        return "No file is offered: the export was stopped before its checks were over."
    if not is_there:
        return "The file has been deleted since, as files are after half an hour. Write it again."
    written = parts_of(BlockId.parse(b) for b in found.report.removed)
    if written != parts_of(visitor.plan().removed):
        n = len(found.report.removed)
        return f"The file is of {blocks(n)}; another set is off on the Map now."
    return ""


def pushed(job: JobView) -> str:
    """How far a push has come, and where the files are."""
    if not job.is_over:
        return "Pushing: a repository appears once every file is there."
    if job.state == "done" and isinstance(job.result, dict):
        return f"Pushed to {visible(str(job.result.get('pushed', '')), 200)}."
    return f"Nothing was pushed. {job.error or ''}".strip()


def checks_view(found: Exported) -> View:
    """Every check as a row, the sizes as facts, and how to load it."""
    report = found.report
    done = sum(row.passed is True for row in report.rows)
    return {
        "title": "Checks of the written files",
        "lead": f"{MODES[report.mode]}, without {blocks(len(report.removed))}, repaired by "
        f"{visible(report.correction)}. {done} of {len(report.rows)} checks passed.",
        "rows": [
            {
                "state": {True: "passed", False: "failed", None: "waits"}[row.passed],
                "title": visible(row.title),
                "detail": visible(row.detail, 300),
            }
            for row in report.rows
        ],
        "facts": [{"name": name, "value": value} for name, value in _facts(report)],
        "notes": [visible(note, 400) for note in report.notes],
        "code": _code(report) if found.archive is not None else "",
    }


def _facts(report: ExportReport) -> list[tuple[str, str]]:
    before, after = report.perplexities["original"], report.perplexities["exported"]
    of = visible(report.data, 200)
    return [
        ("Parameters stored", f"{grouped(report.n_parameters)}, "
         f"{percent(-report.stored_ratio)}"),
        ("Parameters of the removed blocks", percent(-report.effective_ratio)),
        ("Layers", report.layers + PACKED.get(report.mode, "")),
        ("Weights on disk", f"{size(report.n_bytes)}, the original {size(report.n_bytes_before)}"),
        ("Perplexity", f"{short(before)} → {short(after)} ({rise_between(before, after)}) on {of}"),
    ]  # fmt: skip


def _code(report: ExportReport) -> str:
    trusted = ", trust_remote_code=True" if report.mode == "custom" else ""
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("FOLDER"{trusted})\n'
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")'
    )
