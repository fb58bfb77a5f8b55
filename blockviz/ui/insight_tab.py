"""The Insights tab: what the metrics say together, and which of them are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from blockviz.ui.figure_card import build_card
from blockviz.ui.insight_cards import PAGES
from blockviz.ui.parts import lead, part
from blockviz.ui.screen import Screen

if TYPE_CHECKING:
    from blockviz.session import Engine

TITLES = {
    "right": "Who is right?",
    "metrics": "Metric by metric",
    "agreement": "Agreement",
    "layers": "Runs of layers",
    "steady": "Steadiness",
    "lens": "Early exit",
    "pairs": "Stand-ins",
}
LEADS = {
    "right": "Every metric's order beside what cuts really cost on text that no metric has seen.",
    "metrics": "The paper's own numbers over the depth of the model.",
    "agreement": "Which metrics put the blocks in the same order.",
    "layers": "How little changes over runs of layers, and which layers are alike.",
    "steady": "How far another draw of the text would move the order.",
    "lens": "What the model would write if it stopped after each block.",
    "pairs": "Which two blocks stand in for each other, so that removing both costs more than the "
    "sum of each alone.",
}
# These fit a phone; the others scroll in a box of their own.
NARROW = {
    "verdict", "cumulative", "lines", "multiples", "cka", "singles", "pairs_list", "pairs_check",
}  # fmt: skip


def build_insights(screen: Screen, engine: Engine) -> None:
    """Seven pages; only the open one is drawn, and only when it is opened."""
    first = next(iter(PAGES))
    screen.add("page", gr.Radio(
        [(TITLES[page], page) for page in PAGES], value=first, label="Page", show_label=False,
        container=False, elem_id="page",
    ))  # fmt: skip
    for page, cards in PAGES.items():
        with gr.Column(visible=page == first, elem_id=f"page-{page}") as column:
            with gr.Column(elem_classes=["bv-panel"]):
                lead(LEADS[page])
                _controls(screen, engine, page)
                screen.add(f"note_{page}", part("note", {"text": ""}, elem_id=f"note-{page}"))
            for name in cards:
                build_card(screen, name, is_wide=name not in NARROW)
        screen.add(f"page_{page}", column)


def _controls(screen: Screen, engine: Engine, page: str) -> None:
    if page == "right":
        with gr.Row(elem_classes=["bv-controls"]):
            _metric(screen, engine, "judged_metric", "Metric in the scatter")
            screen.add("log_scale", gr.Checkbox(
                value=True, label="Logarithmic perplexity", elem_id="log-scale", min_width=160,
            ))  # fmt: skip
            screen.add("start_judge", gr.Button(
                "Measure what cuts cost", variant="primary", elem_id="start-judge", min_width=180,
                scale=0,
            ))  # fmt: skip
    if page == "metrics":
        with gr.Row(elem_classes=["bv-controls"]):
            _metric(screen, engine, "line_metric", "Metric on top")
    if page == "lens":
        limits = engine.limits
        with gr.Row(elem_classes=["bv-controls"]):
            screen.add("lens_text", gr.Textbox(
                _lens_text(engine), label="Text", lines=2, max_lines=6, scale=3, min_width=240,
                max_length=limits.max_prompt_chars, elem_id="lens-text",
            ))  # fmt: skip
            screen.add("lens_position", gr.Number(
                -1, label="Token, -1 = the last", min_width=120, scale=0,
                elem_id="lens-position",
            ))  # fmt: skip
            screen.add("read_lens", gr.Button(
                "Read", variant="primary", elem_id="read-lens", min_width=120, scale=0
            ))  # fmt: skip
    if page == "pairs":
        with gr.Row(elem_classes=["bv-controls"]):
            screen.add("pair_order", gr.Radio(
                [("Order of depth", "depth"), ("Grouped", "clustered")], value="depth",
                label="Order of blocks", show_label=False, container=False, elem_id="pair-order",
                min_width=200,
            ))  # fmt: skip
            screen.add("start_pairs", gr.Button(
                "Measure pairs", variant="primary", elem_id="start-pairs", min_width=160, scale=0
            ))  # fmt: skip
        screen.add("foretold", part("note", {"text": ""}, elem_id="foretold"))


def _lens_text(engine: Engine) -> str:
    """The text of the example's figures, so that they belong to what the box says."""
    lens = engine.example_lens
    return "".join(lens.context) if lens else engine.example_prompt


def _metric(screen: Screen, engine: Engine, name: str, label: str) -> None:
    """Custom values are let through to the handlers, which check them: after new scores the page
    may still send a metric that they have not got."""
    table = engine.table("example")
    titles = [(s.title, key) for key, s in table.metrics.items()] if table else []
    screen.add(name, gr.Dropdown(
        titles, value=titles[0][1] if titles else None, label=label, min_width=180, scale=1,
        allow_custom_value=True, elem_id=name.replace("_", "-"),
    ))  # fmt: skip
