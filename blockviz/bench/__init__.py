"""Time and memory, each measured beside its reference in the same run: `blockviz bench`."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from blockviz.bench.exports import compare_exports
from blockviz.bench.metrics import compare_families, kept_of_dense
from blockviz.bench.repair import compare_fits
from blockviz.bench.scoring import Say, compare_forward, compare_sweeps, scoring_memory
from blockviz.bench.search import MIB, compare_searches, search_memory
from blockviz.bench.visitors import many_visitors
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.session.opening import open_model, open_windows, provenance_of
from blockviz.session.views import ScoreRequest
from blockviz.types import CalibrationSet, run

GIB = 2**30


SECTIONS = ("scoring", "search", "exports", "memory", "visitors")


def run_bench(
    *, is_quick: bool, say: Say, text: str = "demo", only: Sequence[str] = SECTIONS
) -> dict[str, Any]:
    """The report as JSON: scoring, searching, fitting and exports beside the plain way, memory, and
    many visitors at one server.

    only: some of SECTIONS; BadInput where there is none of that name.
    """
    if not set(only) <= set(SECTIONS):
        raise BadInput(
            f"Only {', '.join(only)} was to be timed.",
            "There is no such part.",
            f"Use {', '.join(SECTIONS)}.",
        )
    n_samples = 8 if is_quick else 32
    report: dict[str, Any] = {
        "schema": "blockviz/bench/1",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
    }
    runs: list[dict[str, Any]] = []
    if "visitors" in only:
        report["visitors"] = many_visitors(say, is_quick=is_quick)
    if not set(only) - {"visitors"}:
        return report
    for dtype in ("bfloat16", "float32"):
        if dtype == "float32" and not {"scoring", "search"} & set(only):
            break
        model: BlockModel = run(open_model("demo", dtype=dtype))
        windows = run(open_windows(model, ScoreRequest(n_samples=n_samples, calibration=text)))
        report["provenance"] = provenance_of(model, windows.origin).to_json()
        if "scoring" in only:
            runs.append(compare_sweeps(model, windows, dtype, say))
            runs.append(compare_forward(model, windows, dtype, say))
        if dtype == "bfloat16" and "scoring" in only:
            report["metrics"] = compare_families(model, windows, say)
            report["kept_of_dense"] = kept_of_dense(model, windows, say)
            report["fits"] = compare_fits(model, windows, say)
        if "search" in only:
            found = searches(model, windows, say, n_blocks=1 if is_quick else 3)
            report.setdefault("searches", []).extend(found)
        if dtype == "bfloat16" and "exports" in only:
            repeats = 3 if is_quick else 20
            report["exports"] = compare_exports(model, windows, say, repeats=repeats)
    if runs:
        report["runs"] = runs
        orders = [r.pop("order") for r in runs if "order" in r]
        report["tau_bfloat16_float32"] = float(kendalltau(*orders).statistic)
        say(f"Order of bfloat16 against float32: tau-b {report['tau_bfloat16_float32']:.4f}")
    if "memory" in only:
        report |= memory(n_samples, text, say)
    return report


def memory(n_samples: int, text: str, say: Say) -> dict[str, Any]:
    """Peaks of scoring, and of one removal within a budget."""
    found = scoring_memory(n_samples)
    peak, start = (found[k] / GIB for k in ("peak_bytes", "loaded_bytes"))
    say(f"Peak memory of scoring in bfloat16: {peak:.2f} GiB ({start:.2f} GiB with model loaded)")
    budgets = (("ppl", 64 * MIB), ("kl", 64 * MIB), ("ppl", GIB))
    searched = [
        search_memory(n_samples, budget, text, say, objective=name) for name, budget in budgets
    ]
    return {"memory": found, "search_memory": searched}


def machine() -> str:
    """The processor and how many of its cores there are, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def searches(
    model: BlockModel, windows: CalibrationSet, say: Say, *, n_blocks: int
) -> list[dict[str, Any]]:
    """Greedy searches beside the reference: by perplexity, and in bfloat16 by LDS as well."""
    is_first = model.info.dtype == "bfloat16"
    return [
        compare_searches(
            model,
            windows,
            say,
            objective=name,
            n_blocks=n_blocks,
            with_exhaustive=is_first and name == "ppl",
        )
        for name in (("ppl", "lds") if is_first else ("ppl",))
    ]
