"""The Learn tab: the way into the tour, every method explained, and the words of the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from blockviz.session import Visitor
from blockviz.ui.glossary import SECTIONS
from blockviz.ui.method_card import method_view, offered
from blockviz.ui.parts import heading, part
from blockviz.ui.screen import Screen

if TYPE_CHECKING:
    from blockviz.session import Engine


def build_learn(screen: Screen, engine: Engine, visitor: Visitor) -> None:
    """The tour's start, a card of one metric or correction, glossary and caveats."""
    methods = offered(engine)
    first = next((m for _, m in methods if m == "metric:ppl"), methods[0][1])
    with gr.Column(elem_classes=["bv-panel"], elem_id="tour-panel"):
        heading(
            "Take the tour",
            "Three minutes with the real controls: each stop shows the control it speaks of. Press "
            "it yourself, or have it pressed. Nothing has to be loaded, and at the end your blocks "
            "can be put back as they were.",
        )
        part("tour_start", {}, elem_id="tour-start")
    with gr.Column(elem_classes=["bv-panel"], elem_id="methods"):
        with gr.Row(elem_classes=["bv-headrow"]):
            heading(
                "One method at a time",
                "What it computes, what it sees and misses, and what it says of your model.",
            )
            screen.add("method_shown", gr.Dropdown(
                methods, value=first, label="Metric or correction", min_width=280, scale=0,
                elem_id="method-shown",
            ))  # fmt: skip
        screen.add("method", part("method", method_view(engine, visitor, first)))
    with gr.Column(elem_classes=["bv-panel"], elem_id="learn"):
        heading("Words of the screen", "In a sentence or two each.")
        part("glossary", {"sections": [[t, about, list(words)] for t, about, words in SECTIONS]})
