"""Searches, pairs and predictions without a model: believable numbers for the fake engine."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import replace

from blockviz.search.presets import PRESETS as RECIPES
from blockviz.session.search_views import (
    Estimate,
    PairsRequest,
    PresetCard,
    SearchRequest,
    StrategyCard,
)
from blockviz.types import (
    BlockId,
    DataOrigin,
    Interactions,
    ModelInfo,
    Provenance,
    SearchRun,
    SearchStep,
    parts_of,
)

SEARCH_BASELINE = 21.4
EVERY_UNIT = ("block", "layer", "attn", "mlp")
STRATEGIES = (
    StrategyCard("greedy", "Greedy, one block at a time",
                 "Removes the block whose loss costs least, measures again, and so on.",
                 "https://arxiv.org/abs/2406.10594", "Zhong et al. 2025, BlockPruner", EVERY_UNIT),
    StrategyCard("beam", "Beam", "Keeps several best sets at every size.", "", "", EVERY_UNIT),
    StrategyCard("oneshot", "All at once by a metric", "Removes the lowest blocks of one ranking.",
                 "https://arxiv.org/abs/2403.03853", "Men et al. 2024, ShortGPT", EVERY_UNIT,
                 wants="scores"),
    StrategyCard("policy", "Policy gradient", "Learns a chance for every block.", "", "",
                 EVERY_UNIT, is_experimental=True),
)  # fmt: skip
PRESETS = tuple(
    PresetCard(**{name: getattr(recipe, name) for name in PresetCard.__dataclass_fields__})
    for recipe in RECIPES
    if recipe.name in ("blockpruner", "sleb", "shortgpt", "tale")
)


def damage_of(info: ModelInfo, seed: int = 3) -> dict[BlockId, float]:
    """Nats that each block's loss costs alone."""
    draw = random.Random(seed)
    found = {}
    for b in info.blocks:
        edge = 2.2 if b.id.layer == 0 else 0.8 if b.id.layer in (1, info.n_layers - 1) else 0.0
        found[b.id] = draw.uniform(0.005, 0.06) * (2 if b.id.part == "mlp" else 1) + edge
    return found


def number_of(info: ModelInfo, removed: tuple[BlockId, ...], unit_label: str, seed: int) -> float:
    """The objective of a removed set: worse than the sum of its blocks' own costs."""
    damage = damage_of(info, seed)
    parts = parts_of(removed)
    nats = math.fsum(damage[b] for b in parts) * (1 + 0.03 * len(parts))
    return SEARCH_BASELINE * math.exp(nats) if unit_label == "perplexity" else nats


def make_run(
    info: ModelInfo,
    request: SearchRequest,
    *,
    n_steps: int | None = None,
    dataset: str = "Wikipedia passages",
    is_partial: bool = False,
    warning: str = "",
) -> SearchRun:
    """The first `n_steps` decisions of a greedy search for `request.blocks`, or 6, units."""
    text = request.text
    token_hash = f"{text.calibration} {text.seed} {text.n_samples}"
    origin = DataOrigin(
        dataset, "calibration", text.mode, text.n_samples, text.seq_len,
        text.n_samples * text.seq_len, seed=text.seed, token_hash=token_hash,
    )  # fmt: skip
    provenance = Provenance(
        origin, info.name, info.revision, info.quantisation, info.dtype, info.device, 2, {}
    )
    label = "perplexity" if request.objective.startswith("ppl") else request.objective.split(":")[0]
    units = info.units(request.unit)
    damage = damage_of(info)
    order = sorted(units, key=lambda u: math.fsum(damage[p] for p in u.parts))
    k = min(request.blocks or 6, len(units) - 1)
    steps, measured = [], []
    for i in range(1, 1 + (k if n_steps is None else min(n_steps, k))):
        removed = tuple(order[:i])
        number, of = number_of(info, removed, label, 3), len(units) - i + 1
        steps.append(SearchStep(removed, number, of * 0.21, of, 0.998, 0.4))
        measured.append((removed, number))
        rival = (*order[: i - 1], order[i])
        measured.append((rival, number_of(info, rival, label, 3)))
    return SearchRun(
        provenance, request.objective, label, request.strategy, request.unit,
        SEARCH_BASELINE if label == "perplexity" else 0.0, tuple(steps),
        tuple(sorted(measured, key=lambda row: row[1])),
        {"blocks": k}, is_partial=is_partial, warning=warning,
    )  # fmt: skip


def make_pairs(
    info: ModelInfo, request: PairsRequest, *, share: float = 1.0, dataset: str = "Wikipedia"
) -> Interactions:
    """The interactions of the first `share` of the blocks; neighbours stand in for each other."""
    run = make_run(info, SearchRequest(text=request.text), n_steps=0, dataset=dataset)
    damage, draw = damage_of(info), random.Random(7)
    units = info.units(request.unit)
    units = units[: max(2, round(share * len(units)))]
    pairs, stderr = {}, {}
    for i, a in enumerate(units):
        for b in units[i + 1 :]:
            near = math.exp(-abs(a.layer - b.layer) / 2)
            pairs[a, b] = 0.05 * near + draw.gauss(0, 0.004)
            stderr[a, b] = 0.004
    singles = {u: math.fsum(damage[p] for p in u.parts) for u in units}
    return Interactions(
        run.provenance, math.log(SEARCH_BASELINE), singles, pairs, stderr,
        request.n_positions or 127, is_partial=share < 1,
    )  # fmt: skip


def make_estimate(info: ModelInfo, request: SearchRequest) -> Estimate:
    k, units = request.blocks or 6, len(info.units(request.unit))
    n_sets = sum(units - i for i in range(min(k, units - 1)))
    return Estimate(0.11 * n_sets, (0.11 if request.is_exhaustive else 0.33) * n_sets, n_sets)


def growing(info: ModelInfo, request: SearchRequest, dataset: str) -> Iterator[SearchRun]:
    """The run after every decision but the last, each partial."""
    whole = make_run(info, request, dataset=dataset)
    for i in range(1, len(whole.steps)):
        yield replace(make_run(info, request, n_steps=i, dataset=dataset), is_partial=True)
