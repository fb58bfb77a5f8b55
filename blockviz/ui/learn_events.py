"""Which trigger of the Learn tab and of the tour calls which handler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import gradio as gr

from blockviz.ui.learn_handlers import LearnHandlers
from blockviz.ui.map_handlers import MapHandlers
from blockviz.ui.screen import EACH, Screen
from blockviz.ui.tour_handlers import TourHandlers

if TYPE_CHECKING:
    from blockviz.session import Engine


def wire_learn(
    screen: Screen, engine: Engine, plan: MapHandlers, look: Sequence[str], restored: Sequence[str]
) -> gr.events.Dependency:
    """The dependency is the one that puts the plan back as it was before a tour.

    look: how the Map is coloured; restored: what that writes into.
    """
    learn, tour = LearnHandlers(engine, plan), TourHandlers(engine, plan)
    last = {"trigger_mode": "always_last"}
    screen.listen(
        (screen["learn"].select, screen["method_shown"].input, screen["job"].settled),
        learn.draw, inputs=("visitor", "method_shown"), outputs=("method",), **last,
    )  # fmt: skip
    screen.listen(
        screen["method"].colour, learn.colour, inputs=("visitor", "shade", "picked"),
        outputs=("metric", "legend", "grid", "ranking", "link", "block"), **EACH,
    )  # fmt: skip
    screen.listen(screen["tour"].begin, tour.begin, inputs=("visitor", "metric"), outputs=("tour",))
    return screen.listen(
        screen["tour"].restore, tour.restore, inputs=("visitor", *look), outputs=restored
    )
