"""The settings of an export as they stand on the page, and the request that they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockviz.errors import BadPlan
from blockviz.session import Visitor
from blockviz.session.export_views import ExportRequest, ModeCard
from blockviz.session.repair_views import RepairRequest
from blockviz.types import EXPORT_MODES
from blockviz.ui import inputs
from blockviz.ui.compare_form import NONE, choices
from blockviz.ui.found import search_of
from blockviz.ui.job_handlers import MAX_SAMPLES
from blockviz.ui.text_fields import text_of, title_of, windows_of
from blockviz.ui.words import grouped, percent

if TYPE_CHECKING:
    from blockviz.session import Engine

# In the order in which handlers get them.
FORM = (
    "export_mode", "export_fix", "export_llama", "export_text", "export_samples",
    "export_seq_len", "export_skip", "export_held", "export_seed", "shown_text", "shown_samples",
    "shown_seq_len",
)  # fmt: skip
MODES = {
    "stock-compact": "Plain, packed",
    "stock-zeroed": "Plain, every layer in its place",
    "custom": "With a modelling file",
}


def mode_choices(cards: tuple[ModeCard, ...]) -> list[tuple[str, str]]:
    """(label, mode) of every way to write, with what it saves where that is known."""
    found = {card.mode: card for card in cards}
    return [(_mode_label(mode, found.get(mode)), mode) for mode in EXPORT_MODES]


def _mode_label(mode: str, card: ModeCard | None) -> str:
    if card is None:
        return MODES[mode]
    if card.refused:
        return f"{MODES[mode]} (not of this plan)"
    if not card.stored_ratio:
        return f"{MODES[mode]} (saves nothing)"
    return f"{MODES[mode]} ({percent(-card.stored_ratio)} stored)"


def request_of(engine: Engine, visitor: Visitor, *form: Any) -> ExportRequest:
    """The export of the visitor's plan that the page asks for."""
    if not visitor.removed:
        raise BadPlan(
            "A pruned model was to be written.",
            "Nothing is removed yet.",
            "Switch blocks off on the Map, or apply a set that a search found.",
        )
    return as_it_stands(engine, visitor, *form)


def as_it_stands(engine: Engine, visitor: Visitor, *form: Any) -> ExportRequest:
    """The same of a plan that may still be empty, for a recipe."""
    raw = dict(zip(FORM, form, strict=True))
    plan = visitor.plan().check(engine.info)
    offered = [label for _, label in choices(engine, visitor)]
    fix = inputs.choice(raw["export_fix"], "The repair", offered)
    evaluation = text_of(engine, raw, "shown", "measured", seed=raw["export_seed"])
    most = engine.limits.n_samples or MAX_SAMPLES
    repair = None
    if fix != NONE and plan.removed:
        repair = RepairRequest(
            plan=plan,
            corrections=(fix,),
            text=text_of(engine, raw, "export", "fitted", seed=raw["export_seed"]),
            n_skip=inputs.whole(raw["export_skip"], "The windows to skip", low=0, high=most),
            n_held=inputs.whole(raw["export_held"], "The windows held out", low=0, high=most),
            evaluation=evaluation,
        )
    mode = inputs.choice(raw["export_mode"], "The way to write it", EXPORT_MODES)
    return ExportRequest(
        plan=plan,
        # Where it is written is not a visitor's to say.
        folder=Path(),
        mode=mode,
        repair=repair,
        as_llama=raw["export_llama"] is True and mode != "custom",
        evaluation=evaluation,
        scoring=engine.scoring(visitor.table_key),
        search=search_of(engine, visitor),
    )


def fits(fix: str, engine: Engine) -> bool:
    """Whether there is a correction of this name; its settings are checked when it is fitted."""
    names = [card.name for card in engine.correction_cards()]
    return fix == NONE or fix.partition(":")[0] in names


def said(engine: Engine, request: ExportRequest, cards: tuple[ModeCard, ...]) -> dict[str, str]:
    """What will be written and checked, in words; why not, where the mode cannot carry it."""
    card = next((c for c in cards if c.mode == request.mode), None)
    saves = ""
    if card is not None and card.n_parameters is not None:
        saves = (
            f"Writes {grouped(card.n_parameters)} of {grouped(engine.info.n_parameters)} "
            f"parameters in {engine.info.dtype}"
        )
    meaning = f": {card.meaning}. " if saves else ""
    fit = ""
    if request.repair is not None:
        text = request.repair.text
        fit = f"The repair is fitted on {windows_of(text)} tokens of {title_of(engine, text)}. "
    on = request.evaluation
    return {
        "text": f"{saves}{meaning}{fit}Perplexity before and after is measured on "
        f"{windows_of(on)} tokens of {title_of(engine, on)}, and again from the written files.",
        "note": card.refused if card is not None else "",
        "source": "",
        "address": "",
    }
