"""One figure on the page: title, reading, picture, its files, its numbers, its sources."""

from __future__ import annotations

from typing import Any

import gradio as gr

from blockviz.plots import FigureCard
from blockviz.plots.downloads import html_around, plotly_js
from blockviz.ui.parts import part
from blockviz.ui.screen import Screen, Update

NO_HEAD: Update = {
    "title": "", "reading": "", "key": "", "plot": "", "height": 0, "csv": "",
    "before": "", "after": "",
}  # fmt: skip
NO_FOOT: Update = {"title": "", "headers": [], "rows": [], "citation": [], "note": ""}


def send_plotly_js(sent: object = None) -> str:
    """The text of plotly.js for the first HTML file of a page: a constant, whatever is `sent`."""
    return plotly_js()


def card_names(name: str) -> tuple[str, str, str]:
    """The three components of a card: what stands above the figure, the figure, what below."""
    return f"{name}_head", f"{name}_plot", f"{name}_foot"


def build_card(screen: Screen, name: str, *, is_wide: bool = True) -> None:
    """An empty card, hidden until `card_update` fills it. PNG and SVG are made in the page.

    is_wide: the figure scrolls in its own box on a narrow screen instead of being squeezed.
    """
    head, plot, foot = card_names(name)
    with gr.Column(elem_classes=["bv-panel", "bv-card"], elem_id=f"{name}-card"):
        screen.add(head, part("figure", NO_HEAD, elem_id=f"{name}-head", asks=[send_plotly_js]))
        with gr.Column(elem_classes=["bv-scroll"]):
            screen.add(plot, gr.Plot(
                show_label=False, container=False, elem_id=_plot_id(name),
                elem_classes=["bv-picture", "bv-broad"] if is_wide else ["bv-picture"],
            ))  # fmt: skip
        screen.add(foot, part("figure_foot", NO_FOOT, elem_id=f"{name}-foot"))


def card_update(name: str, card: FigureCard | None) -> Update:
    """Component name -> value; no card empties and hides it."""
    head, plot, foot = card_names(name)
    if card is None:
        return {head: NO_HEAD, plot: None, foot: NO_FOOT}
    before, after = html_around(card)
    view: dict[str, Any] = {
        "title": card.title, "reading": card.reading, "key": card.key, "plot": _plot_id(name),
        "height": card.figure.layout.height or 400,
        "csv": card.csv(), "before": before, "after": after,
    }  # fmt: skip
    numbers = {
        "title": card.title, "headers": list(card.headers), "rows": [list(r) for r in card.rows],
        "citation": [list(c) for c in card.citation], "note": card.provenance_note,
    }  # fmt: skip
    return {head: view, plot: card.figure, foot: numbers}


def _plot_id(name: str) -> str:
    return f"{name}-plot"
