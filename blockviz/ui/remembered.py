"""What a browser tab remembers of its page, so that neither a reload nor Back loses anything.

The fields are kept in the tab itself and come back as they were; whatever they hold is checked
where it is used. The plan and the results stay on the server, under a name that the tab made up.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING

import gradio as gr

from blockviz.ui import compare_form, export_form, repair_form, search_form
from blockviz.ui.screen import QUIET, Screen

if TYPE_CHECKING:
    from blockviz.ui.page import Page

# Fields whose choices follow from results are drawn with these, and none of them is here.
FIELDS = (
    "shade", "prompt", "n_new", "chat", "model", "revision", "dtype", "metrics", "source",
    "n_samples", "seq_len", "seed", "mode", "unit", "tasks", "task_rows", "page", "log_scale",
    "pair_order", "lens_text", "lens_position", "curve_log", "method_shown",
    *search_form.FORM, *repair_form.FORM, *compare_form.FORM, *export_form.FORM,
)  # fmt: skip
# Chosen from what the model and its results offer.
OFFERED = ("compare_a", "compare_b", "export_mode", "export_fix", "export_llama")
KEPT = tuple(name for name in FIELDS if name not in OFFERED)


def arrival() -> str:
    """What a page that opens sends of its own: the name of its tab, and a plan never answered."""
    return _script("arrive")


def wire_fields(app: Page, screen: Screen) -> None:
    """Every change of a field is kept in the tab; a page that opens gets them back."""
    fields = [screen[name] for name in KEPT]
    app.load(
        None, outputs=fields, js=f"() => ({_script('recall')})({json.dumps(KEPT)})",
        **QUIET,
    )  # fmt: skip
    gr.on(
        [field.change for field in fields], None, inputs=fields,
        js=f"(...values) => ({_script('keep')})({json.dumps(KEPT)}, values)",
        **QUIET,
    )  # fmt: skip


def _script(name: str) -> str:
    return resources.files("blockviz.ui").joinpath("js", f"{name}.js").read_text("utf-8").strip()
