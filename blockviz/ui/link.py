"""The view as a link, and a link as a view. A link never starts a download or a job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from blockviz.types import BlockId, ModelInfo, PruningPlan
from blockviz.ui.inputs import removed_blocks

MAX_CHARS = 4000


@dataclass(frozen=True)
class Linked:
    """What a link asks for: the plan, and the metric to colour by (`""` = the usual one)."""

    removed: tuple[str, ...] | None = None
    metric: str = ""


def parse_link(query: Mapping[str, str], info: ModelInfo, metrics: Iterable[str]) -> Linked:
    """The view a link asks for; BadPlan if its blocks are not of this model."""
    metric = query.get("metric", "")
    wanted = query.get("remove")
    removed = None
    if wanted is not None:
        names = [name.strip() for name in wanted[:MAX_CHARS].split(",") if name.strip()]
        removed = removed_blocks(names, info)
    return Linked(removed=removed, metric=metric if metric in tuple(metrics) else "")


def link_view(removed: Iterable[str], metric: str) -> dict[str, str]:
    """Base address (`""` = the page's own origin) and query of the current view."""
    plan = PruningPlan(removed=tuple(BlockId.parse(b) for b in removed))
    asked = [f"remove={quote(','.join(plan.shown()), safe=',')}"] if plan.removed else []
    asked += [f"metric={quote(metric)}"] if metric else []
    space = os.environ.get("SPACE_ID", "")
    base = f"https://huggingface.co/spaces/{space}" if space else ""
    return {"base": base, "query": f"?{'&'.join(asked)}" if asked else ""}
