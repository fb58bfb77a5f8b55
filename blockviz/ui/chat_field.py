"""Whether a prompt goes through the model's chat template, as a field of a form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.ui.screen import Screen

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.types import ModelInfo


def chat_field(screen: Screen, engine: Engine, name: str) -> None:
    """Ticked where the bundled text was written that way."""
    example = engine.example_continuation
    screen.add(name, gr.Checkbox(
        value=example is not None and example.is_chat, label="Use the chat template",
        info="Off: the prompt goes in as it stands.", visible=engine.info.has_chat_template,
        min_width=180, elem_id=name.replace("_", "-"),
    ))  # fmt: skip


def chat_offered(info: ModelInfo) -> Any:
    """The field for another model: gone, and not ticked out of sight, where it has no template."""
    if info.has_chat_template:
        return gr.update(visible=True)
    return gr.update(visible=False, value=False)
