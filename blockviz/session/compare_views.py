"""What a front end asks of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace

from blockviz.session.repair_views import RepairRequest
from blockviz.store import key
from blockviz.types import PruningPlan


@dataclass(frozen=True)
class CompareRequest:
    """Original, plan and repairs side by side.

    repair: the plan, at most two corrections (`none` stands for no further column), and the texts
    they are fitted and measured on; prompt: what every variant continues, greedily; tasks: what
    every variant is asked, `limit` rows of each (None for all); is_timed: whether they are timed,
    in turns.
    """

    repair: RepairRequest
    prompt: str
    max_new_tokens: int = 48
    is_chat: bool = False
    tasks: tuple[str, ...] = ()
    limit: int | None = 48
    is_timed: bool = False

    @property
    def settings(self) -> str:
        """A key of all that is asked but the plan."""
        return key("compare", replace(self, repair=replace(self.repair, plan=PruningPlan())))
