"""The Export tab: how the pruned model is written, every check of it, and the file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import gradio as gr

from blockviz.session import Visitor
from blockviz.ui.compare_cards import NO_WORDS
from blockviz.ui.compare_form import choices, usual_to_export
from blockviz.ui.export_cards import NO_CHECKS, NO_FILE
from blockviz.ui.export_form import mode_choices
from blockviz.ui.export_handlers import NOTHING_CUT
from blockviz.ui.job_handlers import MAX_SAMPLES, MAX_SEQ_LEN
from blockviz.ui.parts import heading, part
from blockviz.ui.recipe_handlers import NO_RECIPE
from blockviz.ui.screen import Screen
from blockviz.ui.text_fields import fit_windows, number_field, text_field

if TYPE_CHECKING:
    from blockviz.session import Engine


def build_export(screen: Screen, engine: Engine) -> None:
    """The form, the checks, the file."""
    with gr.Column(elem_classes=["bv-panel"], elem_id="export-form"):
        heading(
            "A model that loads elsewhere",
            "Written, loaded again by a fresh process, and offered only if it is what was shown.",
        )
        _settings(screen, engine)
    with gr.Column(elem_classes=["bv-panel"], elem_id="export-state"):
        screen.add("export_note", part("note", {"text": ""}, elem_id="export-note"))
    with gr.Column(elem_classes=["bv-panel", "bv-card"], elem_id="export-card"):
        screen.add("export_checks", part("checks", NO_CHECKS, elem_id="export-checks"))
        with gr.Row(elem_classes=["bv-actions"]):
            screen.add("export_file", gr.DownloadButton(
                NO_FILE, interactive=False, variant="primary", elem_id="export-file"
            ))  # fmt: skip
        screen.add("model_card", gr.Textbox(
            label="Model card, README.md in the file", lines=6, max_lines=16, interactive=False,
            visible=False, elem_id="model-card",
        ))  # fmt: skip
        if can_sign_in():
            _push(screen)
    _recipe(screen)


def can_sign_in() -> bool:
    """Whether this is a Space with sign-in: elsewhere gradio would lend every visitor the token of
    the machine."""
    is_space = os.environ.get("SYSTEM") == "spaces" and os.environ.get("SPACE_ID")
    return bool(is_space and os.environ.get("OAUTH_CLIENT_ID"))


def _push(screen: Screen) -> None:
    with gr.Accordion("Push to the Hub", open=False, elem_id="push-panel"):
        gr.LoginButton(size="sm")
        with gr.Row(elem_classes=["bv-fields"]):
            screen.add("push_repo", gr.Textbox(
                label="New repository, owner/name", max_lines=1, scale=2, elem_id="push-repo",
                info="One that is there already is never written to. The licence is the model's.",
            ))  # fmt: skip
            screen.add("push_private", gr.Checkbox(
                value=True, label="Private", elem_id="push-private", min_width=120
            ))  # fmt: skip
            screen.add("push", gr.Button("Push", elem_id="push", scale=0, min_width=120))


def _settings(screen: Screen, engine: Engine) -> None:
    limits, visitor = engine.limits, Visitor()
    offered, first = choices(engine, visitor), usual_to_export(engine, visitor)
    screen.add("export_offered", gr.State([first]))
    screen.add("export_mode", gr.Radio(
        mode_choices(()), value="stock-compact", label="How it is written", elem_id="export-mode"
    ))  # fmt: skip
    screen.add("export_fix", gr.Dropdown(
        offered, value=first, label="Repair", min_width=200, elem_id="export-fix"
    ))  # fmt: skip
    screen.add("export_llama", gr.Checkbox(
        value=False, label="As a Llama, which has a place for every bias", visible=False,
        elem_id="export-llama",
    ))  # fmt: skip
    most, longest = limits.n_samples or MAX_SAMPLES, limits.seq_len or MAX_SEQ_LEN
    n_fit, n_held = fit_windows(limits)
    with gr.Accordion("Advanced", open=False, elem_id="export-advanced"):
        with gr.Row(elem_classes=["bv-fields"]):
            text_field(screen, engine, "export_text", "Fit on")
            number_field(screen, "export_samples", "Windows", n_fit)
            number_field(screen, "export_seq_len", "Tokens each", min(512, longest))
            number_field(screen, "export_skip", "Skip first", 0)
            number_field(screen, "export_held", "Held out", n_held)
            number_field(screen, "export_seed", "Seed", 42)
        with gr.Row(elem_classes=["bv-fields"]):
            text_field(screen, engine, "shown_text", "Measure perplexity on")
            number_field(screen, "shown_samples", "Its windows", min(16, most))
            number_field(screen, "shown_seq_len", "Tokens of each", min(512, longest))
    screen.add("export_says", part("about", NO_WORDS, elem_id="export-says"))
    with gr.Row(elem_classes=["bv-actions"]):
        screen.add("start_export", gr.Button(
            NOTHING_CUT, variant="primary", interactive=False, elem_id="start-export"
        ))  # fmt: skip


def _recipe(screen: Screen) -> None:
    with gr.Column(elem_classes=["bv-panel"], elem_id="recipe"):
        heading("Recipe", "The scoring, the plan and its repair in one file: the same again, here "
                "or on the command line.")  # fmt: skip
        screen.add("recipe_says", part("about", NO_WORDS, elem_id="recipe-says"))
        with gr.Row(elem_classes=["bv-actions"]):
            screen.add("recipe_save", part("save", NO_RECIPE, elem_id="recipe-save"))
            screen.add("recipe_open", gr.UploadButton(
                "Open a recipe", file_types=[".json"], size="sm", scale=0,
                elem_id="recipe-open",
            ))  # fmt: skip
            screen.add("recipe_use", gr.Button(
                "Use this recipe", variant="primary", size="sm", scale=0,
                visible=False, elem_id="recipe-use",
            ))  # fmt: skip
        screen.add("recipe_kept", gr.State(None))
