"""What a search makes small: the window values of removed sets, whatever they are worked out by."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from blockviz.engine import ReferenceMeter, SetMeter
from blockviz.errors import BadInput
from blockviz.evaluate import score_choices
from blockviz.metrics import AblationMetric, Metric
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.session.ledger import window_names
from blockviz.session.search_views import SearchRequest
from blockviz.settings import label_of
from blockviz.types import CalibrationBatch, CalibrationSet, RemovedSet, TaskSet, passing

# Steps in between; at the end (set, window) float64, lower is better.
Values = Generator[None, None, np.ndarray]


class Objective(Protocol):
    """`label`: with its settings; `unit_label`: of `number`; `is_exact`: racing may not be used.

    `names`: what each window is called, wherever it occurs.
    """

    label: str
    unit_label: str
    is_exact: bool
    names: tuple[str, ...]

    def __len__(self) -> int: ...
    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Values: ...
    def number(self, mean: float) -> float: ...


class MaskedOutput:
    """A metric of the masked model's output, window by window."""

    def __init__(
        self,
        model: BlockModel,
        windows: CalibrationSet,
        metric: AblationMetric,
        *,
        engine: str,
        memory_bytes: int,
        whole: BlockModel | None = None,
    ) -> None:
        self.label, self.unit_label = label_of(metric), metric.unit_label
        self.is_exact = engine == "reference"
        self.names = window_names(windows)
        self._metric = metric
        if engine == "reference":
            self._meter: SetMeter | ReferenceMeter = ReferenceMeter(model, windows, metric)
        else:
            self._meter = SetMeter(model, windows, metric, memory_bytes=memory_bytes, whole=whole)

    def __len__(self) -> int:
        return len(self.names)

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Values:
        return (yield from self._meter.values(sets, windows)).numpy()

    def number(self, mean: float) -> float:
        return self._metric.number_and_error(mean, 0.0)[0]


class WrongAnswers:
    """1 - accuracy on a multiple-choice task, row by row; arXiv 2510.22767 searches by it."""

    label, unit_label, is_exact = "acc", "accuracy", True

    def __init__(self, model: BlockModel, tasks: TaskSet) -> None:
        self._model, self._tasks = model, tasks
        self.names = tuple(f"{tasks.hash[:12]}:{i}" for i in range(len(tasks)))

    def __len__(self) -> int:
        return len(self._tasks)

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Values:
        if len(windows) != len(self):
            raise ValueError("accuracy is read off all rows at once")
        found = np.empty((len(sets), len(self)))
        for row, removed in zip(found, sets, strict=True):
            events = passing(score_choices(self._model, self._tasks, removed=removed))
            try:
                while True:
                    next(events)
                    yield
            except StopIteration as end:
                row[:] = [not right for right in end.value.correct]
        return found[:, list(windows)]

    def number(self, mean: float) -> float:
        return 1 - mean


class FinalCosine:
    """1 - the cosine of the stream behind the final norm with the whole model's, window by window.

    A window's positions are one vector; arXiv 2402.11187 merges layers by it.
    """

    label, unit_label, is_exact = "final_cos", "cosine", True

    def __init__(self, model: BlockModel, windows: CalibrationSet, whole: BlockModel) -> None:
        self._model, self._whole, self._windows = model, whole, windows
        self.names = window_names(windows)

    def __len__(self) -> int:
        return len(self.names)

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Values:
        found = np.empty((len(sets), len(windows)))
        for column, index in enumerate(windows):
            batch = self._windows.rows([index])
            wanted = _final(self._whole, batch, frozenset())
            for row, removed in zip(found, sets, strict=True):
                cosine = cosine_similarity(_final(self._model, batch, removed), wanted, dim=0)
                row[column] = 1 - float(cosine)
                yield
        return found

    def number(self, mean: float) -> float:
        return 1 - mean


def _final(model: BlockModel, batch: CalibrationBatch, removed: RemovedSet) -> torch.Tensor:
    """(position * hidden,) float64 behind the final norm, padding left out."""
    stage = Stage(model, batch)
    hidden = Head(model).hidden(stage.run(stage.stream, 0, removed))
    return hidden[batch.attention_mask.flatten().to(hidden.device)].flatten().double().cpu()


def objective_metric(request: SearchRequest) -> Metric:
    """The metric that a search goes by; BadInput for one that is no masked output nor accuracy."""
    metric = parse_metric(request.objective)
    if isinstance(metric, AblationMetric):
        return metric
    if metric.name == "acc":
        if not request.text.tasks:
            raise BadInput(
                "A search by accuracy was asked for.",
                "No questions were named.",
                "Name some, such as arc_easy; the command line (--tasks) takes a .jsonl file too.",
            )
        if request.engine == "reference":
            raise BadInput(
                "A search by accuracy with the reference engine was asked for.",
                "That engine only measures what is read off a text.",
                "Use the engine fast.",
            )
        return metric
    raise BadInput(
        f"A search by {metric.name} was asked for.",
        "It cannot be measured for any removed set: it scores single blocks of the whole model.",
        "Use ppl, lds, kl, js, norm, ang or acc; or the strategy oneshot, ordered by the metric "
        f"{metric.name}.",
    )


def open_objective(
    model: BlockModel,
    windows: CalibrationSet,
    request: SearchRequest,
    tasks: TaskSet | None,
    *,
    memory_bytes: int,
    own: str = "",
    whole: BlockModel | None = None,
) -> Objective:
    """The objective of a request on given windows or questions.

    own: what the strategy goes by whatever was asked for; whole: what is compared with, where
    `model` has been changed.
    """
    if own == FinalCosine.label:
        return FinalCosine(model, windows, whole or model)
    metric = objective_metric(request)
    if isinstance(metric, AblationMetric):
        return MaskedOutput(
            model, windows, metric, engine=request.engine, memory_bytes=memory_bytes, whole=whole
        )
    return WrongAnswers(model, tasks)
