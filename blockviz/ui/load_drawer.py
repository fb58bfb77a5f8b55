"""The drawer on top: which model, which text, which metrics. Nothing is fetched unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from blockviz.session import Limits, MetricCard
from blockviz.types import TEXT_ENDINGS, UNITS
from blockviz.ui import views
from blockviz.ui.job_handlers import DTYPES, MODES, UPLOAD, texts_for
from blockviz.ui.parts import heading, part
from blockviz.ui.screen import Screen
from blockviz.ui.text_fields import number_field

if TYPE_CHECKING:
    from blockviz.session import Engine

EXAMPLES = (
    ("Demo: SmolLM2-135M, no download from the Hub", "demo"),
    ("SmolLM2-360M-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ("Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
    ("Gemma 3 270M (gated)", "google/gemma-3-270m-it"),
    ("GPT-2", "openai-community/gpt2"),
)


def build_drawer(screen: Screen, engine: Engine) -> None:
    """Closed at first: the page opens on a finished example."""
    is_bundled_only = engine.limits.bundled_only
    with (
        gr.Accordion("Model, text and metrics", open=False, elem_id="drawer"),
        gr.Row(elem_id="drawer-columns"),
    ):
        with gr.Column(elem_classes=["bv-panel"], min_width=280):
            _model_column(screen, is_bundled_only=is_bundled_only)
        with gr.Column(elem_classes=["bv-panel"], min_width=280):
            _text_column(screen, engine)


def _model_column(screen: Screen, *, is_bundled_only: bool) -> None:
    note = (
        "This shared page runs the demo model only; run blockviz on your own machine for others."
        if is_bundled_only
        else "Pick an example or name a model, check what it would cost, then load it."
    )
    heading("Model", note)
    examples = EXAMPLES[:1] if is_bundled_only else EXAMPLES
    screen.add("example", gr.Radio(examples, value="demo", label="Examples", elem_id="example"))
    screen.add("model", gr.Textbox(
        "demo", label="Model id, folder or .gguf file", max_lines=1, elem_id="model",
        interactive=not is_bundled_only,
    ))  # fmt: skip
    with gr.Row():
        screen.add("revision", gr.Textbox(
            label="Revision", placeholder="main", max_lines=1, min_width=120, elem_id="revision",
            interactive=not is_bundled_only,
        ))  # fmt: skip
        screen.add("dtype", gr.Dropdown(
            list(DTYPES), value="auto", label="Number format", min_width=120, elem_id="dtype"
        ))  # fmt: skip
    with gr.Row(elem_classes=["bv-actions"]):
        screen.add("check", gr.Button("Check model", elem_id="check"))
        load = gr.Button("Load", variant="primary", interactive=False, elem_id="load")
        screen.add("load", load)
    screen.add("verdict", part("verdict", views.NO_VERDICT))


def _text_column(screen: Screen, engine: Engine) -> None:
    limits = engine.limits
    heading(
        "Text and metrics",
        f"Blocks are scored on this text; more of it gives steadier ranks.{allowed(limits)}",
    )
    sources = list(texts_for(limits))
    screen.add("source", gr.Dropdown(
        sources, value="demo", label="Calibration text", elem_id="source"
    ))  # fmt: skip
    screen.add("upload", gr.File(
        label="Text file", file_types=list(TEXT_ENDINGS), visible=False, elem_id="upload",
        height=120,
    ))  # fmt: skip
    with gr.Row():
        number_field(screen, "n_samples", "Samples", 32)
        number_field(screen, "seq_len", "Tokens each", 128)
        number_field(screen, "seed", "Seed", 42)
    with gr.Row():
        screen.add("mode", gr.Dropdown(
            [("One stream, cut into windows", MODES[0]), ("One window per text", MODES[1])],
            value=MODES[0], label="Sampling", min_width=120, elem_id="mode",
        ))  # fmt: skip
        labels = {"block": "attention and MLP blocks", "layer": "whole layers",
                  "attn": "attention only", "mlp": "MLP only"}  # fmt: skip
        screen.add("unit", gr.Dropdown(
            [(labels[u], u) for u in UNITS], value="block", label="Blocks to score", min_width=120,
            elem_id="unit",
        ))  # fmt: skip
    cards = engine.metrics()
    usual = [card.name for card in cards if card.is_quick and not card.needs_tasks]
    screen.add("metrics", gr.CheckboxGroup(
        [(_labelled(card), card.name) for card in cards], value=usual, label="Metrics",
        elem_id="metrics", info="All that are quick come from one pass and one sweep together.",
    ))  # fmt: skip
    with gr.Row():
        screen.add("tasks", gr.Dropdown(
            [("None", ""), *((name, name) for name in engine.tasks())], value="", min_width=160,
            label="Questions, for accuracy", elem_id="tasks",
        ))  # fmt: skip
        number_field(screen, "task_rows", "Questions asked", 48)
    with gr.Row(elem_classes=["bv-actions"]):
        screen.add("start_score", gr.Button("Score", variant="primary", elem_id="start-score"))
    screen["upload"].visible = False
    if not limits.bundled_only:
        screen["source"].input(
            lambda source: gr.update(visible=source == UPLOAD), screen["source"], screen["upload"],
            queue=False, api_visibility="private", show_progress="hidden",
        )  # fmt: skip


def allowed(limits: Limits) -> str:
    """What may be asked of a shared page, before somebody runs into it; empty without limits."""
    numbers = {
        "windows": limits.n_samples,
        "tokens in each": limits.seq_len,
        "questions of a task": limits.task_rows,
        "evaluations in a search": limits.evaluations,
        "minutes a job": limits.job_seconds and limits.job_seconds // 60,
        "jobs an hour": limits.heavy_per_hour,
    }
    said = [f"{number} {what}" for what, number in numbers.items() if number]
    kept = ""
    if limits.keep_seconds:
        minutes = limits.keep_seconds // 60
        kept = f" Results are dropped {minutes} minutes after they were last looked at."
    return f" On this shared page at most {', '.join(said)}.{kept}" if said else kept


def _labelled(card: MetricCard) -> str:
    """The title, with what it takes where that is not one pass or sweep, or not every unit."""
    notes = []
    if card.needs_tasks:
        notes.append("needs questions")
    elif not card.is_quick:
        notes.append("slow")
    if card.units == ("layer",):
        notes.append("whole layers")
    elif "layer" not in card.units:
        notes.append("single blocks")
    return f"{card.title} ({', '.join(notes)})" if notes else card.title
