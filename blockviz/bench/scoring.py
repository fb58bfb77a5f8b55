"""The fast engine beside the reference engine, and peak memory of scoring."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from blockviz.engine import sweep
from blockviz.engine.sweep import OutputMetric
from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import next_tokens
from blockviz.metrics import METRICS, AblationMetric, ActivationMetric, parse_metrics
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, CalibrationSet, run

Say = Callable[[str], None]
FOUR = ("bi", "rm", "ppl", "lds")


def compare_sweeps(
    model: BlockModel, windows: CalibrationSet, dtype: str, say: Say
) -> dict[str, Any]:
    """Four metrics by the fast engine and ppl alone by the reference, window batches in turn.

    The two take turns batch by batch, so a machine that slows down slows both.
    """
    metrics = parse_metrics(FOUR)
    everything = [m for m in metrics.values() if isinstance(m, AblationMetric)]
    kinds = [s for m in metrics.values() if isinstance(m, ActivationMetric) for s in m.needs]
    ppl: list[OutputMetric] = [METRICS.get("ppl")()]
    blocks = model.info.units("block")
    seconds: dict[str, list[float]] = {"fast": [], "reference": []}
    tables: dict[str, list[Any]] = {"fast": [], "reference": []}
    for part in parts(windows, 8):
        for engine in seconds:
            is_fast = engine == "fast"
            started = time.perf_counter()
            found = run(
                sweep(
                    model,
                    part,
                    everything if is_fast else ppl,
                    candidates=blocks,
                    statistics=dict.fromkeys(kinds, blocks) if is_fast else {},
                    engine=engine,
                )
            )
            seconds[engine].append(time.perf_counter() - started)
            index = [m.name for m in everything].index("ppl") if is_fast else 0
            tables[engine].append(found.tables[index])
    ratio = sum(seconds["fast"]) / sum(seconds["reference"])
    means = {e: _mean_nll(t, blocks) for e, t in tables.items()}
    gap = max(abs(math.expm1(means["fast"][b] - means["reference"][b])) for b in blocks)
    is_equal = _order(means["fast"]) == _order(means["reference"])
    say(
        f"{dtype}: {len(metrics)} metrics, fast {sum(seconds['fast']):.1f} s; ppl alone, reference "
        f"{sum(seconds['reference']):.1f} s; ratio {ratio:.3f}; largest relative difference "
        f"{gap:.1e}; order {'equal' if is_equal else 'differs'}"
    )
    return {
        "what": "bi,rm,ppl,lds by the fast engine / ppl alone by the reference engine",
        "dtype": dtype,
        "n_windows": len(windows),
        "seconds": {e: round(sum(s), 2) for e, s in seconds.items()},
        "ratio": ratio,
        "ratio_per_batch": [
            f / r for f, r in zip(seconds["fast"], seconds["reference"], strict=True)
        ],
        "largest_relative_difference": gap,
        "is_order_equal": is_equal,
        "order": [means["fast"][b] for b in blocks],
    }


def compare_forward(
    model: BlockModel, windows: CalibrationSet, dtype: str, say: Say, *, repeats: int = 5
) -> dict[str, Any]:
    """The reference's cost of one candidate against a plain batched forward with its loss."""
    part = next(parts(windows, 8))
    batch = next(part.batches(8))
    targets, _ = next_tokens(batch)
    seconds: dict[str, list[float]] = {"reference": [], "plain": []}
    candidate = model.info.blocks[0].id
    ppl: list[OutputMetric] = [METRICS.get("ppl")()]
    for _ in range(repeats):
        started = time.perf_counter()
        run(sweep(model, part, ppl, candidates=[candidate], engine="reference"))
        seconds["reference"].append((time.perf_counter() - started) / 2)
        started = time.perf_counter()
        with torch.inference_mode():
            next_token_nll(model.logits(batch).flatten(0, 1), targets.flatten())
        seconds["plain"].append(time.perf_counter() - started)
    pairs = zip(seconds["reference"], seconds["plain"], strict=True)
    ratio = statistics.median(a / b for a, b in pairs)
    say(f"{dtype}: a reference evaluation costs {ratio:.3f} plain forwards with loss")
    return {
        "what": "reference engine, one evaluation / plain batched forward with loss",
        "dtype": dtype,
        "ratio": ratio,
    }


MEMORY_PROGRAM = """
import json, sys
from blockviz.memory import peak_rss_bytes
from blockviz.session.opening import open_model
from blockviz.session.scoring import score_request
from blockviz.session.views import ScoreRequest
from blockviz.types import run
model = run(open_model("demo", dtype="bfloat16"))
loaded = peak_rss_bytes()
request = ScoreRequest(n_samples=int(sys.argv[1]), metrics=("bi", "rm", "ppl", "lds"))
run(score_request(model, request))
print(json.dumps({"loaded_bytes": loaded, "peak_bytes": peak_rss_bytes()}))
"""


def scoring_memory(n_samples: int) -> dict[str, int]:
    """Peak resident memory of a fresh process that loads the demo model and scores it."""
    command = [sys.executable, "-c", MEMORY_PROGRAM, str(n_samples)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def parts(windows: CalibrationSet, size: int) -> Iterator[CalibrationSet]:
    for batch in windows.batches(size):
        yield CalibrationSet(batch.input_ids, batch.attention_mask, windows.origin)


def _mean_nll(tables: list[Any], blocks: tuple[BlockId, ...]) -> dict[BlockId, float]:
    return {b: torch.cat([t.values[b] for t in tables]).mean().item() for b in blocks}


def _order(means: dict[BlockId, float]) -> list[BlockId]:
    return sorted(means, key=means.__getitem__)
