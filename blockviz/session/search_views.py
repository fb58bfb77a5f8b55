"""What a front end asks of a search, and what it is told before one starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockviz.session.views import ScoreRequest
from blockviz.types import Unit


@dataclass(frozen=True)
class SearchRequest:
    """What to search, on which text, how far; the fields are the command line's options.

    text: the calibration windows (its `metrics` and `unit` are not read); tasks and limit there are
    for the objective `acc`. blocks, ratio, max_ppl_rise, speedup: the target, at least one of them:
    units to remove, share of all parameters, percent of perplexity, times as fast to decode.
    pool: `bi:0.5` = only the half of the units with the lowest BI; scores: the metric of strategies
    that go by scores. with_repair: the correction that is fitted anew as blocks go, on so many
    windows behind those of the search (repair_samples). level: the doubt that racing may spend on
    a decision. preset: where it came from.
    """

    text: ScoreRequest = field(default_factory=ScoreRequest)
    objective: str = "ppl"
    strategy: str = "greedy"
    unit: Unit = "block"
    blocks: int | None = None
    ratio: float | None = None
    max_ppl_rise: float | None = None
    speedup: float | None = None
    protect_first: int = 0
    protect_last: int = 0
    pool: str = ""
    scores: str = ""
    with_repair: str = ""
    repair_samples: int = 64
    level: float = 0.05
    is_exhaustive: bool = False
    engine: str = "fast"
    memory_bytes: int | None = None
    preset: str = ""


@dataclass(frozen=True)
class PairsRequest:
    """Which interactions to measure. `n_positions`: sampled of each window; None reads them all.

    pool: `bi:0.5` = only among the half of the units with the lowest BI.
    """

    text: ScoreRequest = field(default_factory=lambda: ScoreRequest(n_samples=8))
    unit: Unit = "block"
    n_positions: int | None = 32
    pool: str = ""
    seed: int = 42
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Estimate:
    """Seconds that a search will take, from a moment's timing: with the usual luck, and without.

    n_sets: how many removed sets it will ask for at most.
    """

    seconds_low: float
    seconds_high: float
    n_sets: int


@dataclass(frozen=True)
class StrategyCard:
    """A search strategy as a front end shows it."""

    name: str
    title: str
    meaning: str
    reference: str
    citation: str
    units: tuple[str, ...]
    wants: str = ""
    is_experimental: bool = False


@dataclass(frozen=True)
class PresetCard:
    """A paper's recipe. `settings`: the fields of a SearchRequest that it sets.

    repair: the correction behind the cut, empty if there is none; note: what of the recipe is left
    out or scaled here, in a sentence; empty if nothing is.
    """

    name: str
    title: str
    meaning: str
    reference: str
    citation: str
    settings: Mapping[str, Any]
    repair: str = ""
    note: str = ""
