"""What the Curves tab does: draws the curves of one text, and applies the set of a point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BadInput
from blockviz.session import Visitor
from blockviz.types import BlockId
from blockviz.ui import curves_cards, inputs
from blockviz.ui.drawing import Drawing
from blockviz.ui.figure_card import card_names, card_update
from blockviz.ui.screen import Call, Update
from blockviz.ui.search_handlers import applied
from blockviz.ui.turns import Turns

if TYPE_CHECKING:
    from blockviz.session import Engine

EMPTY = (
    "No curve of this model yet. Press Start search on the Search tab, or Measure what cuts cost "
    "on the Insights tab."
)
UNKNOWN_MARK = "Your present set was not measured on this text, so it has no mark in the figure."
OTHER_MODEL = "Another model has been loaded since. Reload the page to see its curves."
OUTPUTS = (*card_names("curves"), "curve_group", "curve_point", "points_sent", "curves_note")


class CurvesHandlers:
    """One figure holds numbers of one text and one unit only."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        self.engine, self.turns, self.drawing = engine, turns, Drawing(engine)

    def draw(
        self,
        call: Call,
        visitor: Visitor,
        group: Any,
        is_log: Any,
        point: Any = None,
        sent: Any = None,
    ) -> Update:
        """The tab was opened, or a setting, a search or the plan has changed.

        A point that was chosen stays chosen where it is still there. sent: the points that the page
        has already: a list that is sent again would undo what somebody is typing into it.
        """
        found = curves_cards.groups(self.engine, visitor)
        key = group if isinstance(group, str) and group in found else next(iter(found), "")
        offered = [(g.title, k) for k, g in found.items()]
        chosen = found.get(key)
        points = [(said, sets) for sets, said in chosen.points().items()] if chosen else []
        is_gone = point is not None and point not in [s for _, s in points]
        figure = chosen and curves_cards.card(
            self.engine.info, visitor, chosen, is_log=is_log is not False
        )
        update = {
            **card_update("curves", figure),
            "curve_group": gr.update(choices=offered, value=key or None, visible=bool(offered)),
            "curves_note": {"text": self._note(visitor, chosen)},
        }
        if points != sent:
            update["points_sent"] = points
            update["curve_point"] = gr.update(
                choices=points, **({"value": None} if is_gone else {})
            )
        return update

    def newest(self, call: Call, visitor: Visitor, group: Any, *settings: Any) -> Update:
        """A search has found something: its text comes first, whatever was looked at before."""
        return self.draw(call, visitor, None, *settings)

    def pick(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        """A point of the figure was clicked."""
        raw = call.data.get("removed")
        return self._applied(call, visitor, raw, metric, shade)

    def apply(self, call: Call, visitor: Visitor, point: Any, metric: Any, shade: Any) -> Update:
        """The Apply button beside the list of points."""
        if not isinstance(point, str) or not point:
            raise BadInput(
                "A point of the curves was to be applied.",
                "None is chosen.",
                "Choose one from the list, or click one in the figure.",
            )
        return self._applied(call, visitor, point.split(","), metric, shade)

    def _applied(self, call: Call, visitor: Visitor, raw: Any, metric: Any, shade: Any) -> Update:
        blocks = [BlockId.parse(b) for b in raw] if isinstance(raw, list) else raw
        parts = [str(p) for b in blocks for p in b.parts] if isinstance(blocks, list) else blocks
        removed = inputs.removed_blocks(parts, self.engine.info)
        chosen = tuple(BlockId.parse(b) for b in removed)
        return applied(self.drawing, self.turns, call, visitor, chosen, metric, shade)

    def _note(self, visitor: Visitor, group: curves_cards.Group | None) -> str:
        if group is None:
            return EMPTY
        if visitor.model_key != self.engine.model_key:
            return OTHER_MODEL
        plan = visitor.plan()
        is_known = frozenset(plan.removed) in group.known
        return "" if is_known or not plan.removed else UNKNOWN_MARK
