"""What every correction declares, what it is told of a place, and what it leaves there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import nn

from blockviz.models.model import BlockModel
from blockviz.registry import Registry
from blockviz.settings import check_settings
from blockviz.stats.pairs import ChannelMoments
from blockviz.types import BlockId, CalibrationSet, Events, PruningPlan

CORRECTIONS: Registry[type[Correction]] = Registry("correction")

# Where a correction sits: in the stream behind a gap; in the stream in front of every surviving
# block from the first gap on; in what the blocks behind a gap read, behind their norms; in the
# weights that blocks write with, from the last one in front of the first gap on.
Where = Literal["gap", "every_block", "norm_out", "writer"]

TOKENS = {
    "label": "Positions to fit on",
    "choices": ("skip_first", "all"),
}
# Some models write a thousand times more at the first position than elsewhere, and every later
# position looks there. It would outweigh all others; but a linear map that has not seen it does to
# it what it likes. Anchored, it is a row of the least squares that says nothing of how large the
# others are.
ANCHORED = {
    "label": "Positions to fit on",
    "choices": ("anchored", "skip_first", "all"),
}


@dataclass(frozen=True)
class Pair:
    """Rows of the same positions of both models; positions that do not count are left out.

    u: (token, hidden) float32, the pruned model's stream at the place, with everything in front of
    it corrected already; y: the whole model's there; window: (token,) int64, which window a row is
    of. update, features: of a writer's place, what it adds to the stream, (token, hidden), and what
    it reads, (token, in). For `norm_out` u and y are behind the reader's norm. anchor: the same of
    the first position of every window, where the correction asks for that.
    """

    u: torch.Tensor
    y: torch.Tensor
    window: torch.Tensor
    update: torch.Tensor | None = None
    features: torch.Tensor | None = None
    anchor: Pair | None = None


@dataclass(frozen=True)
class Place:
    """Where a correction is fitted.

    gap: the removed blocks that it stands in for, empty where none is; block: behind which it
    stands (a map), which reads (an input) or whose writer it changes. weight: (out, in) float32 of
    that writer, bias likewise; norm: the norm of the last removed MLP of the gap, or of its last
    block.
    """

    hidden_size: int
    block: BlockId
    gap: tuple[BlockId, ...]
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    norm: nn.Module | None = None


@dataclass(frozen=True)
class Writing:
    """A writer's new (out, in) weight and, where it is to have another one, bias."""

    weight: torch.Tensor
    bias: torch.Tensor | None = None


class Fitter(Protocol):
    """Is fed the pairs of one place, then says what to put there. Keeps no activations."""

    def add(self, pair: Pair) -> None: ...

    def result(self) -> nn.Module | Writing: ...


@dataclass(frozen=True)
class Correction:
    """A repair of what a plan cut. Its dataclass fields are its parameters.

    title, meaning, reference, citation, formula, sees, misses: as for metrics. cost: what it takes
    to fit, to store and to run, in words. folds: how an export takes it into a stock checkpoint
    without storing more, empty where it needs modules of its own. is_sequential: fitted on a stream
    whose earlier gaps are corrected already; otherwise on the whole model's stream in front of the
    gap. reads_text: whether it is fitted on any.
    """

    tokens: str = field(default="skip_first", metadata=TOKENS)
    is_sequential: bool = field(default=True, metadata={"label": "One gap after the other"})

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    reference: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    sees: ClassVar[str] = ""
    misses: ClassVar[str] = ""
    cost: ClassVar[str] = ""
    folds: ClassVar[str] = ""
    is_experimental: ClassVar[bool] = False
    reads_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self)

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def where(self) -> Where:
        """The place, which may hang on a parameter."""
        return "gap"

    def check(self, hidden_size: int) -> None:
        """UnsupportedModel where it cannot be had for streams of this width, before any work."""

    def changes(self, block: BlockId, gap: tuple[BlockId, ...]) -> bool:
        """Whether it changes the writer of a surviving block, with this gap behind it or none."""
        return bool(gap)

    def fitter(self, place: Place) -> Fitter:
        """What gathers what this correction needs of one place."""
        raise TypeError(f"{self.name} does not say how it is fitted")


@dataclass(frozen=True)
class SelfFitted(Correction):
    """A correction that is not met place by place: it is trained, or read off the weights alone."""

    def repaired(
        self,
        model: BlockModel,
        plan: PruningPlan,
        windows: CalibrationSet,
        *,
        held: CalibrationSet | None,
        batch_tokens: int,
        memory_bytes: int | None,
    ) -> Events:
        """Done(Repair); a Progress after every step."""
        raise TypeError(f"{self.name} does not say how it is fitted")


@dataclass(frozen=True)
class Fit:
    """How well one place was met: moments of (stream there, whole model's stream).

    Of `norm_out` they are of what the block reads.

    before: without the correction of this place, after: with it, both on the windows it was fitted
    on; held_before, held_after: on windows that it has not seen, None where none were set aside.
    """

    block: BlockId
    gap: tuple[BlockId, ...]
    before: ChannelMoments
    after: ChannelMoments
    held_before: ChannelMoments | None = None
    held_after: ChannelMoments | None = None


@dataclass(frozen=True)
class Repair:
    """A fitted correction of one plan: modules and weights by block, and how well each fits.

    weights: block -> {path below its layer, such as "mlp.up_proj.weight": tensor as the module
    keeps it}; writers go on top of them. revived: blocks of the plan that stand after all, with
    weights of their own. passes: forward passes over the fit set that the fitting took, the whole
    model's included; seconds: what it took, 0 where nobody looked at the clock.
    """

    correction: Correction
    plan: PruningPlan
    maps: Mapping[BlockId, nn.Module] = field(default_factory=dict)
    inputs: Mapping[BlockId, nn.Module] = field(default_factory=dict)
    writers: Mapping[BlockId, Writing] = field(default_factory=dict)
    weights: Mapping[BlockId, Mapping[str, torch.Tensor]] = field(default_factory=dict)
    revived: tuple[BlockId, ...] = ()
    fits: tuple[Fit, ...] = ()
    n_tokens: int = 0
    passes: float = 0.0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
