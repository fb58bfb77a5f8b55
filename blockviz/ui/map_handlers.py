"""What the Map tab does when somebody toggles, picks, colours or undoes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blockviz.errors import BlockvizError
from blockviz.plots import SHADES
from blockviz.session import Visitor
from blockviz.ui import inputs, map_views
from blockviz.ui.drawing import Drawing
from blockviz.ui.screen import Call, Update, failure
from blockviz.ui.turns import Turns

if TYPE_CHECKING:
    from blockviz.session import Engine


class MapHandlers:
    """One method per event. Inputs come from the page and are checked before use."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        self.engine, self.turns, self.drawing = engine, turns, Drawing(engine)

    def toggle(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        """The grid sends the whole plan it now shows, so that a dropped event loses nothing, and
        numbers what it sends: a toggle that comes after a newer one changes nothing."""
        seq = _number(call)
        if seq is not None and seq < visitor.seq:
            self.drawing.check_model(visitor)
            return self._shown(call, visitor, metric, shade)
        return self._change(call, visitor, call.data.get("removed"), metric, shade, seq)

    def twin(self, call: Call, visitor: Visitor, removed: Any, metric: Any, shade: Any) -> Update:
        """The list of removed blocks was edited instead of the grid."""
        return self._change(call, visitor, removed or [], metric, shade, None)

    def undo(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        return self._shown(call, visitor.undo(), metric, shade)

    def redo(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        return self._shown(call, visitor.redo(), metric, shade)

    def reset(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        """The grid sends it for the button and for its key, and numbers it as a toggle."""
        seq = _number(call)
        is_overtaken = seq is not None and seq < visitor.seq
        changed_to = visitor if is_overtaken else _numbered(visitor.reset(), seq)
        return self._shown(call, changed_to, metric, shade)

    def walk(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        """Back or Forward was pressed: the plan that the page had there, as one more change."""
        self.drawing.check_model(visitor)
        removed = inputs.removed_blocks(call.data.get("removed"), self.engine.info)
        shown = self._shown(call, visitor.went_to(removed), metric, shade)
        # By this number the page knows that its own step was answered.
        return {**shown, "link": {**shown["link"], "walk": call.data.get("walk")}}

    def pick(self, call: Call, visitor: Visitor) -> Update:
        """A block was focused in the grid, or clicked in the heat map or the ranking."""
        picked = inputs.block(call.data.get("block"), self.engine.info)
        return {"picked": str(picked), **self.drawing.block(visitor, str(picked))}

    def colour(self, call: Call, visitor: Visitor, metric: Any, shade: Any, picked: str) -> Update:
        """Another metric or another shading was chosen."""
        table = self.drawing.table(visitor)
        if metric is not None:
            inputs.choice(metric, "The metric", tuple(table.metrics) if table else ())
        shade = inputs.choice(shade, "The shading", SHADES)
        metric = self.drawing.metric(visitor, metric)
        return {
            "legend": map_views.legend(table, metric, shade),
            **self.drawing.grid(visitor, metric, shade, picked),
        }

    def reshade(self, call: Call, visitor: Visitor, shade: Any) -> Update:
        """The heat map in another shading."""
        return self.drawing.map(visitor, inputs.choice(shade, "The shading", SHADES))

    def _change(
        self, call: Call, visitor: Visitor, raw: Any, metric: Any, shade: Any, seq: int | None
    ) -> Update:
        self.drawing.check_model(visitor)
        try:
            removed = inputs.removed_blocks(raw, self.engine.info)
        except BlockvizError as error:
            back = self._shown(call, _numbered(visitor, seq), metric, shade)
            return {**back, **failure(error)}
        changed = set(removed) ^ set(visitor.removed)
        picked = next(iter(changed)) if len(changed) == 1 else ""
        changed_to = _numbered(visitor.with_removed(removed), seq)
        return self._shown(call, changed_to, metric, shade, picked=picked)

    def _shown(
        self, call: Call, visitor: Visitor, metric: Any, shade: Any, *, picked: str = ""
    ) -> Update:
        self.turns.begin(call.session)
        return {
            **self.drawing.plan(visitor, picked=picked),
            **self.drawing.grid(visitor, metric, shade, picked),
            "picked": picked,
        }


def _number(call: Call) -> int | None:
    """The number that the grid gave what it sent."""
    seq = call.data.get("seq")
    return seq if isinstance(seq, int) and not isinstance(seq, bool) else None


def _numbered(visitor: Visitor, seq: int | None) -> Visitor:
    """The visitor with the number of the toggle that was answered, so that every later drawing
    tells the page how far it is."""
    return visitor if seq is None else replace(visitor, seq=max(seq, visitor.seq))
