"""The settings of a repair as they stand on the page, the request they make, and it in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blockviz.errors import BadInput, BadPlan
from blockviz.session import Visitor
from blockviz.session.repair_views import CorrectionCard, RepairRequest
from blockviz.types import EXPORT_MODES
from blockviz.ui import inputs
from blockviz.ui.job_handlers import MAX_SAMPLES
from blockviz.ui.text_fields import text_of, title_of, windows_of
from blockviz.ui.words import grouped

if TYPE_CHECKING:
    from blockviz.session import Engine

# In the order in which handlers get them.
FORM = (
    "corrections", "corrections_more", "repair_text", "repair_samples", "repair_seq_len",
    "repair_skip", "repair_held", "repair_seed", "measured_text", "measured_samples",
    "measured_seq_len", "repair_mode",
)  # fmt: skip
# The fields of Compare and of Export that a repair which begins fills in: what was fitted and
# measured here is not to be measured on something else there without a word.
CARRIED = {
    "repair_text": ("compare_text", "export_text"),
    "repair_samples": ("compare_samples", "export_samples"),
    "repair_seq_len": ("compare_seq_len", "export_seq_len"),
    "repair_skip": ("compare_skip", "export_skip"),
    "repair_held": ("compare_held", "export_held"),
    "repair_seed": ("compare_seed", "export_seed"),
    "measured_text": ("against_text", "shown_text"),
    "measured_samples": ("against_samples", "shown_samples"),
    "measured_seq_len": ("against_seq_len", "shown_seq_len"),
}
MODES = (
    ("a stock checkpoint, nothing stored more", "stock-compact"),
    ("a file with modules of its own", "custom"),
)
USUAL = ("asc", "hadamard", "mean", "ridge", "replaceme", "writer_refit")
AUTO = ("auto",)
MAX_MORE_CHARS, MOST_MORE = 400, 12
# Least squares on fewer positions a channel than this fits what is chance in them.
ENOUGH = 5


def usual(cards: Sequence[CorrectionCard]) -> list[str]:
    """The corrections that are ticked at first: a few that differ, or the first ones there are."""
    names = [card.name for card in cards]
    return [name for name in names if name in USUAL] or names[:4]


def request_of(
    engine: Engine, visitor: Visitor, *form: Any, is_auto: bool = False
) -> RepairRequest:
    """The repair of the visitor's plan that the page asks for.

    is_auto: whatever is ticked, all that an export can carry and several settings of it.
    """
    raw = dict(zip(FORM, form, strict=True))
    plan = visitor.plan()
    if not plan.removed:
        raise BadPlan(
            "What was cut was to be repaired.",
            "Nothing is removed yet.",
            "Switch blocks off on the Map, or apply a set that a search found.",
        )
    most = engine.limits.n_samples or MAX_SAMPLES
    n_held = inputs.whole(raw["repair_held"], "The windows held out", low=0, high=most)
    if is_auto and not n_held:
        raise BadInput(
            "The best correction was to be found.",
            "No window is held out to choose by.",
            "Hold some out, such as 8.",
        )
    return RepairRequest(
        plan=plan.check(engine.info),
        corrections=AUTO if is_auto else _corrections(engine, raw),
        text=text_of(engine, raw, "repair", "fitted", seed=raw["repair_seed"]),
        n_skip=inputs.whole(raw["repair_skip"], "The windows to skip", low=0, high=most),
        n_held=n_held,
        evaluation=text_of(engine, raw, "measured", "measured", seed=raw["repair_seed"]),
        export_mode=inputs.choice(raw["repair_mode"], "The way to export", EXPORT_MODES),
    )


def said(engine: Engine, request: RepairRequest) -> dict[str, str]:
    """What is fitted, chosen and measured on what, and a caution where that is too little."""
    text, on = request.text, request.evaluation
    n = text.n_samples * text.seq_len
    after = f", after the first {grouped(request.n_skip)}" if request.n_skip else ""
    held = (
        f"The {grouped(request.n_held)} windows behind them are only looked at: they say how well "
        "each fits what it has not seen, and choose the best."
        if request.n_held
        else "No window is held out, so nothing is chosen."
    )
    few = n < ENOUGH * engine.info.hidden_size
    cautions = [
        f"Fewer than {ENOUGH} tokens for each of the {grouped(engine.info.hidden_size)} channels: "
        "maps fitted by least squares will take chance for structure."
        if few
        else "",
        "Without held-out windows nothing shows a fit that is too close." if not request.n_held
        else "",
        *_slow(engine, request),
    ]  # fmt: skip
    return {
        "text": f"Fitted on {windows_of(text)} = {grouped(n)} tokens of "
        f"{title_of(engine, text)}{after}. {held} "
        f"Perplexity is measured on {windows_of(on)} of "
        f"{title_of(engine, on)}, which neither fits nor chooses.",
        "note": " ".join(filter(None, cautions)),
        "source": "",
        "address": "",
    }


def _slow(engine: Engine, request: RepairRequest) -> list[str]:
    """What is asked for and stands apart from all others, such as by the time it takes."""
    asked = {item.partition(":")[0] for item in request.corrections}
    cards = [card for card in engine.correction_cards() if card.is_experimental]
    return [f"{card.title}: {card.meaning}" for card in cards if card.name in asked]


def _corrections(engine: Engine, raw: dict[str, Any]) -> tuple[str, ...]:
    """Those that are ticked and those that are written, with settings, each once."""
    names = [card.name for card in engine.correction_cards()]
    ticked = raw["corrections"]
    typed = inputs.text(
        raw["corrections_more"] or "", "The corrections with settings", max_chars=MAX_MORE_CHARS
    )
    written = [item.strip() for item in typed.replace("\n", ",").split(",") if item.strip()]
    if len(written) > MOST_MORE:
        raise BadInput(
            f"{len(written)} corrections with settings were written.",
            f"At most {MOST_MORE} are taken at once.",
            "Leave some out.",
        )
    for item in written:
        inputs.choice(item.partition(":")[0], "A correction with settings", names)
    chosen = () if not ticked and written else inputs.choices(ticked, "Corrections", names)
    return tuple(dict.fromkeys((*chosen, *written)))
