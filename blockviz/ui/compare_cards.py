"""What the Compare tab shows of a comparison: the table, a figure, and its state in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockviz.plots import (
    can_draw,
    can_draw_hurts,
    column_name,
    comparison_card,
    contest_card,
    hurts_card,
    visible,
)
from blockviz.session import JobView, Visitor
from blockviz.types import Comparison, parts_of
from blockviz.ui.compare_view import (
    ANOTHER_PLAN,
    OTHER_SETTINGS,
    View,
    empty_view,
    table_view,
)
from blockviz.ui.figure_card import card_names, card_update
from blockviz.ui.hurts_view import flips_view, words_view
from blockviz.ui.repair_rows import blocks

if TYPE_CHECKING:
    from blockviz.session import Engine
    from blockviz.ui.screen import Update

NO_WORDS = {"text": "", "note": "", "source": "", "address": ""}
OTHER_MODEL = "Another model has been loaded since this was compared. Reload the page to go on."


def card_outputs() -> tuple[str, ...]:
    """Every component that a comparison is drawn into."""
    cards = ("comparison_rise", "hurts", "contest")
    own = (name for card in cards for name in card_names(card))
    return (*own, "hurt_words", "flips", "compare_table", "compare_note")


def drawn(
    engine: Engine,
    visitor: Visitor,
    found: Comparison | None,
    job: JobView | None,
    settings: str,
) -> Update:
    """A comparison with its figure; `job`: that this browser runs or ran last."""
    card = comparison_card(found) if found is not None and can_draw(found) else None
    hurts = hurts_card(found) if found is not None and can_draw_hurts(found) else None
    return {
        **card_update("comparison_rise", card),
        **card_update("hurts", hurts),
        "hurt_words": words_view(found),
        "flips": flips_view(found),
        **card_update("contest", None if engine.contest is None else contest_card(engine.contest)),
        **stated(engine, visitor, found, job, settings),
    }


def stated(
    engine: Engine,
    visitor: Visitor,
    found: Comparison | None,
    job: JobView | None,
    settings: str,
) -> Update:
    """The table and its state. settings: the key of what the page would ask, empty if unknown."""
    left = departures(engine, visitor, found, settings)
    return {
        "compare_table": _table(engine, visitor, found, job, left),
        "compare_note": {"text": state_of(engine, visitor, found, job, left)},
    }


def departures(
    engine: Engine, visitor: Visitor, found: Comparison | None, settings: str
) -> tuple[str, ...]:
    """What the page has left since: the plan, the settings; of another model nothing is said."""
    if found is None or not is_same_model(engine, visitor, found):
        return ()
    is_other = parts_of(found.removed) != parts_of(visitor.plan().removed)
    is_set_anew = bool(settings and found.settings) and settings != found.settings
    tags = (ANOTHER_PLAN if is_other else "", OTHER_SETTINGS if is_set_anew else "")
    return tuple(filter(None, tags))


def state_of(
    engine: Engine,
    visitor: Visitor,
    found: Comparison | None,
    job: JobView | None,
    left: tuple[str, ...],
) -> str:
    """Running, partial, stale or failed, in words; nothing where all is there."""
    is_ours = job is not None and job.kind == "compare"
    is_running = is_ours and not job.is_over
    if found is None:
        return "Comparing: the texts are opened first." if is_running else ""
    said = []
    n, of = len(found.columns), len(found.asked)
    if not is_same_model(engine, visitor, found):
        said.append(OTHER_MODEL)
    elif found.is_partial and is_running:
        said.append(f"Comparing: {n} of {of} columns so far. Cancel keeps what is there.")
    elif found.is_partial:
        ended = "The comparison failed" if is_ours and job.state == "failed" else "It was stopped"
        said.append(f"Partial. {ended} after {n} of {of} columns; what is there is kept.")
    if left:
        said.append(_stale(visitor, found, left))
    if not found.is_partial:
        said += [
            f"{visible(column_name(c))} could not be had; its column says why."
            for c in found.columns
            if c.refused
        ]
    return " ".join((*said, found.warning)).strip()


def _stale(visitor: Visitor, found: Comparison, left: tuple[str, ...]) -> str:
    if ANOTHER_PLAN not in left:
        return "Stale. The settings have changed since. Start again to compare with these."
    n = len(visitor.removed)
    now = f"another set of {n} is off on the Map now" if n else "nothing is off on the Map now"
    again = " Start again to compare that." if n else ""
    return f"Stale. The columns are of {blocks(len(found.removed))}; {now}.{again}"


def _table(
    engine: Engine,
    visitor: Visitor,
    found: Comparison | None,
    job: JobView | None,
    left: tuple[str, ...],
) -> View:
    is_running = job is not None and job.kind == "compare" and not job.is_over
    if found is None:
        return empty_view(has_cuts=bool(visitor.removed))
    titles = {card.name: card.title for card in engine.correction_cards()}
    return table_view(found, titles, is_running=is_running and found.is_partial, tags=left)


def is_same_model(engine: Engine, visitor: Visitor, found: Comparison) -> bool:
    """Whether a comparison is of the model that the page shows."""
    of, info = found.evaluation, engine.info
    is_of = (of.model, of.revision) == (info.name, info.revision)
    return is_of and visitor.model_key == engine.model_key


def choices(engine: Engine, visitor: Visitor) -> list[tuple[str, str]]:
    """(what it was, key) of this visitor's comparisons that are still kept, the newest first."""
    kept = [(key, engine.comparison(key)) for key in reversed(visitor.comparisons)]
    return [(_titled(found), key) for key, found in kept if found is not None]


def _titled(found: Comparison) -> str:
    facts = [blocks(len(found.removed)), *found.asked[2:]]
    facts += [f"prompt {visible(found.prompt, 24)}"]
    facts += ["partial"] if found.is_partial else []
    return ", ".join(facts)
