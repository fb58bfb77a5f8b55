"""Which pictures an Insights page shows: session results -> figure cards. No gradio, no work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from blockviz.plots import (
    Citation,
    FigureCard,
    agreement_card,
    between_card,
    cka_card,
    cumulative_card,
    gromov_card,
    heatmap_card,
    importance_lines,
    lens_card,
    lens_tokens_card,
    pairs_card,
    singles_card,
    small_multiples,
    stability_card,
    stand_ins_card,
    surrogate_card,
    verdict_card,
)
from blockviz.session import Visitor
from blockviz.types import Judgement, Lens, Measured, Scores, ScoreTable
from blockviz.ui.pairs_view import FEWEST_SETS, pairs_for

if TYPE_CHECKING:
    from blockviz.session import Engine

Cards = dict[str, FigureCard | None]

# Page -> the names of its cards, in the order in which they stand.
PAGES: dict[str, tuple[str, ...]] = {
    "right": ("verdict", "cumulative", "singles"),
    "metrics": ("lines", "multiples", "ranks", "values"),
    "agreement": ("agreement",),
    "layers": ("gromov_ang", "gromov_cos", "cka"),
    "steady": ("stability", "between"),
    "lens": ("lens", "lens_tokens"),
    "pairs": ("pairs_map", "pairs_list", "pairs_check"),
}


def still_true(judgement: Judgement, table: ScoreTable) -> dict[str, tuple[Measured, ...]]:
    """The curves whose cuts are the lowest blocks of the table's rankings as they are now."""
    found = {}
    for name, scores in table.metrics.items():
        ranks = scores.ranks()
        order = sorted(ranks, key=ranks.__getitem__)
        curve = judgement.curves.get(name, ())
        if curve and all(set(m.removed) == set(order[: len(m.removed)]) for m in curve):
            found[name] = curve
    return found


def _bundled(card: FigureCard) -> FigureCard:
    """The same, said to come with the app: measured here, bfloat16 rounds otherwise."""
    note = " · ".join(filter(None, (card.provenance_note, "bundled")))
    return replace(card, provenance_note=note)


class InsightCards:
    """The cards of one page for one visitor; None where there is nothing to draw."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def page(
        self,
        page: str,
        visitor: Visitor,
        *,
        metric: str,
        is_log: bool,
        lens: Lens | None,
        is_clustered: bool = False,
    ) -> Cards:
        """Card name -> card of every card of a page."""
        table = self.engine.table(visitor.table_key) if visitor.table_key else None
        if page == "lens":
            return self._lens(lens)
        if page == "pairs":
            return self._pairs(visitor, is_clustered=is_clustered)
        if table is None or not table.metrics:
            return dict.fromkeys(PAGES[page])
        metric = metric if metric in table.metrics else next(iter(table.metrics))
        draw: dict[str, Callable[[], Cards]] = {
            "right": lambda: self._right(visitor, table, metric, is_log=is_log),
            "metrics": lambda: self._metrics(table, metric),
            "agreement": lambda: self._agreement(visitor, table),
            "layers": lambda: self._layers(table),
            "steady": lambda: self._steady(visitor, table),
        }
        return {**dict.fromkeys(PAGES[page]), **draw[page]()}

    def _right(self, visitor: Visitor, table: ScoreTable, metric: str, *, is_log: bool) -> Cards:
        judgement = self.engine.judgement(visitor.judgement_key)
        found = self.engine.findings(visitor.table_key, visitor.judgement_key)
        if judgement is None or found is None:
            return {}
        titles = {name: s.title for name, s in table.metrics.items()}
        judgement = replace(judgement, curves=still_true(judgement, table))
        is_judged = any(b in judgement.singles for b in table.metrics[metric].values)
        has_curves = any(judgement.curves.values())
        cards: Cards = {
            "verdict": verdict_card(found.verdicts, provenance=judgement.provenance),
        }
        if has_curves:
            cards["cumulative"] = cumulative_card(judgement, titles, log_y=is_log)
        if is_judged:
            cite = sources_of(self.engine, table.metrics[metric])
            cards["singles"] = singles_card(table, judgement, metric, cite=cite)
        is_bundled = visitor.judgement_key == "example"
        return {name: _bundled(card) for name, card in cards.items()} if is_bundled else cards

    def _metrics(self, table: ScoreTable, metric: str) -> Cards:
        scores, info = table.metrics[metric], self.engine.info
        every = sources_of(self.engine, *table.metrics.values())
        return {
            "lines": importance_lines(
                scores, info, provenance=table.provenance, cite=sources_of(self.engine, scores)
            ),
            "ranks": heatmap_card(table, info, shade="rank", cite=every),
            "values": heatmap_card(table, info, shade="value", cite=every),
            "multiples": small_multiples(table, info),
        }

    def _agreement(self, visitor: Visitor, table: ScoreTable) -> Cards:
        found = self.engine.findings(visitor.table_key, visitor.judgement_key)
        if found is None or len(table.metrics) < 2:
            return {}
        return {"agreement": agreement_card(found.agreement, provenance=table.provenance)}

    def _layers(self, table: ScoreTable) -> Cards:
        def with_part(metric: str, part: str) -> Iterator[Scores]:
            yield from (
                s for s in table.metrics.values() if s.metric == metric and getattr(s, part)
            )

        cards: Cards = {}
        for name, metric, part, draw in (
            ("gromov_ang", "ang_win", "windows", gromov_card),
            ("gromov_cos", "cos_win", "windows", gromov_card),
            ("cka", "cka", "matrix", cka_card),
        ):
            scores = next(with_part(metric, part), None)
            if scores is not None:
                cite = sources_of(self.engine, scores)
                cards[name] = draw(scores, provenance=table.provenance, cite=cite)
        return cards

    def _steady(self, visitor: Visitor, table: ScoreTable) -> Cards:
        found = self.engine.findings(visitor.table_key, visitor.judgement_key)
        between = self.engine.compared(visitor.tables)
        cards: Cards = {}
        if found is not None and found.stability:
            cards["stability"] = stability_card(found.stability, provenance=table.provenance)
        if between is not None:
            cards["between"] = between_card(between)
        return cards

    def _lens(self, lens: Lens | None) -> Cards:
        if lens is None:
            return dict.fromkeys(PAGES["lens"])
        return {"lens": lens_card(lens), "lens_tokens": lens_tokens_card(lens)}

    def _pairs(self, visitor: Visitor, *, is_clustered: bool) -> Cards:
        cards: Cards = dict.fromkeys(PAGES["pairs"])
        found = pairs_for(self.engine, visitor)
        if found is None:
            return cards
        provenance = found.interactions.provenance
        order = found.clustered if is_clustered else None
        cards["pairs_map"] = pairs_card(found.interactions, order=order)
        cards["pairs_list"] = stand_ins_card(found.stand_ins, provenance=provenance)
        if found.n_foretold >= FEWEST_SETS:
            cards["pairs_check"] = surrogate_card(found.surrogate, found.measured)
        return cards


def sources_of(engine: Engine, *scores: Scores) -> tuple[Citation, ...]:
    """The sources of metrics, each once."""
    names = {s.metric for s in scores}
    cards = [c for c in engine.metrics() if c.name in names]
    return tuple(dict.fromkeys((c.citation or c.title, c.reference) for c in cards))
