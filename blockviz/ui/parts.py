"""Our own components: constant markup, data set as text nodes by a script of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import gradio as gr


def part(
    name: str,
    value: dict[str, Any],
    *,
    elem_id: str | None = None,
    asks: Sequence[Callable[..., Any]] = (),
) -> gr.HTML:
    """A gr.HTML drawn by `js/NAME.js`. asks: functions that the script may call on this server, by
    anybody and with anything.

    The template holds no placeholder: gradio evaluates whatever stands in one, so data would run
    as code. A constant template also means that gradio never patches what the script has drawn.
    """
    return gr.HTML(
        value,
        html_template=f'<div class="bv bv-{name}"></div>',
        js_on_load=f"{script('dom')}\n{script(name)}",
        server_functions=list(asks) or None,
        apply_default_css=False,
        elem_id=elem_id or name,
        elem_classes=["bv-part"],
        container=False,
        padding=False,
    )


def heading(title: str, lead: str) -> gr.HTML:
    """A section heading and the one sentence under it. Both are constants of ours."""
    markup = f'<h2>{title}</h2><p class="bv-lead">{lead}</p>'
    return gr.HTML(
        html_template=markup, js_on_load=None, apply_default_css=False, elem_classes=["bv-part"]
    )


def lead(text: str) -> gr.HTML:
    """One sentence under a tab that is heading enough. A constant of ours."""
    return gr.HTML(
        html_template=f'<p class="bv-lead">{text}</p>', js_on_load=None, apply_default_css=False,
        elem_classes=["bv-part"],
    )  # fmt: skip


def stylesheet() -> str:
    """The text of style.css."""
    return resources.files("blockviz.ui").joinpath("style.css").read_text("utf-8")


def script(name: str) -> str:
    """The text of `js/NAME.js`."""
    return resources.files("blockviz.ui").joinpath("js", f"{name}.js").read_text("utf-8")
