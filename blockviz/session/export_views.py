"""What a front end asks of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockviz.session.repair_views import RepairRequest
from blockviz.session.views import ScoreRequest
from blockviz.types import ExportMode, PruningPlan


@dataclass(frozen=True)
class ExportRequest:
    """repair: which correction to fit before writing, and on what; None for none. state: a folder
    with one that is fitted already, in place of it. as_llama: write a model of another family as a
    Llama, which may have biases. evaluation: the text of the perplexities that are written down and
    checked. scoring, search: how the page's table was scored and which search found the plan, for
    the recipe. n_copies: how often the disk
    has to hold it at once, spare_bytes: what is to stay free.
    """

    plan: PruningPlan
    folder: Path
    mode: ExportMode = "stock-compact"
    repair: RepairRequest | None = None
    state: Path | None = None
    as_llama: bool = False
    evaluation: ScoreRequest = field(
        default_factory=lambda: ScoreRequest(n_samples=16, seq_len=512)
    )
    scoring: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    n_copies: int = 1
    spare_bytes: int = 0


@dataclass(frozen=True)
class ModeCard:
    """A mode as a front end shows it: what it stores of a plan, or why it cannot."""

    mode: ExportMode
    meaning: str
    n_parameters: int | None = None
    stored_ratio: float | None = None
    refused: str = ""
