"""Greedy search: racing and exhaustive by the fast engine, beside the reference, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from blockviz.bench.scoring import Say
from blockviz.models.model import BlockModel
from blockviz.session.search_views import SearchRequest
from blockviz.session.searching import search_windows
from blockviz.types import CalibrationSet, Done, SearchRun

MIB = 2**20


def compare_searches(
    model: BlockModel,
    windows: CalibrationSet,
    say: Say,
    *,
    objective: str = "ppl",
    n_blocks: int = 3,
    with_exhaustive: bool = True,
) -> dict[str, Any]:
    """Seconds, evaluations and order of each engine; they take turns, a decision each.

    The reference is exhaustive too: by the fast engine it is one run more. A machine that slows
    down slows all of them. What is the same for all, the whole model's value in front of the first
    decision, is timed with the first decision.
    """
    raced = SearchRequest(blocks=n_blocks, objective=objective)
    requests = {"raced": raced, "reference": replace(raced, engine="reference")}
    if with_exhaustive:
        requests["exhaustive"] = replace(raced, is_exhaustive=True)
    running = {name: _decisions(model, windows, asked) for name, asked in requests.items()}
    seconds: dict[str, list[float]] = {name: [] for name in requests}
    runs: dict[str, SearchRun] = {}
    for number in range(n_blocks):
        for name, decisions in running.items():
            started = time.perf_counter()
            runs[name] = next(decisions)
            seconds[name].append(round(time.perf_counter() - started, 2))
        last = runs["raced"].steps[-1]
        say(f"  removal {number + 1}: {last.removed[-1]}, {_row(seconds)}")
    total = {name: sum(values) for name, values in seconds.items()}
    orders = {name: [str(b) for b in run.steps[-1].removed] for name, run in runs.items()}
    report = {
        "what": f"greedy {objective}, {n_blocks} blocks",
        "dtype": model.info.dtype,
        "n_windows": len(windows),
        "seq_len": windows.input_ids.shape[1],
        "text": windows.origin.describe(),
        "seconds": {name: round(value, 2) for name, value in total.items()},
        "seconds_a_step": seconds,
        "evaluations": {name: round(run.n_evaluated, 1) for name, run in runs.items()},
        "asked": runs["raced"].n_of,
        "least_confidence": min(step.confidence for step in runs["raced"].steps),
        "orders": orders,
        "is_order_equal": len({tuple(order) for order in orders.values()}) == 1,
    }
    for name in list(requests)[1:]:
        report[f"{name} / raced"] = total[name] / total["raced"]
    _say(report, say)
    return report


def _decisions(
    model: BlockModel, windows: CalibrationSet, request: SearchRequest
) -> Iterator[SearchRun]:
    for event in search_windows(model, windows, request):
        if not isinstance(event, Done) and event.partial is not None:
            yield event.partial


def _row(seconds: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {values[-1]:.1f} s" for name, values in seconds.items())


def _say(report: dict[str, Any], say: Say) -> None:
    ratios = [f"{name} {report[name]:.2f}" for name in report if name.endswith("/ raced")]
    order = "equal" if report["is_order_equal"] else "DIFFERENT"
    found = report["evaluations"]["raced"]
    say(
        f"{report['dtype']}: {report['what']}, {report['n_windows']} × {report['seq_len']} tokens: "
        f"{'; '.join(ratios)}; {found} of {report['asked']} evaluations; orders {order}"
    )


MEMORY_PROGRAM = """
import json, sys
from blockviz.memory import peak_rss_bytes, rss_bytes
from blockviz.session.opening import open_model, open_windows
from blockviz.session.search_views import SearchRequest
from blockviz.session.searching import search_request
from blockviz.session.views import ScoreRequest
from blockviz.types import run
n_samples, memory, text, objective = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
model = run(open_model("demo", dtype="bfloat16"))
run(open_windows(model, ScoreRequest(n_samples=n_samples, calibration=text)))
sum(float(p.float().sum()) for p in model.module.parameters())
loaded = rss_bytes(forget_peak=True)
asked = SearchRequest(
    text=ScoreRequest(n_samples=n_samples, calibration=text), objective=objective, blocks=1,
    memory_bytes=memory,
)
found = run(search_request(model, asked))
order = [str(b) for b in found.steps[-1].removed]
print(json.dumps({"loaded_bytes": loaded, "peak_bytes": peak_rss_bytes(), "order": order}))
"""


def search_memory(
    n_samples: int, memory: int, text: str, say: Say, *, objective: str = "ppl"
) -> dict[str, Any]:
    """Peak resident memory above the loaded model of one decision within a budget."""
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(n_samples), str(memory), text, objective]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    above = found["peak_bytes"] - found["loaded_bytes"]
    say(f"{objective}, --memory {memory // MIB} MiB: {above / MIB:.1f} MiB above the loaded model")
    return {**found, "objective": objective, "budget_bytes": memory, "above_bytes": above}
