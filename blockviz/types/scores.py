"""What metrics see and what they say: statistics in, one importance per block out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from blockviz.types.blocks import PARTS, BlockId
from blockviz.types.data import Provenance

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Readout:
    """What an ablation metric sees of a model's output at some positions.

    logits (position, vocab) float32; nll (position,) float32 nats of the next token, 0 where
    `has_target` (position,) bool is False; targets (position,) int64. `dense`: the readout of the
    model with nothing more removed at the same positions, for metrics that ask for it.
    """

    logits: torch.Tensor
    nll: torch.Tensor
    targets: torch.Tensor
    has_target: torch.Tensor
    dense: Readout | None = None

    @cached_property
    def log_sum_exp(self) -> torch.Tensor:
        """(position,) float32: what turns logits into log-probabilities."""
        return self.logits.logsumexp(dim=-1)

    @cached_property
    def size(self) -> torch.Tensor:
        """(position,) float32: Euclidean length of the logits."""
        return self.logits.norm(dim=-1)

    @cached_property
    def probabilities(self) -> torch.Tensor:
        """(position, vocab) float32."""
        return self.logits.softmax(dim=-1)

    @cached_property
    def log_ratio(self) -> torch.Tensor:
        """(position, vocab) float32: log p0 - log p, exactly 0 where the logits are the same.

        Divergences are summed up from it word by word. As differences of entropies they would lose
        most digits: probabilities add up to 1 only nearly, and logits that go with them are large.
        """
        shift = self.dense.log_sum_exp - self.log_sum_exp
        return (self.dense.logits - self.logits).sub_(shift[:, None])

    @cached_property
    def distance(self) -> torch.Tensor:
        """(position,) float32: Euclidean distance of the logits to the dense ones."""
        return (self.logits - self.dense.logits).norm(dim=-1)


@dataclass(frozen=True)
class AblationTable:
    """One ablation metric, measured window by window.

    baseline: (n_windows,) float64 of the plan itself; values: BlockId -> (n_windows,) float64
    with that block removed as well. Each entry is a mean over the window's positions, of which
    there are `counts` (n_windows,) float64.
    """

    baseline: torch.Tensor
    values: Mapping[BlockId, torch.Tensor]
    counts: torch.Tensor


@dataclass(frozen=True)
class BlockStatistics:
    """What one dense pass found over `n_tokens` tokens of `n_samples` windows.

    values: BlockId -> {statistic name: CPU tensor}; passes: a statistic of many depths, as it was
    asked for -> its result.
    """

    values: Mapping[BlockId, Mapping[str, torch.Tensor]]
    n_tokens: int
    n_samples: int
    passes: Mapping[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightTensors:
    """BlockId -> {parameter's path: (the parameter, dL/dW of the same shape or None)}."""

    values: Mapping[BlockId, Mapping[str, tuple[torch.Tensor, torch.Tensor | None]]]


@dataclass(frozen=True)
class TaskTable:
    """Answers to a task: for every row whether it was right, of the model and with a block gone."""

    baseline: tuple[bool, ...]
    values: Mapping[BlockId, tuple[bool, ...]]


@dataclass(frozen=True)
class Matrix:
    """A square table of numbers with one label a row and column, such as a CKA map."""

    labels: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        n = len(self.labels)
        if len(self.values) != n or any(len(row) != n for row in self.values):
            raise ValueError(f"a matrix with {n} labels must be {n} x {n}")


class NotFinite(ValueError):
    """A score that is NaN or infinite."""


@dataclass(frozen=True)
class Scores:
    """One metric's importance per block. `values`: higher = keep. `raw`: the paper's own number.

    `windows`: (first layer, number of layers) -> raw number of that contiguous run of layers.
    `per_window`: BlockId -> one number a calibration window, higher = keep, whose mean orders the
    blocks as `values` does; None where a metric has no such numbers.
    NaN or inf raises NotFinite: such a score is never ranked.
    """

    metric: str
    title: str
    values: Mapping[BlockId, float]
    raw: Mapping[BlockId, float]
    unit_label: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    stderr: Mapping[BlockId, float] | None = None
    baseline: float | None = None
    windows: Mapping[tuple[int, int], float] | None = None
    matrix: Matrix | None = None
    per_window: Mapping[BlockId, tuple[float, ...]] | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        bad = [str(b) for b, v in self.values.items() if not math.isfinite(v)]
        if bad:
            raise NotFinite(f"{self.metric} is not finite for {', '.join(bad)}")

    def ranks(self) -> dict[BlockId, int]:
        """1 = first to remove; ties keep attention before MLP, then depth (BlockPruner's order)."""
        return dict(self._ranks)

    @cached_property
    def _ranks(self) -> dict[BlockId, int]:
        ordered = sorted(self.values, key=lambda b: (self.values[b], PARTS.index(b.part), b.layer))
        return {b: i + 1 for i, b in enumerate(ordered)}

    def to_json(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "parameters": dict(self.parameters),
            "unit_label": self.unit_label,
            "higher_means": "keep",
            "values": {str(b): v for b, v in self.values.items()},
            "raw": {str(b): v for b, v in self.raw.items()},
            "stderr": {str(b): v for b, v in self.stderr.items()} if self.stderr else None,
            "baseline": self.baseline,
            "windows": _windows_json(self.windows),
            "matrix": _matrix_json(self.matrix),
            "per_window": (
                {str(b): list(v) for b, v in self.per_window.items()} if self.per_window else None
            ),
            "seconds": self.seconds,
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> Scores:
        def blocks(key: str) -> dict[BlockId, float]:
            return {BlockId.parse(b): float(v) for b, v in data[key].items()}

        return cls(
            metric=name,
            title=data["title"],
            values=blocks("values"),
            raw=blocks("raw"),
            unit_label=data["unit_label"],
            parameters=data["parameters"],
            stderr=blocks("stderr") if data.get("stderr") else None,
            baseline=data.get("baseline"),
            windows=_windows_from(data["windows"]) if data.get("windows") else None,
            matrix=_matrix_from(data["matrix"]) if data.get("matrix") else None,
            per_window=(
                {BlockId.parse(b): tuple(v) for b, v in data["per_window"].items()}
                if data.get("per_window")
                else None
            ),
            seconds=data.get("seconds", 0.0),
        )


def _windows_json(windows: Mapping[tuple[int, int], float] | None) -> dict[str, float] | None:
    """`{"5+3": number}`: three layers from layer 5."""
    return {f"{first}+{n}": v for (first, n), v in windows.items()} if windows else None


def _windows_from(data: Mapping[str, float]) -> dict[tuple[int, int], float]:
    return {(int(k.split("+")[0]), int(k.split("+")[1])): float(v) for k, v in data.items()}


def _matrix_json(matrix: Matrix | None) -> dict[str, Any] | None:
    if matrix is None:
        return None
    return {"labels": list(matrix.labels), "values": [list(row) for row in matrix.values]}


def _matrix_from(data: Mapping[str, Any]) -> Matrix:
    return Matrix(tuple(data["labels"]), tuple(tuple(row) for row in data["values"]))


@dataclass(frozen=True)
class ScoreTable:
    """All metrics of one scoring run on one model and calibration set."""

    provenance: Provenance
    metrics: Mapping[str, Scores]
    is_partial: bool = False

    def to_json(self) -> dict[str, Any]:
        head = {"schema": "blockviz/scores/1", "provenance": self.provenance.to_json()}
        if self.is_partial:
            head["partial"] = True
        return {**head, "metrics": {name: s.to_json() for name, s in self.metrics.items()}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ScoreTable:
        return cls(
            provenance=Provenance.from_json(data["provenance"]),
            metrics={n: Scores.from_json(n, m) for n, m in data["metrics"].items()},
            is_partial=bool(data.get("partial", False)),
        )
