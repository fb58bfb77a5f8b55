"""The Repair tab: what to fit on which text, what each correction brings back, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from blockviz.session.repair_views import CorrectionCard
from blockviz.ui import repair_cards
from blockviz.ui.figure_card import build_card
from blockviz.ui.job_handlers import MAX_SAMPLES, MAX_SEQ_LEN
from blockviz.ui.parts import heading, part
from blockviz.ui.repair_form import MAX_MORE_CHARS, MODES, usual
from blockviz.ui.repair_rows import NO_ROWS
from blockviz.ui.screen import Screen
from blockviz.ui.text_fields import fit_windows, number_field, text_field

if TYPE_CHECKING:
    from blockviz.session import Engine


def build_repair(screen: Screen, engine: Engine) -> None:
    """The form, the table of corrections, and the figures of the one that is chosen."""
    with gr.Column(elem_classes=["bv-panel"], elem_id="repair-form"):
        heading(
            "Repair what was cut",
            "The blocks that are off on the Map stay off; what reaches the next block is brought "
            "nearer to what it was trained on. Cancel keeps what is fitted.",
        )
        _settings(screen, engine)
    with gr.Column(elem_classes=["bv-panel"], elem_id="repair-state"):
        screen.add("repair_note", part(
            "note", {"text": repair_cards.EMPTY}, elem_id="repair-note"
        ))  # fmt: skip
        screen.add("repair_shown", gr.Dropdown(
            [], label="Repair shown", visible=False, elem_id="repair-shown"
        ))  # fmt: skip
    with gr.Column(elem_classes=["bv-panel", "bv-card"], elem_id="repairs-card"):
        screen.add("repair_rows", part("repairs", NO_ROWS, elem_id="repair-rows"))
    build_card(screen, "repairs_bars", is_wide=False)
    with gr.Column(visible=False, elem_id="repair-one") as one:
        _one(screen)
    screen.add("repair_one", one)


def _settings(screen: Screen, engine: Engine) -> None:
    cards = engine.correction_cards()
    screen.add("corrections", gr.CheckboxGroup(
        [(_titled(card), card.name) for card in cards], value=usual(cards), label="Corrections",
        elem_id="corrections",
    ))  # fmt: skip
    with gr.Row(elem_classes=["bv-actions"]):
        screen.add("tick_all", gr.Button("Tick all or the usual", elem_id="tick-all"))
    limits = engine.limits
    most, longest = limits.n_samples or MAX_SAMPLES, limits.seq_len or MAX_SEQ_LEN
    n_fit, n_held = fit_windows(limits)
    with gr.Row(elem_classes=["bv-fields"]):
        text_field(screen, engine, "repair_text", "Fit on")
        number_field(screen, "repair_samples", "Windows", n_fit)
        number_field(screen, "repair_seq_len", "Tokens each", min(512, longest))
        number_field(screen, "repair_skip", "Skip first", 0)
        number_field(screen, "repair_held", "Held out", n_held)
        number_field(screen, "repair_seed", "Seed", 42)
    with gr.Accordion("Advanced", open=False, elem_id="repair-advanced"):
        screen.add("corrections_more", gr.Textbox(
            label="More, with settings", placeholder="ridge:ridge=0.01, ridge:ridge=0.1",
            info="Fitted beside those that are ticked; a comma between two.",
            max_lines=3, max_length=MAX_MORE_CHARS, elem_id="corrections-more",
        ))  # fmt: skip
        with gr.Row(elem_classes=["bv-fields"]):
            text_field(screen, engine, "measured_text", "Measure perplexity on")
            number_field(screen, "measured_samples", "Its windows", min(16, most))
            number_field(screen, "measured_seq_len", "Tokens of each", min(512, longest))
        screen.add("repair_mode", gr.Dropdown(
            list(MODES), value=MODES[0][1], label="The best is chosen for", elem_id="repair-mode"
        ))  # fmt: skip
    screen.add("repair_says", part("about", repair_cards.NO_WORDS, elem_id="repair-says"))
    with gr.Row(elem_classes=["bv-actions"]):
        screen.add("start_repair", gr.Button(
            repair_cards.NOTHING_CUT, variant="primary", interactive=False, elem_id="start-repair"
        ))  # fmt: skip
        screen.add("start_auto", gr.Button(
            "Find the best for export", interactive=False, elem_id="start-auto"
        ))  # fmt: skip


def _one(screen: Screen) -> None:
    """The correction looked at, along depth and at one place."""
    with gr.Column(elem_classes=["bv-panel"]):
        with gr.Row(elem_classes=["bv-controls"]):
            screen.add("repair_row", gr.Dropdown(
                [], label="Correction looked at", min_width=220, scale=2, elem_id="repair-row"
            ))  # fmt: skip
            screen.add("repair_place", gr.Dropdown(
                [], label="Place looked at", min_width=220, scale=2, elem_id="repair-place"
            ))  # fmt: skip
        screen.add("repair_about", part("about", repair_cards.NO_WORDS, elem_id="repair-about"))
    for pair in (("repair_fit", "repair_size"), ("repair_mean", "repair_std")):
        with gr.Row(elem_classes=["bv-pair"]):
            for name in pair:
                build_card(screen, name, is_wide=False)
    build_card(screen, "repair_rho", is_wide=False)


def _titled(card: CorrectionCard) -> str:
    return f"{card.title} (experimental)" if card.is_experimental else card.title
