"""What the Learn tab does: explains the chosen method, and colours the Map by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.session import Visitor
from blockviz.ui import inputs
from blockviz.ui.map_handlers import MapHandlers
from blockviz.ui.method_card import method_view, offered
from blockviz.ui.screen import Call, Update

if TYPE_CHECKING:
    from blockviz.session import Engine


class LearnHandlers:
    """The card is drawn when the tab is opened, and again when its subject changes."""

    def __init__(self, engine: Engine, plan: MapHandlers) -> None:
        self.engine, self.plan = engine, plan

    def draw(self, call: Call, visitor: Visitor, method: Any) -> Update:
        """A method was chosen, the tab was opened, or a job has ended."""
        known = [value for _, value in offered(self.engine)]
        chosen = inputs.choice(method, "The metric or correction", known)
        return {"method": method_view(self.engine, visitor, chosen)}

    def colour(self, call: Call, visitor: Visitor, shade: Any, picked: str) -> Update:
        """The button that colours the Map by the metric of the card."""
        wanted = str(call.data.get("metric"))
        drawn = self.plan.colour(call, visitor, wanted, shade, picked)
        return {**drawn, "metric": gr.update(value=wanted)}
