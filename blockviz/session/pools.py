"""Candidates that a cheap metric picks, and the scores of one metric on given windows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from blockviz.errors import BadInput
from blockviz.metrics import parse_metrics
from blockviz.models.model import BlockModel
from blockviz.session.scoring import score_windows
from blockviz.session.views import ScoreRequest
from blockviz.settings import parse_share
from blockviz.types import BlockId, CalibrationSet, Done, Events, Scores, Unit, passing


def parse_pool(text: str) -> tuple[str, float]:
    """(metric, share) of `bi:0.5`; ("", 1) of nothing: all units are candidates."""
    if not text:
        return "", 1.0
    metric, _, share = text.rpartition(":")
    try:
        found = parse_share(share)
    except ValueError:
        found = math.nan
    if not metric or not 0 < found <= 1:
        raise BadInput(
            f"The candidate pool {text!r} was asked for.",
            "A pool is METRIC:SHARE with a share above 0 and up to 1.",
            "Write bi:0.5 or bi:50% for the half with the lowest block influence.",
        )
    return metric, found


def pooled(
    model: BlockModel,
    windows: CalibrationSet,
    text: ScoreRequest,
    units: Sequence[BlockId],
    unit: Unit,
    pool: str,
) -> Events:
    """Done(the units of a pool, in the order given); BadInput where its metric scores others."""
    metric, share = parse_pool(pool)
    if metric:
        scores = yield from passing(scored(model, windows, text, unit, metric))
        order = sorted(units, key=lambda u: _score_of(scores, u))
        kept = set(order[: max(1, math.ceil(share * len(units)))])
        units = tuple(u for u in units if u in kept)
    yield Done(tuple(units))


def _score_of(scores: Scores, unit: BlockId) -> float:
    found = scores.values.get(unit, scores.values.get(BlockId(unit.layer, "layer")))
    if found is None:
        raise BadInput(
            f"Candidates were to be picked by {scores.metric}.",
            f"It has no score of {unit}.",
            "Pick them by another metric, such as bi:0.5.",
        )
    return found


def scored(
    model: BlockModel, windows: CalibrationSet, text: ScoreRequest, unit: Unit, name: str
) -> Events:
    """Done(Scores) of one metric on these windows; text: of which they are."""
    metrics = parse_metrics([name])
    asked = replace(text, metrics=(name,), unit=unit)
    table = yield from passing(_without_partial(score_windows(model, windows, metrics, asked)))
    yield Done(next(iter(table.metrics.values())))


def _without_partial(events: Events) -> Events:
    """The same events; what a sub-task has found so far is no result of the task."""
    for event in events:
        yield event if isinstance(event, Done) else replace(event, partial=None)
