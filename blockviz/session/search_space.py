"""From a search request to what may be removed and when it is enough; refuses what cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from blockviz.data import check_tasks
from blockviz.engine import block_costs
from blockviz.errors import BadInput
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.search import STRATEGIES, Goal, Space, Strategy
from blockviz.session.objectives import objective_metric
from blockviz.session.pools import parse_pool, pooled, scored
from blockviz.session.processes import ALONE, Shares
from blockviz.session.search_text import with_repair
from blockviz.session.search_views import SearchRequest
from blockviz.settings import parse_method
from blockviz.types import (
    UNITS,
    BlockId,
    CalibrationSet,
    Done,
    Events,
    ModelInfo,
    Progress,
    Scores,
    passing,
)

DEFAULT_SCORES = {"scores": "bi", "windows": "cos_win", "rescoring": "bi"}
TARGETS = "a number of blocks, a share of the parameters, a rise of perplexity or a speed-up"


def check_search(request: SearchRequest, info: ModelInfo | None = None) -> Strategy:
    """The strategy of a request that can be run; BadInput or UnknownName before any long work."""
    strategy = with_repair(parse_method(STRATEGIES, request.strategy), request)
    _check_choice("unit", request.unit, UNITS)
    _check_choice("engine", request.engine, ("fast", "reference"))
    if request.unit not in strategy.units:
        raise BadInput(
            f"{strategy.title} over the unit {request.unit} was asked for.",
            f"It searches {' or '.join(strategy.units)}.",
            f"Choose the unit {strategy.units[0]}, or another strategy.",
        )
    metric = objective_metric(request)
    if request.text.tasks:
        check_tasks((request.text.tasks,), limit=request.text.limit)
    if not strategy.ends_itself:
        _check_has_target(request)
    _check_target(request, is_perplexity=metric.name == "ppl" and not strategy.objective)
    if not 0 < request.level < 0.5:
        raise BadInput(
            f"A level of doubt of {request.level} was asked for.",
            "It must lie between 0 and 0.5.",
            "Use 0.05, or search exhaustively for none at all.",
        )
    for text in filter(None, (request.scores, parse_pool(request.pool)[0])):
        parse_metric(text)
    if info is not None:
        units_of(request, info)
    return strategy


def open_space(
    model: BlockModel,
    windows: CalibrationSet,
    request: SearchRequest,
    strategy: Strategy,
    baseline: float,
    shares: Shares = ALONE,
) -> Events:
    """Done(Space): the candidates, the goal, and the scores that the strategy goes by.

    baseline: the objective of the whole model, which a rise is counted from.
    """
    info = model.info
    units = units_of(request, info)
    text, unit = request.text, request.unit
    units = yield from passing(pooled(model, windows, text, units, unit, request.pool))
    goal = yield from passing(_goal(model, request, baseline, shares))
    space = Space(units, goal, len(info.blocks), seed=request.text.seed, baseline=baseline)
    wanted = strategy.needs()
    if wanted in ("scores", "windows"):
        name = request.scores or DEFAULT_SCORES[wanted]
        scores = yield from passing(scored(model, windows, text, unit, name))
        space = _with_scores(space, wanted, scores)
    yield Done(space)


def _with_scores(space: Space, wanted: str, scores: Scores) -> Space:
    if wanted == "windows":
        if not scores.windows:
            raise BadInput(
                f"Runs of layers were to be compared by {scores.metric}.",
                "That metric scores single blocks or layers, not runs of them.",
                "Order by the metric cos_win or ang_win.",
            )
        # Raw numbers: where low scores are turned round to mean "keep", high ones mean alike.
        sign = 1 if scores.values == scores.raw else -1
        return replace(space, windows={run: sign * v for run, v in scores.windows.items()})
    missing = [u for u in space.units if u not in scores.values]
    if missing:
        parts = {b.part for b in scores.values}
        raise BadInput(
            f"The unit {space.units[0].part} was to be ordered by {scores.metric}.",
            f"That metric scores the unit {' and '.join(sorted(parts))} only.",
            "Choose that unit, or another metric.",
        )
    return replace(space, scores=scores.values)


def _goal(model: BlockModel, request: SearchRequest, baseline: float, shares: Shares) -> Events:
    info = model.info
    sizes = {b.id: b.n_parameters for b in info.blocks}
    limit = None if request.ratio is None else int(request.ratio * info.n_parameters)
    rise = request.max_ppl_rise
    max_value = None if rise is None else baseline + math.log1p(rise / 100)
    seconds: Mapping[BlockId, float] = {}
    min_seconds = None
    if request.speedup is not None:
        yield Progress("timing the blocks", 0, 1)
        costs = shares.of_first(block_costs(model))
        seconds, min_seconds = costs.blocks, costs.total * (1 - 1 / request.speedup)
        most = sum(seconds.values())
        if min_seconds > 0.95 * most:
            raise BadInput(
                f"A speed-up of {request.speedup} was asked for.",
                f"Without any block {info.name} would be {costs.total / costs.rest:.2f} times as "
                "fast.",
                "Ask for less.",
            )
    yield Done(Goal(request.blocks, limit, sizes, max_value, min_seconds, seconds))


def _check_has_target(request: SearchRequest) -> None:
    targets = (request.blocks, request.ratio, request.max_ppl_rise, request.speedup)
    if all(t is None for t in targets):
        raise BadInput("A search was asked for.", "It has no target.", f"Set one: {TARGETS}.")


def _check_target(request: SearchRequest, *, is_perplexity: bool) -> None:
    for value, is_right, name, wanted, todo in (
        (request.blocks, lambda v: v >= 1, "blocks to remove", "1 or more", "Ask for 1 or more."),
        (request.ratio, lambda v: 0 < v < 1, "share of parameters", "above 0 and below 1",
         "Ask for 0.2 or 20% for a fifth."),
        (request.max_ppl_rise, lambda v: v >= 0, "rise of perplexity", "percent, 0 or more",
         "Ask for 5 for 5 %."),
        (request.speedup, lambda v: v > 1, "speed-up", "above 1", "Ask for 1.2, for one."),
    ):  # fmt: skip
        if value is not None and not (math.isfinite(value) and is_right(value)):
            raise BadInput(f"{value} was asked for as {name}.", f"It must be {wanted}.", todo)
    if request.max_ppl_rise is not None and not is_perplexity:
        raise BadInput(
            f"A largest rise of perplexity was asked for in a search by {request.objective}.",
            "That search does not measure perplexity.",
            "Search by perplexity (ppl), or set another target.",
        )


def units_of(request: SearchRequest, info: ModelInfo) -> tuple[BlockId, ...]:
    """The candidates without protected layers."""
    first, last = request.protect_first, request.protect_last
    if first < 0 or last < 0 or first + last >= info.n_layers:
        raise BadInput(
            f"The first {first} and last {last} layers were to be protected.",
            f"{info.name} has {info.n_layers} layers, so that none is left to remove.",
            "Protect fewer.",
        )
    kept = range(first, info.n_layers - last)
    units = tuple(u for u in info.candidates(request.unit) if u.layer in kept)
    if request.blocks is not None and request.blocks > len(units):
        raise BadInput(
            f"{request.blocks} units were to be removed.",
            f"There are {len(units)} of the unit {request.unit} to choose from.",
            "Remove fewer, or protect fewer layers.",
        )
    return units


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadInput(
            f"The {name} {value!r} was asked for.",
            f"There is no such {name}.",
            f"Use {', '.join(allowed)}.",
        )
