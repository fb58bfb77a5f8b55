"""What fitting a repair costs beside plain forward passes over the same windows, in turns."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from blockviz.bench.scoring import Say
from blockviz.corrections import CORRECTIONS, Repair, fit
from blockviz.models.model import BlockModel
from blockviz.settings import parse_method
from blockviz.types import BlockId, CalibrationSet, PruningPlan, run

FITTED = ("asc", "replaceme", "writer_refit:writers=gap", "writer_refit")


def compare_fits(
    model: BlockModel, windows: CalibrationSet, say: Say, *, repeats: int = 3
) -> list[dict[str, Any]]:
    """Passes and seconds of each correction of one attention block in every second layer."""
    layers = range(2, model.info.n_layers, 2)
    plan = PruningPlan(tuple(BlockId(i, "attn") for i in layers))
    found: dict[str, list[Repair]] = {name: [] for name in FITTED}
    seconds: dict[str, list[float]] = {name: [] for name in (*FITTED, "plain")}
    for _ in range(repeats):
        for name in FITTED:
            started = time.perf_counter()
            found[name].append(run(fit(model, plan, parse_method(CORRECTIONS, name), windows)))
            seconds[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        with torch.inference_mode():
            for batch in windows.batches(max(1, 2048 // windows.input_ids.shape[1])):
                model.module.base_model(input_ids=batch.input_ids.to(model.device))
        seconds["plain"].append(time.perf_counter() - started)
    rows = []
    for name in FITTED:
        pairs = zip(seconds[name], seconds["plain"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        passes = found[name][0].passes
        say(f"{name}: {passes:.2f} passes over the fit windows, {ratio:.2f} times a plain pass")
        rows.append({"correction": name, "gaps": len(layers), "passes": passes, "ratio": ratio})
    return rows
