"""The Map tab: removal grid, heat map and its table, the picked block, and what is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from blockviz.ui.chat_field import chat_field
from blockviz.ui.drawing import NO_CSV
from blockviz.ui.live_handlers import MAX_NEW_TOKENS
from blockviz.ui.parts import heading, part
from blockviz.ui.screen import Screen, Update

if TYPE_CHECKING:
    from blockviz.session import Engine

SHADE_CHOICES = [("Rank", "rank"), ("Value", "value")]


def build_map(screen: Screen, engine: Engine, first: Update) -> None:
    """Two columns, one on narrow screens. `first`: the finished example as it is first drawn."""
    with gr.Row(elem_id="map-columns"):
        with gr.Column(scale=5, min_width=480, elem_id="map-main"):
            _grid(screen, first)
            _heat(screen)
            _texts(screen, engine)
        with gr.Column(scale=2, min_width=350, elem_id="map-side"):
            with gr.Column(elem_classes=["bv-panel"]):
                screen.add(
                    "block", part("detail", {"title": "", "lead": "", "rows": []}, elem_id="block")
                )
            with gr.Column(elem_classes=["bv-panel"]):
                screen.add("ranking", part("ranking", {"lead": "", "rows": [], "empty": ""}))


def _grid(screen: Screen, first: Update) -> None:
    with gr.Column(elem_classes=["bv-panel"]):
        with gr.Row(elem_classes=["bv-headrow"]):
            heading(
                "Switch blocks off",
                "Bright = keep, dark = removable. Click or press Space; arrows move; ? shows keys.",
            )
            screen.add("link", part("link", {"base": "", "query": ""}))
        screen.add("grid", part("grid", {}))
        screen.add("legend", part("legend", {"ramp": "", "note": ""}))
        with gr.Row(elem_classes=["bv-controls"]):
            screen.add("metric", gr.Dropdown(
                first["metric"]["choices"], value=first["metric"]["value"], label="Colour by",
                min_width=150, scale=1, elem_id="metric",
            ))  # fmt: skip
            screen.add("twin", gr.Dropdown(
                first["twin"]["choices"], value=first["twin"]["value"], multiselect=True, scale=3,
                label="Removed blocks", min_width=220, elem_id="twin",
            ))  # fmt: skip


def _heat(screen: Screen) -> None:
    with gr.Column(elem_classes=["bv-panel"]):
        with gr.Row(elem_classes=["bv-headrow"]):
            heading(
                "Every metric, every block",
                "Metrics agree where columns share a tone; low = removable in every row.",
            )
            screen.add("shade", gr.Radio(
                SHADE_CHOICES, value="rank", label="Colours show", show_label=False,
                container=False, elem_id="shade", min_width=150, scale=0,
            ))  # fmt: skip
        with gr.Column(elem_classes=["bv-scroll"]):
            screen.add("heat", gr.Plot(show_label=False, container=False, elem_id="heat"))
        screen.add("heat_clicks", part("heat", {}, elem_id="heat-clicks"))
        screen.add("readings", part("readings", {"metrics": []}))
        with gr.Accordion("The same numbers as a table", open=False, elem_id="numbers"):
            screen.add("table", gr.Dataframe(
                interactive=False, show_label=False, pinned_columns=1, max_height=360,
                elem_id="table", buttons=["fullscreen", "copy"],
            ))  # fmt: skip
            with gr.Row(elem_classes=["bv-controls"]):
                screen.add("csv", part("save", NO_CSV, elem_id="csv"))
                screen.add("import_scores", gr.UploadButton(
                    "Add scores from a JSON file", file_types=[".json"], size="sm", scale=0,
                    elem_id="import-scores", min_width=220,
                ))  # fmt: skip


def _texts(screen: Screen, engine: Engine) -> None:
    limits = engine.limits
    with gr.Column(elem_classes=["bv-panel"]):
        heading(
            "What it writes",
            "Same prompt, always the likeliest next token; the first difference is marked.",
        )
        screen.add("texts", part("texts", {}))
        screen.add("prompt", gr.Textbox(
            engine.example_prompt, label="Prompt", lines=2, max_lines=6, elem_id="prompt",
            max_length=limits.max_prompt_chars,
        ))  # fmt: skip
        with gr.Row(elem_classes=["bv-controls"]):
            screen.add("n_new", gr.Slider(
                1, limits.max_new_tokens or MAX_NEW_TOKENS, value=48, step=1,
                label="New tokens at most", min_width=180, elem_id="n-new",
            ))  # fmt: skip
            chat_field(screen, engine, "chat")
            screen.add("write", gr.Button(
                "Write", variant="primary", elem_id="write", min_width=120, scale=0
            ))  # fmt: skip
