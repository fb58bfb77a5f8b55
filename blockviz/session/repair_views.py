"""What a front end asks of corrections."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockviz.session.views import ScoreRequest
from blockviz.types import ExportMode, PruningPlan


@dataclass(frozen=True)
class RepairRequest:
    """Which corrections of a plan to fit, on which text, and to measure on which.

    corrections: names with settings, `ridge:ridge=0.01`; `all`; or `auto`, what an export of this
    mode can carry and a grid of settings. text: the fit windows; n_skip: so many windows at its
    start are left out, such as those that a search has seen; n_held: so many windows behind the fit
    windows are kept for choosing. evaluation: the text of the perplexities.
    """

    plan: PruningPlan
    corrections: tuple[str, ...] = ("all",)
    text: ScoreRequest = field(default_factory=lambda: ScoreRequest(n_samples=48, seq_len=512))
    n_skip: int = 0
    n_held: int = 8
    evaluation: ScoreRequest = field(
        default_factory=lambda: ScoreRequest(n_samples=16, seq_len=512)
    )
    memory_bytes: int | None = None
    export_mode: ExportMode = "stock-compact"


@dataclass(frozen=True)
class CorrectionCard:
    """A correction as a front end shows it; formula, sees, misses: as for a metric."""

    name: str
    title: str
    meaning: str
    reference: str
    citation: str
    folds: str = ""
    is_experimental: bool = False
    formula: str = ""
    sees: str = ""
    misses: str = ""
    cost: str = ""
