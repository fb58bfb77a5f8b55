"""What many metrics cost together: beside perplexity alone, and beside a plain forward pass."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from blockviz.bench.scoring import Say, parts
from blockviz.engine import sweep
from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import next_tokens
from blockviz.metrics import AblationMetric, ActivationMetric, parse_metrics
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, CalibrationSet, Readout, run

# Everything that one forward pass gives; the CKA map is worked out apart.
ONE_PASS = ("bi", "rm", "ang_win", "cos_win", "tabp_ssn", "tabp_ddf", "cvr")
DRIFT = ("norm", "ang", "kl", "js")
FAMILIES = {
    "ppl": ("ppl",),
    "ppl, lds, one-pass": ("ppl", "lds", *ONE_PASS),
    "ppl, lds, one-pass, norm, ang, kl, js": ("ppl", "lds", *ONE_PASS, *DRIFT),
    "one-pass": ONE_PASS,
}


def compare_families(model: BlockModel, windows: CalibrationSet, say: Say) -> dict[str, Any]:
    """Seconds of each family and of a plain forward with loss, window batches in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in (*FAMILIES, "plain forward")}
    for part in parts(windows, 8):
        for name, metrics in FAMILIES.items():
            seconds[name].append(_timed(lambda m=metrics, p=part: _score(model, p, m)))
        seconds["plain forward"].append(_timed(lambda p=part: _plain(model, p)))
    total = {name: sum(values) for name, values in seconds.items()}
    ratios = {f"{name} / ppl": total[name] / total["ppl"] for name in list(FAMILIES)[1:3]} | {
        "one-pass / plain forward": total["one-pass"] / total["plain forward"]
    }
    for name, ratio in ratios.items():
        say(f"bfloat16: {name}: {ratio:.3f}")
    return {
        "n_windows": len(windows),
        "dtype": model.info.dtype,
        "seconds": {name: round(value, 3) for name, value in total.items()},
        "ratios": ratios,
    }


def kept_of_dense(model: BlockModel, windows: CalibrationSet, say: Say) -> dict[str, int]:
    """Bytes that LDS keeps of the dense model's output for one batch, beside the whole output."""
    part = next(parts(windows, 8))
    batch = next(part.batches(8))
    logits = model.logits(batch).flatten(0, 1)
    targets, has_target = (t.flatten() for t in next_tokens(batch))
    readout = Readout(logits.float(), torch.zeros(len(targets)), targets, has_target)
    (lds,) = parse_metrics(["lds"]).values()
    kept = sum(t.nbytes for t in lds.remember(readout).values())
    whole = readout.logits.nbytes
    say(
        f"LDS with K = {lds.k} keeps {kept / 2**20:.2f} MiB of {whole / 2**20:.1f} MiB of logits "
        f"for {len(targets)} tokens"
    )
    return {"n_tokens": len(targets), "k": lds.k, "kept_bytes": kept, "logits_bytes": whole}


def _score(model: BlockModel, windows: CalibrationSet, names: Sequence[str]) -> None:
    metrics = parse_metrics(names).values()
    passes: dict[Any, tuple[BlockId, ...]] = {}
    statistics: dict[Any, tuple[BlockId, ...]] = {}
    for metric in metrics:
        if isinstance(metric, ActivationMetric):
            blocks = model.info.units(metric.unit_for("block"))
            statistics |= dict.fromkeys(metric.needs, blocks)
            passes |= dict.fromkeys(metric.passes(), blocks)
    run(
        sweep(
            model,
            windows,
            [m for m in metrics if isinstance(m, AblationMetric)],
            candidates=model.info.units("block"),
            statistics=statistics,
            passes=passes,
        )
    )


@torch.inference_mode()
def _plain(model: BlockModel, windows: CalibrationSet) -> None:
    batch = next(windows.batches(len(windows)))
    targets, _ = next_tokens(batch)
    next_token_nll(model.logits(batch).flatten(0, 1), targets.flatten())


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
