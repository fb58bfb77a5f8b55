"""What every importance metric declares, and the two kinds that this version knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch

from blockviz.errors import BadInput
from blockviz.registry import Registry
from blockviz.stats import BlockStatistic
from blockviz.types import AblationTable, BlockId, BlockStatistics, Readout, Scores

METRICS: Registry[type[Metric]] = Registry("metric")


@dataclass(frozen=True)
class Metric:
    """A published importance metric. Its dataclass fields are its parameters.

    title: short name on screen; meaning: what it measures, in one sentence; reference: URL.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    reference: ClassVar[str]
    unit_label: ClassVar[str] = ""

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def scores(
        self,
        means: Mapping[BlockId, tuple[float, float]],
        *,
        baseline: float | None = None,
    ) -> Scores:
        """Scores of (raw, standard error) per block for a metric whose raw number says keep."""
        return Scores(
            metric=self.name,
            title=self.title,
            values={b: raw for b, (raw, _) in means.items()},
            raw={b: raw for b, (raw, _) in means.items()},
            stderr={b: error for b, (_, error) in means.items()},
            unit_label=self.unit_label,
            parameters=self.parameters(),
            baseline=baseline,
        )


@dataclass(frozen=True)
class ActivationMetric(Metric):
    """A metric of the dense model's residual stream; all of them come from one forward pass."""

    needs: ClassVar[tuple[type[BlockStatistic], ...]]

    def score(self, source: BlockStatistics) -> Scores:
        raise TypeError(f"{self.name} does not say how it scores")


@dataclass(frozen=True)
class AblationMetric(Metric):
    """A metric of the output with one more block removed; all of them come from one sweep."""

    def positions(self, readout: Readout) -> torch.Tensor:
        """(position,) bool: which positions count."""
        return torch.ones_like(readout.has_target)

    def remember(self, readout: Readout) -> dict[str, torch.Tensor]:
        """What must be kept of the dense model's output, one row per position."""
        return {}

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(position,) float32 of the output with blocks removed; `kept` is the dense model's."""
        raise TypeError(f"{self.name} does not say what it measures")

    def score(self, source: AblationTable) -> Scores:
        """Raw = mean over windows of window means, unless a subclass says otherwise."""
        means = {b: mean_and_error(v) for b, v in source.values.items()}
        return self.scores(means, baseline=float(source.baseline.mean()))


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


def parse_metrics(names: Iterable[str]) -> tuple[Metric, ...]:
    """Instances for `name` or `name:parameter=value:...`; `all` stands for every metric."""
    asked = [n.strip() for n in names if n.strip()]
    if "all" in asked:
        asked = [*METRICS.names(), *(n for n in asked if ":" in n)]
    if not asked:
        raise BadInput(
            "Metrics were to be computed.", "None was named.", "Name some, such as bi,ppl."
        )
    chosen: dict[str, Metric] = {}
    for text in asked:
        metric = parse_metric(text)
        chosen[metric.name] = metric
    return tuple(chosen.values())


def parse_metric(text: str) -> Metric:
    """The metric of `lds:k=50:space=centered`; UnknownName or BadInput otherwise."""
    name, *settings = text.split(":")
    cls = METRICS.get(name.strip())
    known = {f.name: f for f in fields(cls)}
    values: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() not in known or not value.strip():
            raise BadInput(
                f"The metric {text!r} was asked for.",
                f"{name} has no setting {setting!r}.",
                f"Its parameters: {', '.join(known) or 'none'}; write {name}:parameter=value.",
            )
        values[key.strip()] = _convert(text, value.strip(), known[key.strip()].type)
    return cls(**values)


def _convert(text: str, value: str, kind: Any) -> Any:
    try:
        return {"int": int, "float": float}.get(str(kind), str)(value)
    except ValueError as error:
        raise BadInput(
            f"The metric {text!r} was asked for.", f"{value!r} is no {kind}.", "Give a number."
        ) from error
