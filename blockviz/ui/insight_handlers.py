"""What the Insights tab does: draws the open page, starts measurements, reads the lens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.session import Visitor
from blockviz.session.judging import n_left
from blockviz.types import Done, Lens
from blockviz.ui import inputs, views
from blockviz.ui.figure_card import card_names, card_update
from blockviz.ui.insight_cards import PAGES, InsightCards, still_true
from blockviz.ui.pairs_view import foretold, pairs_for, pairs_state
from blockviz.ui.screen import Call, Update

if TYPE_CHECKING:
    from blockviz.session import Engine

READING = "Reading early exits"
DRAWING = "Drawing these figures…"
# More metrics than these are counted, not named.
MOST_NAMED = 4
EMPTY = {
    "right": "What cuts cost has not been measured for these scores. Press Measure what cuts cost.",
    "metrics": "No scores of this model yet. Choose metrics above and press Score.",
    "agreement": "Score at least two metrics to see whether they agree.",
    "layers": "Score Angular distance, Window cosine or CKA change to see runs of layers.",
    "steady": "Score a metric on at least four windows to see how steady it is.",
    "lens": "Write a text and press Read.",
    "pairs": "No pairs of this model are measured yet. Press Measure pairs; it takes minutes, and "
    "Cancel keeps what is done.",
}


def card_outputs() -> tuple[str, ...]:
    """Every component that a page of insights may draw."""
    cards = (name for names in PAGES.values() for card in names for name in card_names(card))
    return (*cards, *(f"note_{page}" for page in PAGES), "foretold")


class InsightHandlers:
    """A page is drawn when it is opened, and again when what it shows has changed."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.cards = engine, InsightCards(engine)

    def turn(self, call: Call, page: Any) -> Update:
        """Another page was chosen, or the tab opened, as after a reload: the page that the field
        names is shown, and says that its figures are on the way."""
        page = inputs.choice(page, "The page", PAGES)
        return {**_opened(page), f"note_{page}": {"text": DRAWING}}

    def draw(self, call: Call, page: Any, visitor: Visitor, *settings: Any) -> Update:
        """A setting changed: the open page, drawn."""
        return self._drawn(inputs.choice(page, "The page", PAGES), visitor, *settings)

    def redraw(
        self, call: Call, page: Any, visitor: Visitor, judged: Any, line: Any, *settings: Any
    ) -> Update:
        """The tab was opened or a job has ended: its page, and the metrics that there are now."""
        table = self.engine.table(visitor.table_key) if visitor.table_key else None
        titles = [(s.title, name) for name, s in table.metrics.items()] if table else []
        names = [name for _, name in titles]
        now = [asked if asked in names else (names or [None])[0] for asked in (judged, line)]
        return {
            "judged_metric": gr.update(choices=titles, value=now[0]),
            "line_metric": gr.update(choices=titles, value=now[1]),
            **self.draw(call, page, visitor, *now, *settings),
        }

    def read(self, call: Call, visitor: Visitor, text: Any, position: Any) -> Iterator[Update]:
        """The Read button of the lens."""
        text = inputs.text(text, "The text", max_chars=self.engine.limits.max_prompt_chars)
        place = inputs.whole(position, "The token", low=-(1 << 20), high=1 << 20)
        started, lens = time.monotonic(), None
        with closing(self.engine.lens(text, place)) as events:
            for event in events:
                if isinstance(event, Done):
                    lens = event.result
                else:
                    yield {"work": views.lane("running", READING)}
        seconds = time.monotonic() - started
        yield {
            "lens": lens,
            "work": views.lane("done", f"{READING}: done", seconds=seconds),
            **self._drawn("lens", visitor, None, None, None, lens, None),
        }

    def _drawn(
        self,
        page: str,
        visitor: Visitor,
        judged_metric: Any,
        line_metric: Any,
        is_log: Any,
        lens: Lens | None,
        pair_order: Any,
    ) -> Update:
        metric = line_metric if page == "metrics" else judged_metric
        lens = lens if lens is not None else self.engine.example_lens
        cards = self.cards.page(
            page, visitor, metric=str(metric or ""), is_log=is_log is not False, lens=lens,
            is_clustered=pair_order == "clustered",
        )  # fmt: skip
        update: Update = {}
        for name, card in cards.items():
            update |= card_update(name, card)
        has_any = any(card is not None for card in cards.values())
        note = "" if has_any else EMPTY[page]
        if page == "right" and has_any:
            note = self._unmeasured(visitor)
        if page == "agreement" and has_any:
            note = self._disputed(visitor)
        if page == "steady" and has_any and cards["between"] is None:
            note = "Score again with another text, size or seed, and the runs are compared here."
        if page == "pairs":
            found = pairs_for(self.engine, visitor)
            note = pairs_state(self.engine, visitor, found) if found else note
            update["foretold"] = {"text": foretold(visitor, found)}
        return {**update, f"note_{page}": {"text": note}}

    def foretell(self, call: Call, visitor: Visitor) -> Update:
        """The plan has changed: what the pairs foretell of it."""
        return {"foretold": {"text": foretold(visitor, pairs_for(self.engine, visitor))}}

    def _unmeasured(self, visitor: Visitor) -> str:
        """What the pictures of measured cuts leave out, and how it is got."""
        table = self.engine.table(visitor.table_key)
        judgement = self.engine.judgement(visitor.judgement_key)
        missing = n_left(self.engine.info, table, judgement) if table and judgement else 0
        if not missing:
            return ""
        is_known = still_true(judgement, table)
        lineless = [s.title for name, s in table.metrics.items() if name not in is_known]
        n_known = len(judgement.singles)
        n_single = len(self.engine.info.units("block"))
        n_single += len({b for s in table.metrics.values() for b in s.values if b.part == "layer"})
        said = []
        if n_known < n_single:
            said.append(f"Partial: {n_known} of {n_single} single cuts, and tau is of those alone.")
        if lineless:
            few = ", ".join(lineless) if len(lineless) <= MOST_NAMED else f"{len(lineless)} metrics"
            said.append(f"Not yet cut one block after another: {few}.")
        sets = "set" if missing == 1 else "sets"
        return " ".join((*said, f"Measure what cuts cost measures the {missing} missing {sets}."))

    def _disputed(self, visitor: Visitor) -> str:
        found = self.engine.findings(visitor.table_key, visitor.judgement_key)
        blocks = [str(block) for block, _ in found.disputed[:2]] if found else []
        return f"They disagree most at {' and '.join(blocks)}." if blocks else ""


def _opened(page: str) -> Update:
    return {f"page_{name}": gr.update(visible=name == page) for name in PAGES}
