"""What every importance metric declares, and the kinds there are."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch

from blockviz.registry import Registry
from blockviz.settings import check_settings
from blockviz.stats import BlockStatistic, PassStatistic
from blockviz.types import (
    UNITS,
    AblationTable,
    BlockId,
    BlockStatistics,
    Readout,
    Scores,
    TaskTable,
    Unit,
    WeightTensors,
)

METRICS: Registry[type[Metric]] = Registry("metric")


@dataclass(frozen=True)
class Metric:
    """A published importance metric. Its dataclass fields are its parameters.

    title: short name on screen; meaning: what it measures, in one sentence; reference: URL;
    citation: who and when; units: what it can score at once, the first where another is asked for;
    cost: what it takes, in words. formula: the formula on the first line, with `_x` and `^{x}` for
    what stands lower and higher, and what its letters are on the second; sees, misses: what it can
    tell of a block, and what it cannot. A metric of one's own may leave these three empty.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    reference: ClassVar[str]
    citation: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    sees: ClassVar[str] = ""
    misses: ClassVar[str] = ""
    unit_label: ClassVar[str] = ""
    units: ClassVar[tuple[Unit, ...]] = UNITS
    cost: ClassVar[str] = ""
    # A metric of answers to a task, or one asked of prompts, has to be given a task.
    wants_tasks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_settings(self)

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def unit_for(self, unit: Unit) -> Unit:
        """The unit that is scored where `unit` is asked for."""
        return unit if unit in self.units else self.units[0]

    def needs_tasks(self) -> bool:
        """Whether it cannot be computed from text alone."""
        return self.wants_tasks

    def scores(
        self,
        means: Mapping[BlockId, tuple[float, float]],
        *,
        is_redundancy: bool = False,
        has_error: bool = True,
        **more: Any,
    ) -> Scores:
        """Scores of (raw, standard error) per block.

        is_redundancy: the raw number is high where a block can go, so its sign is turned.
        """
        sign = -1.0 if is_redundancy else 1.0
        return Scores(
            metric=self.name,
            title=self.title,
            values={b: sign * raw for b, (raw, _) in means.items()},
            raw={b: raw for b, (raw, _) in means.items()},
            stderr={b: error for b, (_, error) in means.items()} if has_error else None,
            unit_label=self.unit_label,
            parameters=self.parameters(),
            **more,
        )


@dataclass(frozen=True)
class ActivationMetric(Metric):
    """A metric of the dense model's residual stream; all of them come from one forward pass.

    `needs`: statistics of single blocks. `passes()`: statistics of many depths, asked with the
    metric's own parameters; `source.passes[...]` has their results.
    """

    needs: ClassVar[tuple[type[BlockStatistic], ...]] = ()
    cost: ClassVar[str] = "one pass"

    def passes(self) -> tuple[PassStatistic, ...]:
        return ()

    def reads_prompts(self) -> bool:
        """Whether its pass runs over a task's prompts in place of the calibration text."""
        return False

    def score(self, source: BlockStatistics) -> Scores:
        raise TypeError(f"{self.name} does not say how it scores")


@dataclass(frozen=True)
class AblationMetric(Metric):
    """A metric of the output with one more block removed; all of them come from one sweep.

    `compares_logits`: it needs `readout.dense`, the whole output of the dense model.
    """

    compares_logits: ClassVar[bool] = False
    cost: ClassVar[str] = "one sweep"

    @property
    def reads_dense(self) -> bool:
        """Whether it needs the dense model's output at all."""
        return self.compares_logits or type(self).remember is not AblationMetric.remember

    def positions(self, readout: Readout) -> torch.Tensor:
        """(position,) bool: which positions count."""
        return torch.ones_like(readout.has_target)

    def remember(self, readout: Readout) -> dict[str, torch.Tensor]:
        """What must be kept of the dense model's output, one row per position."""
        return {}

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(position,) float32 of the output with blocks removed; `kept` is the dense model's."""
        raise TypeError(f"{self.name} does not say what it measures")

    def picks(self, kept: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """(position, K) of the only words whose logits it reads; None where it needs them all."""
        return None

    def of_picked(self, logits: torch.Tensor, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(position,) float32 of the (position, K) logits of `picks`."""
        raise TypeError(f"{self.name} reads all logits")

    def window_values(self, means: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """(n_windows,) numbers whose mean orders removed sets, of means over `counts` positions."""
        return means

    def number_and_error(self, mean: float, error: float) -> tuple[float, float]:
        """The paper's own number of a mean of `window_values`, and its error to first order."""
        return mean, error

    def score(self, source: AblationTable) -> Scores:
        values = {b: self.window_values(v, source.counts) for b, v in source.values.items()}
        dense = self.window_values(source.baseline, source.counts)
        return self.scores(
            {b: self.number_and_error(*mean_and_error(v)) for b, v in values.items()},
            baseline=self.number_and_error(*mean_and_error(dense))[0],
            per_window=window_numbers(values),
        )


@dataclass(frozen=True)
class WeightMetric(Metric):
    """A metric of a block's own parameters, with the loss's gradient if `needs_gradient`.

    With a gradient, `n_windows` of the calibration text are read; it declares them as a field.
    """

    needs_gradient: ClassVar[bool] = False

    def score(self, source: WeightTensors) -> Scores:
        raise TypeError(f"{self.name} does not say how it scores")


# Asks for the loss with a set of blocks removed, is sent (n_windows,) float64 nats.
Game = Generator[tuple[BlockId, ...], torch.Tensor, Scores]


@dataclass(frozen=True)
class GameMetric(Metric):
    """A metric of the losses of many removed sets, chosen as it goes along."""

    cost: ClassVar[str] = "many sets"

    def n_windows(self, available: int) -> int:
        """How many of the calibration windows every set is measured on."""
        return available

    def n_sets(self, n_blocks: int) -> int:
        """How many sets it will ask for at most."""
        raise TypeError(f"{self.name} does not say what it asks")

    def play(self, blocks: Sequence[BlockId]) -> Game:
        """Yields removed sets and is sent their window losses; returns the Scores."""
        raise TypeError(f"{self.name} does not say how it plays")


@dataclass(frozen=True)
class TaskMetric(Metric):
    """A metric of the answers to a multiple-choice task with one more block removed."""

    wants_tasks: ClassVar[bool] = True
    cost: ClassVar[str] = "one task a block"

    def score(self, source: TaskTable) -> Scores:
        raise TypeError(f"{self.name} does not say how it scores")


def window_numbers(
    values: Mapping[BlockId, torch.Tensor], *, sign: float = 1.0
) -> dict[BlockId, tuple[float, ...]]:
    """Each block's numbers a window, of (n_windows,) tensors."""
    return {b: tuple((sign * v).tolist()) for b, v in values.items()}


def mean_and_error(windows: torch.Tensor) -> tuple[float, float]:
    """Mean of (n_windows,) and its standard error; 0 for a single window."""
    n = windows.numel()
    error = windows.std(unbiased=True).item() / math.sqrt(n) if n > 1 else 0.0
    return windows.mean().item(), error


def weighted_mean_and_error(total: torch.Tensor, count: torch.Tensor) -> tuple[float, float]:
    """Mean over all positions from per-window sums and counts; its error over windows.

    The error is that of a ratio of sums (linearised), which for equal windows is the plain one.
    """
    mean = (total.sum() / count.sum()).item()
    n = total.numel()
    residual = (total - mean * count) / count.double().mean()
    error = math.sqrt(residual.square().sum().item() / (n - 1) / n) if n > 1 else 0.0
    return mean, error
