"""What corrections of a plan come to: a row for each, and how well each place was met."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from blockviz.types.blocks import BlockId
from blockviz.types.data import Provenance

# Of every channel at one place: mean and standard deviation of the stream without the correction,
# with it, and of the whole model's; correlation with the whole model's before and after.
CHANNELS = ("mean_before", "mean_after", "mean_whole", "std_before", "std_after", "std_whole",
            "rho_before", "rho_after")  # fmt: skip


# How a pruned model is written; `custom` carries modules of its own at the cost of their numbers.
ExportMode = Literal["stock-compact", "stock-zeroed", "custom"]
EXPORT_MODES: tuple[ExportMode, ...] = ("stock-compact", "stock-zeroed", "custom")


@dataclass(frozen=True)
class PlaceFit:
    """One place. Errors are mean squares of the distance to the whole model's stream, as a share of
    what that stream varies: 0 is perfect, 1 is no better than its mean.

    before: without the correction of this place, after: with it, on what it was fitted on; held_...
    on windows that it has not seen, None where there were none. size_...: root mean square of the
    stream. channels: CHANNELS -> (channel,) numbers on the fit windows.
    """

    block: BlockId
    gap: tuple[BlockId, ...]
    before: float
    after: float
    held_before: float | None
    held_after: float | None
    size_before: float
    size_after: float
    size_whole: float
    channels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def is_worse(self) -> bool:
        """Whether it is worse than doing nothing, on windows that it has not seen if there are."""
        if self.held_before is None or self.held_after is None:
            return self.after > self.before
        return self.held_after > self.held_before

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["block"], data["gap"] = str(self.block), [str(b) for b in self.gap]
        data["channels"] = {name: list(row) for name, row in self.channels.items()}
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlaceFit:
        gap = tuple(BlockId.parse(b) for b in data["gap"])
        channels = {name: tuple(row) for name, row in data["channels"].items()}
        return cls(**{**data, "block": BlockId.parse(data["block"]), "gap": gap,
                      "channels": channels})  # fmt: skip


@dataclass(frozen=True)
class RepairRow:
    """One variant of a plan. correction: its label with settings, "none" or "original".

    nll, stderr: mean nats over the evaluation windows and their standard error; rise, rise_stderr:
    paired difference to the original; selection: mean nats on the windows kept for choosing, None
    where there were none. n_added: parameters that a stock model has no place for; folds: how an
    export takes it into a stock checkpoint, empty where it cannot. refused: why it could not be
    fitted, the numbers are NaN then.
    """

    correction: str
    title: str
    nll: float = math.nan
    stderr: float = 0.0
    rise: float = math.nan
    rise_stderr: float = 0.0
    selection: float | None = None
    n_added: int = 0
    folds: str = ""
    passes: float = 0.0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    refused: str = ""
    fits: tuple[PlaceFit, ...] = ()

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nll, 700.0)) if math.isfinite(self.nll) else math.nan

    @property
    def is_free(self) -> bool:
        """Whether a stock export can carry it without storing more."""
        return bool(self.folds) and self.n_added == 0

    def goes_into(self, mode: ExportMode) -> bool:
        """Whether an export can carry it, a stock one without storing more."""
        return not self.refused and (mode == "custom" or self.is_free)

    def to_json(self) -> dict[str, Any]:
        data = {k: v for k, v in asdict(self).items() if k != "fits"}
        for name in ("nll", "rise"):
            data[name] = data[name] if math.isfinite(data[name]) else None
        return {**data, "notes": list(self.notes), "fits": [f.to_json() for f in self.fits]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RepairRow:
        fits = tuple(PlaceFit.from_json(f) for f in data["fits"])
        numbers = {n: math.nan if data[n] is None else data[n] for n in ("nll", "rise")}
        return cls(**{**data, **numbers, "notes": tuple(data["notes"]), "fits": fits})


@dataclass(frozen=True)
class RepairTable:
    """rows[0] is the original, rows[1] the plan as it is, then one a correction.

    provenance: of the fit text; evaluation: of the text that the perplexities are of; n_tokens:
    positions fitted on, n_predicted: tokens predicted. best: the label of the correction with the
    lowest perplexity on the windows kept for choosing, among those the export can carry, a stock
    one without storing more; empty where none was chosen. Nothing is ever chosen by the evaluation
    text.
    warning: what to know before the numbers are believed.
    """

    provenance: Provenance
    evaluation: Provenance
    removed: tuple[BlockId, ...]
    rows: tuple[RepairRow, ...]
    n_tokens: int = 0
    n_predicted: int = 0
    best: str = ""
    warning: str = ""
    is_partial: bool = False
    export_mode: ExportMode = "stock-compact"

    @property
    def original(self) -> RepairRow:
        return self.rows[0]

    def closed(self, row: RepairRow) -> float | None:
        """The share of the log-perplexity gap between the bare plan and the original it closes."""
        if len(self.rows) < 2 or not math.isfinite(row.nll):
            return None
        gap = self.rows[1].nll - self.rows[0].nll
        return (self.rows[1].nll - row.nll) / gap if gap > 0 else None

    def to_json(self) -> dict[str, Any]:
        head = {"partial": True} if self.is_partial else {}
        return {
            "schema": "blockviz/repair/1",
            **head,
            "provenance": self.provenance.to_json(),
            "evaluation": self.evaluation.to_json(),
            "removed": [str(b) for b in self.removed],
            "n_tokens": self.n_tokens,
            "n_predicted": self.n_predicted,
            "best": self.best,
            "export_mode": self.export_mode,
            "warning": self.warning,
            "rows": [row.to_json() for row in self.rows],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RepairTable:
        return cls(
            provenance=Provenance.from_json(data["provenance"]),
            evaluation=Provenance.from_json(data["evaluation"]),
            removed=tuple(BlockId.parse(b) for b in data["removed"]),
            rows=tuple(RepairRow.from_json(row) for row in data["rows"]),
            n_tokens=data["n_tokens"],
            n_predicted=data["n_predicted"],
            best=data["best"],
            export_mode=data.get("export_mode", "stock-compact"),
            warning=data["warning"],
            is_partial=bool(data.get("partial", False)),
        )
