"""Every metric that is asked for, from one sweep and one pass, as one table of scores."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import replace

from blockviz.engine import SweepResult, sweep
from blockviz.errors import BadInput
from blockviz.metrics import AblationMetric, ActivationMetric, Metric, parse_metrics
from blockviz.models.model import BlockModel
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.views import ScoreRequest
from blockviz.types import UNITS, CalibrationSet, Done, Events, Progress, ScoreTable, passing


def check_request(request: ScoreRequest) -> tuple[Metric, ...]:
    """The metrics of a request whose settings are all possible; BadInput or UnknownName if not."""
    for value, allowed, name in (
        (request.unit, UNITS, "unit"),
        (request.engine, ("fast", "reference"), "engine"),
        (request.mode, ("stream", "per_sample"), "calibration mode"),
    ):
        if value not in allowed:
            raise BadInput(
                f"The {name} {value!r} was asked for.",
                f"There is no such {name}.",
                f"Use {', '.join(allowed)}.",
            )
    return parse_metrics(request.metrics)


def score_request(model: BlockModel, request: ScoreRequest) -> Events:
    """Done(ScoreTable) of a request; a partial table after every batch of windows."""
    metrics = check_request(request)
    windows = yield from passing(open_windows(model, request))
    yield from score_windows(model, windows, metrics, request)


def score_windows(
    model: BlockModel, windows: CalibrationSet, metrics: Sequence[Metric], request: ScoreRequest
) -> Events:
    """Done(ScoreTable) of metrics on given windows."""
    ablations = [m for m in metrics if isinstance(m, AblationMetric)]
    activations = [m for m in metrics if isinstance(m, ActivationMetric)]
    candidates = model.info.units(request.unit)
    started = time.perf_counter()
    events = sweep(
        model,
        windows,
        ablations,
        candidates=candidates,
        statistics=tuple(dict.fromkeys(s for m in activations for s in m.needs)),
        statistic_blocks=candidates,
        engine=request.engine,
    )

    def table(found: SweepResult, *, is_partial: bool) -> ScoreTable:
        seconds = time.perf_counter() - started
        scores = {}
        for metric in metrics:
            if isinstance(metric, AblationMetric):
                result = metric.score(found.tables[ablations.index(metric)])
            else:
                result = metric.score(found.statistics)
            scores[metric.name] = replace(result, seconds=round(seconds, 3))
        origin = windows.origin
        if is_partial:
            n = found.n_windows
            n_tokens = int(windows.attention_mask[:n].sum())
            origin = replace(origin, n_samples=n, n_tokens=n_tokens)
        return ScoreTable(provenance_of(model, origin), scores, is_partial=is_partial)

    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Done):
                yield Done(table(event.result, is_partial=False))
            elif event.partial is None:
                yield event
            else:
                partial = table(event.partial, is_partial=True)
                yield Progress(event.stage, event.done, event.total, event.note, partial)
