"""What metrics see and what they say: statistics in, one importance per block out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blockviz.types.blocks import PARTS, BlockId
from blockviz.types.data import Provenance

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Readout:
    """What an ablation metric sees of a model's output at some positions.

    logits (position, vocab) float32; nll (position,) float32 nats of the next token, 0 where
    `has_target` (position,) bool is False; targets (position,) int64.
    """

    logits: torch.Tensor
    nll: torch.Tensor
    targets: torch.Tensor
    has_target: torch.Tensor


@dataclass(frozen=True)
class AblationTable:
    """One ablation metric, measured window by window.

    baseline: (n_windows,) float64 of the plan itself; values: BlockId -> (n_windows,) float64
    with that block removed as well. Each entry is a mean over the window's positions.
    """

    baseline: torch.Tensor
    values: Mapping[BlockId, torch.Tensor]


@dataclass(frozen=True)
class BlockStatistics:
    """BlockId -> {statistic name: CPU tensor}, over `n_tokens` tokens of `n_samples` windows."""

    values: Mapping[BlockId, Mapping[str, torch.Tensor]]
    n_tokens: int
    n_samples: int


@dataclass(frozen=True)
class Scores:
    """One metric's importance per block. `values`: higher = keep. `raw`: the paper's own number.

    NaN or inf raises ValueError: such a score is never ranked.
    """

    metric: str
    title: str
    values: Mapping[BlockId, float]
    raw: Mapping[BlockId, float]
    unit_label: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    stderr: Mapping[BlockId, float] | None = None
    baseline: float | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        bad = [str(b) for b, v in self.values.items() if not math.isfinite(v)]
        if bad:
            raise ValueError(f"{self.metric} is not finite for {', '.join(bad)}")

    def ranks(self) -> dict[BlockId, int]:
        """1 = first to remove; ties keep attention before MLP, then depth (BlockPruner's order)."""
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
            "windows": None,
            "matrix": None,
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
            seconds=data.get("seconds", 0.0),
        )


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
