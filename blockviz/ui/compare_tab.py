"""The Compare tab: what to hold the pruned model against, and all of it side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from blockviz.session import Visitor
from blockviz.ui import compare_cards
from blockviz.ui.chat_field import chat_field
from blockviz.ui.compare_form import MAX_PROMPT_CHARS, choices, usual
from blockviz.ui.compare_handlers import NOTHING_CUT
from blockviz.ui.compare_view import empty_view
from blockviz.ui.figure_card import build_card
from blockviz.ui.hurts_view import NO_FLIPS, NO_WORDS
from blockviz.ui.job_handlers import MAX_SAMPLES, MAX_SEQ_LEN
from blockviz.ui.live_handlers import MAX_NEW_TOKENS
from blockviz.ui.parts import heading, part
from blockviz.ui.screen import Screen
from blockviz.ui.text_fields import fit_windows, number_field, text_field

if TYPE_CHECKING:
    from blockviz.session import Engine


def build_compare(screen: Screen, engine: Engine) -> None:
    """The form, the columns, and how far each perplexity rises."""
    with gr.Column(elem_classes=["bv-panel"], elem_id="compare-form"):
        heading(
            "Original, pruned, repaired",
            "The same text and the same prompt for each, so that only the model differs.",
        )
        _settings(screen, engine)
    with gr.Column(elem_classes=["bv-panel"], elem_id="compare-state"):
        screen.add("compare_note", part("note", {"text": ""}, elem_id="compare-note"))
        screen.add("compare_shown", gr.Dropdown(
            [], label="Comparison shown", visible=False, elem_id="compare-shown"
        ))  # fmt: skip
    with gr.Column(elem_classes=["bv-panel", "bv-card"], elem_id="compare-card"):
        screen.add(
            "compare_table", part("compare", empty_view(has_cuts=False), elem_id="compare-table")
        )
    build_card(screen, "comparison_rise", is_wide=False)
    with gr.Column(elem_classes=["bv-panel", "bv-card"], elem_id="hurt-words-card"):
        screen.add("hurt_words", part("hurts", NO_WORDS, elem_id="hurt-words"))
    build_card(screen, "hurts", is_wide=False)
    with gr.Column(elem_classes=["bv-panel", "bv-card"], elem_id="flips-card"):
        screen.add("flips", part("flips", NO_FLIPS, elem_id="flips"))
    build_card(screen, "contest", is_wide=False)


def _settings(screen: Screen, engine: Engine) -> None:
    limits, visitor = engine.limits, Visitor()
    offered, first = choices(engine, visitor), usual(engine, visitor)
    screen.add("compare_offered", gr.State([[value] for value in first]))
    with gr.Row(elem_classes=["bv-fields"]):
        for name, label, value in zip(
            ("compare_a", "compare_b"), ("Correction A", "Correction B"), first, strict=True
        ):
            screen.add(name, gr.Dropdown(
                offered, value=value, label=label, min_width=200, elem_id=name.replace("_", "-")
            ))  # fmt: skip
    screen.add("compare_prompt", gr.Textbox(
        engine.example_prompt, label="Prompt for all", lines=2, max_lines=6,
        max_length=limits.max_prompt_chars or MAX_PROMPT_CHARS, elem_id="compare-prompt",
    ))  # fmt: skip
    with gr.Row(elem_classes=["bv-fields"]):
        screen.add("compare_tasks", gr.Dropdown(
            list(engine.tasks()), value=[], multiselect=True, label="Questions to ask",
            min_width=220, elem_id="compare-tasks",
        ))  # fmt: skip
        rows = min(48, limits.task_rows or MAX_SAMPLES)
        number_field(screen, "compare_rows", "Of each task", rows)
        screen.add("compare_timed", gr.Checkbox(
            value=False, label="Time them too", elem_id="compare-timed"
        ))  # fmt: skip
    most, longest = limits.n_samples or MAX_SAMPLES, limits.seq_len or MAX_SEQ_LEN
    n_fit, n_held = fit_windows(limits)
    n_new = limits.max_new_tokens or MAX_NEW_TOKENS
    with gr.Accordion("Advanced", open=False, elem_id="compare-advanced"):
        with gr.Row(elem_classes=["bv-fields"]):
            number_field(screen, "compare_new", "New tokens at most", min(48, n_new))
            chat_field(screen, engine, "compare_chat")
        with gr.Row(elem_classes=["bv-fields"]):
            text_field(screen, engine, "compare_text", "Fit on")
            number_field(screen, "compare_samples", "Windows", n_fit)
            number_field(screen, "compare_seq_len", "Tokens each", min(512, longest))
            number_field(screen, "compare_skip", "Skip first", 0)
            number_field(screen, "compare_held", "Held out", n_held)
            number_field(screen, "compare_seed", "Seed", 42)
        with gr.Row(elem_classes=["bv-fields"]):
            text_field(screen, engine, "against_text", "Measure perplexity on")
            number_field(screen, "against_samples", "Its windows", min(16, most))
            number_field(screen, "against_seq_len", "Tokens of each", min(512, longest))
    screen.add("compare_says", part("about", compare_cards.NO_WORDS, elem_id="compare-says"))
    with gr.Row(elem_classes=["bv-actions"]):
        screen.add("start_compare", gr.Button(
            NOTHING_CUT, variant="primary", interactive=False, elem_id="start-compare"
        ))  # fmt: skip
