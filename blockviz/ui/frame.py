"""The frame of every screen: header, scoreboard, status bar, undo and the error box."""

from __future__ import annotations

import gradio as gr

from blockviz.ui import views
from blockviz.ui.figure_card import send_plotly_js
from blockviz.ui.parts import part
from blockviz.ui.report_handlers import NO_REPORT
from blockviz.ui.screen import Screen, Update


def build_header(screen: Screen) -> None:
    """Mark, model chip, data chip, mode, and the page as a file."""
    with gr.Row(elem_id="top"):
        screen.add(
            "header", part("header", {"model": "", "model_facts": "", "data": "", "mode": ""})
        )
        screen.add("report", part("report", NO_REPORT, asks=[send_plotly_js]))


def build_scoreboard(screen: Screen, first: Update) -> None:
    """What never leaves the screen: figures, what is running, and the way back."""
    with gr.Column(elem_id="board"):
        screen.add("score", part("score", {}))
        with gr.Row(elem_id="bar"):
            with gr.Row(elem_id="history"):
                for name in ("undo", "redo", "reset"):
                    is_on = first[name]["interactive"]
                    button = gr.Button(
                        name.capitalize(), interactive=is_on, elem_id=name, size="sm"
                    )
                    screen.add(name, button)
            with gr.Row(elem_id="lanes"):
                screen.add("work", part("lane", views.IDLE, elem_id="work"))
                screen.add("job", part("lane", views.NO_LANE, elem_id="job"))
                screen.add("cancel", gr.Button("Cancel", elem_id="cancel", size="sm"))
        screen.add("error", part("error", views.NO_ERROR))
        # Above all tabs, as the controls that it speaks of are on several.
        screen.add("tour", part("tour", {"run": "", "steps": []}))
    screen.add("live", part("live", {"text": ""}))
