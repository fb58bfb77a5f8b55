"""What the tour asks of the server: its stops, and at the end the plan as it was."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BlockvizError
from blockviz.session import Visitor
from blockviz.ui import map_views
from blockviz.ui.map_handlers import MapHandlers
from blockviz.ui.screen import Call, Update
from blockviz.ui.tour import tour_of

if TYPE_CHECKING:
    from blockviz.session import Engine


class TourHandlers:
    """The page walks through the stops by itself; nothing of a tour is kept here."""

    def __init__(self, engine: Engine, plan: MapHandlers) -> None:
        self.engine, self.plan = engine, plan

    def begin(self, call: Call, visitor: Visitor, metric: Any) -> Update:
        """A tour is started: its stops, and what the visitor had before it.

        A page still as it was painted has not been told yet what its address asks for.
        """
        drawing = self.plan.drawing
        drawing.check_model(visitor)
        if visitor == drawing.first_visitor():
            with contextlib.suppress(BlockvizError):
                visitor, linked = drawing.linked_visitor(call.query, visitor)
                metric = linked.metric or metric
        table, metric = drawing.table(visitor), drawing.metric(visitor, metric)
        was = {
            "removed": list(visitor.removed),
            "metric": metric,
            "title": table.metrics[metric].title if table and metric else "",
        }
        # A run of its own, so that the page starts again where nothing else has changed.
        stops = tour_of(self.engine, visitor, metric)
        return {"tour": {"run": secrets.token_hex(4), "steps": stops, "was": was}}

    def restore(self, call: Call, visitor: Visitor, metric: Any, shade: Any) -> Update:
        """The blocks and the metric that the page had before the tour, as one change."""
        drawing = self.plan.drawing
        metric = drawing.metric(visitor, call.data.get("metric"))
        table, shade = drawing.table(visitor), drawing.shade(shade)
        return {
            "metric": gr.update(value=metric or None),
            "legend": map_views.legend(table, metric, shade),
            **self.plan.toggle(call, visitor, metric, shade),
        }
