"""The parts of a report that somebody has to measure first; those that nobody has are left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blockviz.plots import (
    can_draw,
    can_draw_hurts,
    comparison_card,
    fit_card,
    hurts_card,
    repairs_card,
    search_grid,
    search_progress,
    size_card,
)
from blockviz.session import Visitor
from blockviz.types import Lens
from blockviz.ui import (
    compare_cards,
    curves_cards,
    export_cards,
    repair_cards,
    repair_rows,
    report_views,
    search_cards,
)
from blockviz.ui.compare_view import table_view
from blockviz.ui.insight_cards import PAGES, InsightCards
from blockviz.ui.insight_tab import LEADS, NARROW
from blockviz.ui.pairs_view import foretold, pairs_for, pairs_state
from blockviz.ui.report_page import Drawn, Section

if TYPE_CHECKING:
    from blockviz.plots.markup import Markup
    from blockviz.session import Engine

# Page of the Insights -> its heading in a report. What takes long to draw, or shows the same scores
# once more, is left on the page.
INSIGHTS = {
    "right": "Which metric is right",
    "agreement": "Agreement between metrics",
    "steady": "Steadiness",
    "pairs": "Blocks that stand in for each other",
}


@dataclass(frozen=True)
class Look:
    """What the controls of a page are set to, and its texts; all of it may be forged."""

    metric: Any = None
    shade: Any = None
    texts: Any = None
    judged_metric: Any = None
    log_scale: Any = True
    lens: Any = None
    pair_order: Any = None
    curve_group: Any = None
    curve_log: Any = True
    search_shown: Any = None
    repair_shown: Any = None
    repair_row: Any = None
    compare_shown: Any = None


def result_sections(engine: Engine, visitor: Visitor, look: Look) -> Iterator[Section]:
    """Every result of this visitor's that belongs to the model, in the order of the tabs."""
    yield from _curves(engine, visitor, look)
    yield from _insights(engine, visitor, look)
    yield from _search(engine, visitor, look)
    yield from _repair(engine, visitor, look)
    yield from _comparison(engine, visitor, look)
    yield from _export(engine, visitor)


def _curves(engine: Engine, visitor: Visitor, look: Look) -> Iterator[Section]:
    found = curves_cards.groups(engine, visitor)
    key = _chosen(look.curve_group, list(found))
    if key:
        card = curves_cards.card(
            engine.info, visitor, found[key], is_log=look.curve_log is not False
        )
        yield Section("curves", "Curves", found[key].title, body=(Drawn(card, is_wide=False),))


def _insights(engine: Engine, visitor: Visitor, look: Look) -> Iterator[Section]:
    cards = InsightCards(engine)
    titles = {**INSIGHTS, **({"lens": "Early exit"} if isinstance(look.lens, Lens) else {})}
    for page, title in titles.items():
        found = cards.page(
            page, visitor, metric=str(look.judged_metric or ""),
            is_log=look.log_scale is not False, lens=look.lens,
            is_clustered=look.pair_order == "clustered",
        )  # fmt: skip
        drawn = [Drawn(found[n], is_wide=n not in NARROW) for n in PAGES[page] if found[n]]
        if drawn:
            note = _foretold(engine, visitor) if page == "pairs" else ""
            yield Section(page, title, LEADS[page], note, tuple(drawn))


def _foretold(engine: Engine, visitor: Visitor) -> str:
    found = pairs_for(engine, visitor)
    state = pairs_state(engine, visitor, found) if found else ""
    return " ".join(filter(None, (state, foretold(visitor, found))))


def _search(engine: Engine, visitor: Visitor, look: Look) -> Iterator[Section]:
    offered = search_cards.choices(engine, visitor)
    key = _chosen(look.search_shown, [key for _, key in offered])
    run = engine.search_run(key) if key else None
    if run is None or not run.steps or not search_cards.is_of(run, engine.info):
        return
    view = search_cards.candidates(engine.info, visitor, key, run)
    yield Section(
        "search", "Search", dict((k, t) for t, k in offered)[key],
        search_cards.state_of(engine, visitor, run, None),
        (Drawn(search_progress(run), is_wide=False),
         Drawn(search_grid(run, n_layers=engine.info.n_layers), is_wide=False),
         report_views.candidates(view)),
    )  # fmt: skip


def _repair(engine: Engine, visitor: Visitor, look: Look) -> Iterator[Section]:
    offered = repair_rows.choices(engine, visitor)
    key = _chosen(look.repair_shown, [key for _, key in offered])
    table = engine.repair_table(key) if key else None
    if table is None or not table.rows or not repair_cards.is_of(table, engine.info):
        return
    label = look.repair_row if isinstance(look.repair_row, str) else ""
    found = repair_rows.row_of(table, label)
    body: list[Markup | Drawn] = [report_views.repairs(repair_rows.rows_view(table, key, label))]
    if repair_cards.has_bars(table):
        body.append(Drawn(repairs_card(table), is_wide=False))
    if found is not None:
        cite = repair_cards.sources_of(repair_cards.card_of(engine, found))
        body += [Drawn(fit_card(table, found, cite=cite), is_wide=False),
                 Drawn(size_card(table, found), is_wide=False)]  # fmt: skip
    yield Section(
        "repair", "Repair", dict((k, t) for t, k in offered)[key],
        repair_cards.state_of(engine, visitor, table, None), tuple(body),
    )  # fmt: skip


def _comparison(engine: Engine, visitor: Visitor, look: Look) -> Iterator[Section]:
    offered = compare_cards.choices(engine, visitor)
    key = _chosen(look.compare_shown, [key for _, key in offered])
    found = engine.comparison(key) if key else None
    if found is None or not compare_cards.is_same_model(engine, visitor, found):
        return
    left = compare_cards.departures(engine, visitor, found, "")
    titles = {card.name: card.title for card in engine.correction_cards()}
    body = [report_views.comparison(table_view(found, titles, is_running=False, tags=left))]
    if can_draw(found):
        body.append(Drawn(comparison_card(found), is_wide=False))
    if can_draw_hurts(found):
        body.append(Drawn(hurts_card(found), is_wide=False))
    yield Section(
        "comparison", "Comparison", dict((k, t) for t, k in offered)[key],
        compare_cards.state_of(engine, visitor, found, None, left), tuple(body),
    )  # fmt: skip


def _export(engine: Engine, visitor: Visitor) -> Iterator[Section]:
    found = engine.exported(visitor.export_key) if visitor.export_key else None
    if found is not None:
        yield Section(
            "export", "Export", note=export_cards.state_of(visitor, found, None, is_there=True),
            body=(report_views.checks(export_cards.checks_view(found)),),
        )  # fmt: skip


def _chosen(raw: Any, keys: list[str]) -> str:
    """The key that the page shows; the first one, if that is none of this visitor's."""
    return raw if isinstance(raw, str) and raw in keys else next(iter(keys), "")
