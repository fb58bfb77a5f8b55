"""What every search strategy declares, what it searches in, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from blockviz.errors import BadInput
from blockviz.registry import Registry
from blockviz.settings import check_settings
from blockviz.types import BlockId, RemovedSet, Searching, parts_of

STRATEGIES: Registry[type[Strategy]] = Registry("strategy")


@dataclass(frozen=True)
class Goal:
    """How far to cut. Every limit that is given holds; at least one is.

    n_units: so many units at most. max_parameters: so many parameters gone at most, `sizes` has
    those of each attention and MLP block. max_value: the objective may not rise above it.
    min_seconds: cut until so many seconds of `seconds` (per block) are saved.
    """

    n_units: int | None = None
    max_parameters: int | None = None
    sizes: Mapping[BlockId, int] = field(default_factory=dict)
    max_value: float | None = None
    min_seconds: float | None = None
    seconds: Mapping[BlockId, float] = field(default_factory=dict)

    def fits(self, removed: tuple[BlockId, ...]) -> bool:
        """Whether units may be gone together, whatever the objective says."""
        if self.n_units is not None and len(removed) > self.n_units:
            return False
        if self.max_parameters is None:
            return True
        return sum(self.sizes[b] for b in parts_of(removed)) <= self.max_parameters

    def accepts(self, value: float | None) -> bool:
        """Whether the objective is a number that has not risen too far."""
        if value is None:
            return True
        return math.isfinite(value) and (self.max_value is None or value <= self.max_value)

    def is_reached(self, removed: tuple[BlockId, ...]) -> bool:
        """Whether nothing more is to go."""
        if self.n_units is not None and len(removed) >= self.n_units:
            return True
        if self.min_seconds is None:
            return False
        return sum(self.seconds[b] for b in parts_of(removed)) >= self.min_seconds


@dataclass(frozen=True)
class Space:
    """What a search chooses from. `units`: candidates in order of depth, protected ones left out.

    scores: importance (higher = keep) of every unit, for strategies that want them; windows:
    (first layer, number of layers) -> distance of a run of layers, low = removable.
    n_blocks: attention and MLP blocks of the whole model; one of them always stays. baseline: the
    objective of the whole model. is_exhaustive: nothing may be ruled out unmeasured.
    """

    units: tuple[BlockId, ...]
    goal: Goal
    n_blocks: int
    scores: Mapping[BlockId, float] = field(default_factory=dict)
    windows: Mapping[tuple[int, int], float] = field(default_factory=dict)
    seed: int = 42
    baseline: float = math.nan
    is_exhaustive: bool = False

    def next_units(self, removed: tuple[BlockId, ...]) -> tuple[BlockId, ...]:
        """The units that may go next: attention first, then MLP, each by depth (BlockPruner)."""
        gone = set(removed)
        free = [u for u in self.units if u not in gone and self.may_be((*removed, u))]
        return tuple(sorted(free, key=tie_key))

    def may_be(self, removed: tuple[BlockId, ...]) -> bool:
        """Whether this set leaves a model, and fits the goal."""
        return len(parts_of(removed)) < self.n_blocks and self.goal.fits(removed)

    def most_units(self) -> int:
        """How many units can go at most."""
        most = min(len(self.units), self.n_blocks - 1)
        return most if self.goal.n_units is None else min(most, self.goal.n_units)


@dataclass(frozen=True)
class Strategy:
    """A way to choose blocks. Its dataclass fields are its parameters.

    title, meaning, reference, citation: as for metrics. wants: what it needs beside an objective:
    "scores" of a metric for every unit, "windows" distances of runs of layers. units: where it can
    search. is_experimental: not meant to be relied on; ends_itself: it needs no target. repair: the
    correction it measures with where none is given, None for a strategy that measures without;
    objective: what it goes by whatever is asked for, empty where that is free.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    meaning: ClassVar[str]
    reference: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    wants: ClassVar[str] = ""
    units: ClassVar[tuple[str, ...]] = ("block", "layer", "attn", "mlp")
    is_experimental: ClassVar[bool] = False
    ends_itself: ClassVar[bool] = False
    repair: ClassVar[str | None] = None
    objective: ClassVar[str] = ""

    def __post_init__(self) -> None:
        check_settings(self)

    def parameters(self) -> dict[str, Any]:
        return asdict(self)

    def needs(self) -> str:
        """What it wants with these parameters."""
        return self.wants

    def n_sets(self, space: Space) -> int:
        """How many sets it asks for at most, for an estimate of the time."""
        raise TypeError(f"{self.name} does not say how much it asks")

    def n_fits(self, space: Space) -> int:
        """How many repairs it fits at most."""
        return 0

    def search(self, space: Space) -> Searching:
        """The search; BadInput where the space has nothing that may be removed."""
        raise TypeError(f"{self.name} does not say how it searches")


def tie_key(block: BlockId) -> tuple[bool, int]:
    """Order of equals: attention and layers before MLP, then by depth (arXiv 2406.10594, code)."""
    return block.part == "mlp", block.layer


def check_space(space: Space) -> None:
    """BadInput where not even one unit may go."""
    if not space.next_units(()):
        raise BadInput(
            f"Blocks were to be chosen from {len(space.units)} candidates.",
            "Not one of them may be removed within the target and the protected layers.",
            "Ask for a larger cut, or protect fewer layers.",
        )


def removed_parts(*groups: tuple[BlockId, ...]) -> RemovedSet:
    """The attention and MLP blocks of several groups of units."""
    return parts_of(tuple(b for group in groups for b in group))
