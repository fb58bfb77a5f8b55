"""Corrections and their tables without a model: believable numbers for the fake engine."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

from blockviz.corrections import CORRECTIONS as REGISTRY
from blockviz.session.repair_views import CorrectionCard, RepairRequest
from blockviz.types import (
    BlockId,
    DataOrigin,
    ModelInfo,
    PlaceFit,
    Provenance,
    RepairRow,
    RepairTable,
)

WEIGHTS = "weights of surviving blocks"
_CARDS = (
    CorrectionCard("scalar", "One scale a gap", "Gives the stream the size that it had.",
                   "https://arxiv.org/abs/2507.18212", "Prune&Comp", "weights in front of a gap"),
    CorrectionCard("hadamard", "LinearPatch", "Rotated channel scales at every gap.",
                   "https://arxiv.org/abs/2505.24680", "Chen et al. 2025, LinearPatch"),
    CorrectionCard("asc", "Activation statistics", "Gives each channel its mean and spread.",
                   "https://arxiv.org/abs/2602.07375", "ASC"),
    CorrectionCard("mean", "Mean shift", "Adds what the removed blocks added on average.", "",
                   "blockviz"),
    CorrectionCard("ridge", "Ridge map", "The closest linear map of the stream.", "", "blockviz"),
    CorrectionCard("replaceme", "ReplaceMe", "Maps what the last surviving block adds.",
                   "https://arxiv.org/abs/2505.02819", "Shopkhoev et al. 2025, ReplaceMe",
                   WEIGHTS),
    CorrectionCard("writer_refit", "Writer refit",
                   "Surviving blocks learn to write what the removed ones did.", "",
                   "blockviz", WEIGHTS),
    CorrectionCard("fold_asc", "Folded ASC", "Matches spreads by the last block's own output.",
                   "", "blockviz", WEIGHTS, is_experimental=True),
)  # fmt: skip
CORRECTIONS = tuple(
    replace(card, **{
        part: getattr(REGISTRY.get(card.name), part)
        for part in ("formula", "sees", "misses", "cost")
    })
    for card in _CARDS
)  # fmt: skip
# Share of the log-perplexity gap that each closes.
CLOSES = {
    "scalar": 0.004, "hadamard": 0.016, "asc": 0.075, "mean": -0.08, "ridge": 0.345,
    "replaceme": 0.575, "writer_refit": 0.665, "fold_asc": -0.92,
}  # fmt: skip
ORIGINAL, NONE = math.log(32.9), math.log(96.7)


def gaps_of(removed: tuple[BlockId, ...]) -> list[tuple[BlockId, ...]]:
    """Runs of neighbours among these blocks."""

    def depth(b: BlockId) -> int:
        return 2 * b.layer + (b.part == "mlp")

    runs: list[list[BlockId]] = []
    for block in sorted(removed, key=depth):
        if runs and depth(block) == depth(runs[-1][-1]) + 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return [tuple(run) for run in runs]


def make_fit(
    gap: tuple[BlockId, ...], closes: float, *, n_channels: int = 64, has_held: bool = True
) -> PlaceFit:
    """A place whose unexplained share shrinks by what its correction closes."""
    draw = random.Random(f"{gap} {closes}")
    before = draw.uniform(0.05, 0.4)
    after = before * (1 - max(closes, -0.3)) * draw.uniform(0.7, 1.02)
    held = (before * 1.02, after * draw.uniform(1.0, 1.5)) if has_held else (None, None)
    size = 1.5 + 0.4 * gap[-1].layer
    mean_whole = [draw.gauss(0, 0.3) * (40 if c == 3 else 1) for c in range(n_channels)]
    std_whole = [draw.lognormvariate(0, 0.4) * (25 if c == 3 else 1) for c in range(n_channels)]
    rho = [min(0.99, max(-0.4, draw.gauss(0.75, 0.25))) for _ in range(n_channels)]
    gain = max(closes, 0.0)
    channels = {
        "mean_whole": mean_whole,
        "mean_before": [0.7 * m + draw.gauss(0, 0.1) for m in mean_whole],
        "mean_after": [m + draw.gauss(0, 0.02) for m in mean_whole],
        "std_whole": std_whole,
        "std_before": [0.75 * s * draw.uniform(0.8, 1.1) for s in std_whole],
        "std_after": [s * draw.uniform(0.95, 1.0) for s in std_whole],
        "rho_before": rho,
        "rho_after": [r + (1 - r) * gain for r in rho],
    }
    return PlaceFit(
        gap[-1], gap, before, after, *held, 0.75 * size, size * (0.9 + 0.1 * gain), size,
        {name: tuple(row) for name, row in channels.items()},
    )  # fmt: skip


def make_repair(
    info: ModelInfo,
    request: RepairRequest,
    *,
    n_rows: int | None = None,
    dataset: str = "Wikipedia passages",
    n_channels: int = 64,
    refused: str = "",
) -> RepairTable:
    """The table of the first `n_rows` asked corrections, or all. `refused`: why none could be."""
    removed = request.plan.removed
    wanted = request.corrections
    if wanted == ("all",):
        wanted = tuple(card.name for card in CORRECTIONS)
    if wanted == ("auto",):
        names = [card.name for card in CORRECTIONS if card.folds and not card.is_experimental]
        wanted = (*names, "writer_refit:ridge=0.02")
    titles = {card.name: card for card in CORRECTIONS}
    rows = [
        RepairRow("original", "Original", ORIGINAL, 0.03, 0.0, 0.0, ORIGINAL + 0.02),
        RepairRow("none", "Nothing repaired", NONE, 0.04, NONE - ORIGINAL, 0.02, NONE + 0.02),
    ]
    for correction in wanted if n_rows is None else wanted[:n_rows]:
        card = titles[correction.partition(":")[0]]
        if refused:
            rows.append(RepairRow(correction, card.title, refused=refused))
            continue
        closes = CLOSES[card.name]
        nll = NONE - closes * (NONE - ORIGINAL)
        fits = tuple(make_fit(gap, closes, n_channels=n_channels, has_held=request.n_held > 0)
                     for gap in gaps_of(removed))  # fmt: skip
        rows.append(RepairRow(
            correction, card.title, nll, 0.035, nll - ORIGINAL, 0.015, nll + 0.03,
            0 if card.folds else 331_776 * len(fits), card.folds, 2.6, 4.2, (), "", fits,
        ))  # fmt: skip
    able = [row for row in rows[2:] if row.folds and not row.refused and row.nll < NONE]
    is_partial = n_rows is not None and n_rows < len(wanted)
    best = min(able, key=lambda row: row.selection).correction if able and not is_partial else ""
    texts = (request.text, request.evaluation)
    provenances = []
    for text, role in zip(texts, ("calibration", "evaluation"), strict=True):
        origin = DataOrigin(
            dataset, role, text.mode, text.n_samples, text.seq_len, text.n_samples * text.seq_len,
            seed=text.seed, token_hash=text.calibration, role=role,
        )  # fmt: skip
        provenances.append(Provenance(
            origin, info.name, info.revision, info.quantisation, info.dtype, info.device, 2, {}
        ))  # fmt: skip
    return RepairTable(
        provenances[0], provenances[1], removed, tuple(rows),
        request.text.n_samples * (request.text.seq_len - 1),
        request.evaluation.n_samples * (request.evaluation.seq_len - 1),
        best=best, is_partial=is_partial,
    )  # fmt: skip


def growing_repair(info: ModelInfo, request: RepairRequest, dataset: str) -> Iterator[RepairTable]:
    """The table after every correction but the last, each partial; first with none at all."""
    whole = make_repair(info, request, dataset=dataset)
    for i in range(len(whole.rows) - 2):
        part = make_repair(info, request, n_rows=i, dataset=dataset)
        yield replace(part, is_partial=True)
