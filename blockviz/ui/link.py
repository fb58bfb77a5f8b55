"""The view as a link, and a link as a view. A link never starts a download or a job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from blockviz.errors import BadInput
from blockviz.session import Visitor
from blockviz.types import ModelInfo
from blockviz.ui.inputs import removed_blocks

MAX_CHARS = 4000
MAX_NAME = 80
TABS = ("map", "curves", "insights", "search", "repair", "compare", "export", "learn")


@dataclass(frozen=True)
class Linked:
    """What a link asks for: the plan, and the metric to colour by (`""` = the usual one).

    refused: in words, what it asks for that there is not; the rest of it is followed.
    """

    removed: tuple[str, ...] | None = None
    metric: str = ""
    refused: str = ""


def parse_link(query: Mapping[str, str], info: ModelInfo, metrics: Iterable[str]) -> Linked:
    """The view a link asks for; BadInput for another model, BadPlan for blocks it has not got."""
    _check_model(query.get("model", ""), info)
    wanted, removed = query.get("remove"), None
    if wanted is not None:
        names = [name.strip() for name in wanted[:MAX_CHARS].split(",") if name.strip()]
        removed = removed_blocks(names, info)
    metric, tab, known = query.get("metric", ""), query.get("tab", ""), tuple(metrics)
    refused = [
        *(_unknown("colours by the metric", metric, known) if metric not in ("", *known) else ()),
        *(_unknown("opens the tab", tab, TABS) if tab not in ("", *TABS) else ()),
    ]
    return Linked(removed, metric if metric in known else "", " ".join(refused))


def link_view(
    visitor: Visitor, metric: str, *, model: str = "", prompt: str = ""
) -> dict[str, Any]:
    """Base address (`""` = the page's own origin) and query of the current view.

    model: its name, `""` where a page opens on it by itself. prompt: the one that a page opens
    with, which its address need not say. removed, changes: by which the page
    tells another plan from another colour, and a late drawing from the newest.
    """
    asked = [f"model={quote(model, safe='/@')}"] if model else []
    asked += [f"remove={quote(','.join(visitor.plan().shown()), safe=',')}"]
    asked += [f"metric={quote(metric)}"] if metric else []
    space = os.environ.get("SPACE_ID", "")
    base = f"https://huggingface.co/spaces/{space}" if space else ""
    return {
        "base": base,
        "query": f"?{'&'.join(asked)}",
        "removed": list(visitor.removed),
        "changes": visitor.changes,
        "prompt": prompt,
    }


def _check_model(model: str, info: ModelInfo) -> None:
    if model and model != info.name:
        raise BadInput(
            f"The link is to the model {model[:MAX_NAME]!r}.",
            f"{info.name} is in memory, and a link loads nothing.",
            "Load that model under Model, text and metrics, then open the link again.",
        )


def _unknown(does: str, name: str, known: Iterable[str]) -> list[str]:
    found = BadInput(
        f"The link {does} {name[:MAX_NAME]!r}.",
        "There is none of that name here.",
        f"Choose from: {', '.join(known)}.",
    )
    return [str(found)]
