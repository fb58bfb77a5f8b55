"""The Search tab: how far to cut and how to look, how long it takes, and what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from blockviz.session.search_views import StrategyCard
from blockviz.types import UNITS
from blockviz.ui import search_cards
from blockviz.ui.figure_card import build_card
from blockviz.ui.parts import heading, part
from blockviz.ui.screen import Screen
from blockviz.ui.search_form import (
    MAX_SETTINGS_CHARS,
    TARGETS,
    repairs,
    texts_to_search,
    unit_choices,
)
from blockviz.ui.text_fields import number_field

if TYPE_CHECKING:
    from blockviz.session import Engine

FIRST_TARGET = "count"


def build_search(screen: Screen, engine: Engine) -> None:
    """Settings on the left, findings on the right; one below the other on narrow screens."""
    with gr.Row(elem_id="search-columns"):
        with gr.Column(scale=2, min_width=290, elem_id="search-settings"):
            _settings(screen, engine)
        with gr.Column(scale=5, min_width=300, elem_id="search-found"):
            _found(screen)


def _settings(screen: Screen, engine: Engine) -> None:
    with gr.Column(elem_classes=["bv-panel"]):
        heading("Find blocks to remove", "Measured on a text, set by set; Cancel keeps the best.")
        recipes = [("None: as set below", ""), *((c.title, c.name) for c in engine.presets())]
        _dropdown(screen, "search_preset", recipes, "", "Published recipe")
        _target(screen)
        strategies = [(_titled(card), card.name) for card in engine.strategies()]
        _dropdown(screen, "search_strategy", strategies, _usual(strategies, "greedy"), "Strategy")
        first = next((c for c in engine.strategies() if c.name == "greedy"), None)
        screen.add("search_about", part(
            "about", search_cards.about(first, None), elem_id="search-about"
        ))  # fmt: skip
        objectives = [(card.title, card.name) for card in engine.objectives()]
        _dropdown(
            screen,
            "search_objective",
            objectives,
            _usual(objectives, "ppl"),
            "Objective, kept low",
        )
        units = unit_choices(first.units if first else UNITS)
        _dropdown(screen, "search_unit", units, _usual(units, "block"), "What may be removed")
        with gr.Row():
            number_field(screen, "protect_first", "Protect the first layers", 0)
            number_field(screen, "protect_last", "and the last", 0)
        _text(screen, engine)
        _advanced(screen, engine)
        with gr.Row(elem_classes=["bv-actions"]):
            screen.add("estimate_search", gr.Button("Estimate time", elem_id="estimate-search"))
            screen.add("start_search", gr.Button(
                "Start search", variant="primary", elem_id="start-search"
            ))  # fmt: skip
        screen.add("search_time", part("note", {"text": ""}, elem_id="search-time"))


def _target(screen: Screen) -> None:
    kinds, first = [(t.title, name) for name, t in TARGETS.items()], TARGETS[FIRST_TARGET]
    _dropdown(screen, "search_target", kinds, FIRST_TARGET, "How far, by")
    screen.add("search_amount", gr.Number(
        first.usual, label=first.label, min_width=120, elem_id="search-amount"
    ))  # fmt: skip


def _text(screen: Screen, engine: Engine) -> None:
    limits = engine.limits
    texts = list(texts_to_search(limits))
    _dropdown(screen, "search_text", texts, texts[0][1], "Calibration text")
    with gr.Row():
        number_field(screen, "search_samples", "Windows", 16)
        number_field(screen, "search_seq_len", "Tokens each", 128)
        number_field(screen, "search_seed", "Seed", 42)


def _advanced(screen: Screen, engine: Engine) -> None:
    with gr.Accordion("Advanced", open=False, elem_id="search-advanced"):
        screen.add("is_exhaustive", gr.Checkbox(
            value=False, label="Exhaustive: read every candidate on every window",
            info="Off: a candidate that is surely worse is given up early.",
            elem_id="is-exhaustive",
        ))  # fmt: skip
        _short(screen, "search_pool", "Candidates", "bi:0.5 = the half with the lowest BI")
        metrics = [("The strategy's own", ""), *((c.title, c.name) for c in engine.metrics())]
        _dropdown(screen, "search_scores", metrics, "", "Metric, where a strategy orders by one")
        _short(screen, "scores_settings", "Settings of that metric", "cos_axis=channel")
        made_up = [("Nothing", ""), *((c.title, c.name) for c in repairs(engine))]
        _dropdown(screen, "search_with_repair", made_up, "", "Repair as blocks go, greedily, by")
        _short(screen, "with_repair_settings", "Settings of that repair", "ridge=0.1")
        _short(screen, "strategy_settings", "Settings of the strategy", "width=3:expand=4")
        _short(screen, "objective_settings", "Settings of the objective", "k=50")
        tasks = [("None", ""), *((name, name) for name in engine.tasks())]
        _dropdown(screen, "search_tasks", tasks, "", "Questions, for accuracy")
        number_field(screen, "search_task_rows", "Questions asked", 48)


def _found(screen: Screen) -> None:
    with gr.Column(elem_classes=["bv-panel"], elem_id="search-state"):
        screen.add("search_note", part(
            "note", {"text": search_cards.EMPTY}, elem_id="search-note"
        ))  # fmt: skip
        screen.add("search_shown", gr.Dropdown(
            [], label="Search shown", visible=False, elem_id="search-shown"
        ))  # fmt: skip
    build_card(screen, "search_progress", is_wide=False)
    with gr.Column(elem_classes=["bv-panel", "bv-card"], elem_id="candidates-card"):
        screen.add("candidates", part("candidates", search_cards.NO_CANDIDATES))
    build_card(screen, "search_grid", is_wide=False)


def _titled(card: StrategyCard) -> str:
    return f"{card.title} (experimental)" if card.is_experimental else card.title


def _usual(choices: list[tuple[str, str]], wanted: str) -> str | None:
    names = [name for _, name in choices]
    return wanted if wanted in names else next(iter(names), None)


def _dropdown(
    screen: Screen, name: str, choices: list[tuple[str, str]], value: str | None, label: str
) -> None:
    screen.add(name, gr.Dropdown(
        choices, value=value, label=label, min_width=160, elem_id=name.replace("_", "-")
    ))  # fmt: skip


def _short(screen: Screen, name: str, label: str, example: str) -> None:
    screen.add(name, gr.Textbox(
        label=label, placeholder=example, max_lines=1, max_length=MAX_SETTINGS_CHARS,
        elem_id=name.replace("_", "-"),
    ))  # fmt: skip
