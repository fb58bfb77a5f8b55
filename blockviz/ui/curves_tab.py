"""The Curves tab: what perplexity costs against what is removed, and a way to take any point."""

from __future__ import annotations

import gradio as gr

from blockviz.ui.curves_handlers import EMPTY
from blockviz.ui.figure_card import build_card
from blockviz.ui.parts import lead, part
from blockviz.ui.screen import Screen


def build_curves(screen: Screen) -> None:
    """A choice of text, the figure, and the same points as a list."""
    with gr.Column(elem_classes=["bv-panel"]):
        lead(
            "What every removed set cost, search by search or metric by metric. Numbers of "
            "different texts are never drawn into one figure."
        )
        with gr.Row(elem_classes=["bv-controls"]):
            screen.add("curve_group", gr.Dropdown(
                [], label="Curves measured on", scale=3, min_width=240, elem_id="curve-group"
            ))  # fmt: skip
            screen.add("curve_log", gr.Checkbox(
                value=True, label="Logarithmic scale", min_width=160, elem_id="curve-log"
            ))  # fmt: skip
        screen.add("curves_note", part("note", {"text": EMPTY}, elem_id="curves-note"))
    build_card(screen, "curves", is_wide=False)
    screen.add("curve_clicks", part("curves", {}, elem_id="curve-clicks"))
    with gr.Column(elem_classes=["bv-panel"], elem_id="curve-points"):
        lead("Click a point to put its set on the Map, or choose it here.")
        with gr.Row(elem_classes=["bv-controls"]):
            screen.add("curve_point", gr.Dropdown(
                [], label="Point", scale=3, min_width=240, elem_id="curve-point"
            ))  # fmt: skip
            screen.add("apply_point", gr.Button(
                "Apply", variant="primary", scale=0, min_width=120, elem_id="apply-point"
            ))  # fmt: skip
