"""A text to run on, as fields of a form: which one, how many windows, how long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.session import Limits, ScoreRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.ui import inputs
from blockviz.ui.job_handlers import MAX_SAMPLES, MAX_SEED, MAX_SEQ_LEN
from blockviz.ui.screen import Screen
from blockviz.ui.search_form import texts_to_search
from blockviz.ui.words import TIMES, grouped

if TYPE_CHECKING:
    from blockviz.session import Engine


def text_field(screen: Screen, engine: Engine, name: str, label: str) -> None:
    """The texts that may be run on here."""
    texts = list(texts_to_search(engine.limits))
    screen.add(name, gr.Dropdown(
        texts, value=texts[0][1], label=label, min_width=200, scale=2,
        elem_id=name.replace("_", "-"),
    ))  # fmt: skip


def number_field(screen: Screen, name: str, label: str, value: int) -> None:
    """Without bounds or rounding of gradio's own: it would refuse or change a number without a
    word."""
    screen.add(name, gr.Number(
        value, label=label, min_width=90, scale=1, elem_id=name.replace("_", "-")
    ))  # fmt: skip


def fit_windows(limits: Limits) -> tuple[int, int]:
    """So many windows to fit on and to hold out at first: together within the server's limit."""
    most = limits.n_samples or MAX_SAMPLES
    n_held = min(RepairRequest.n_held, most // 4)
    return min(48, most - n_held), n_held


def text_of(
    engine: Engine, raw: Mapping[str, Any], kind: str, what: str, *, seed: Any
) -> ScoreRequest:
    """The request of the fields KIND_text, KIND_samples and KIND_seq_len; BadInput by name."""
    limits = engine.limits
    offered = [value for _, value in texts_to_search(limits)]
    most, longest = limits.n_samples or MAX_SAMPLES, limits.seq_len or MAX_SEQ_LEN
    return ScoreRequest(
        calibration=inputs.choice(raw[f"{kind}_text"], f"The {what} text", offered),
        n_samples=inputs.whole(
            raw[f"{kind}_samples"], f"The number of {what} windows", low=1, high=most
        ),
        seq_len=inputs.whole(
            raw[f"{kind}_seq_len"], f"The length of {what} windows", low=2, high=longest
        ),
        seed=inputs.whole(seed, "The seed", low=0, high=MAX_SEED),
    )  # fmt: skip


def windows_of(text: ScoreRequest) -> str:
    """`16 x 512`."""
    return f"{grouped(text.n_samples)} {TIMES} {grouped(text.seq_len)}"


def title_of(engine: Engine, text: ScoreRequest) -> str:
    """The text's name as the form shows it."""
    titles = {value: label for label, value in texts_to_search(engine.limits)}
    return titles.get(text.calibration, text.calibration)
