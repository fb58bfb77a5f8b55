"""What the Repair tab does: settings to a request, its start, and which correction is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BadInput, BlockvizError
from blockviz.session import Visitor
from blockviz.session.repair_views import RepairRequest
from blockviz.types import RepairTable
from blockviz.ui import repair_cards, repair_rows
from blockviz.ui.drawing import Drawing
from blockviz.ui.job_handlers import JobHandlers
from blockviz.ui.repair_form import CARRIED, FORM, request_of, said, usual
from blockviz.ui.screen import Call, Update

if TYPE_CHECKING:
    from blockviz.session import Engine

OUTPUTS = (*repair_cards.card_outputs(), "repair_shown", "repair_row", "repair_place", "repair_one")
LOOKED_AT = tuple(name for name in OUTPUTS if not name.startswith("repairs_bars"))


class RepairHandlers:
    """Handlers get the form's values in the order of `repair_form.FORM`."""

    def __init__(self, engine: Engine, jobs: JobHandlers) -> None:
        self.engine, self.jobs, self.drawing = engine, jobs, Drawing(engine)

    def describe(self, call: Call, visitor: Visitor, jobs: Any, shown: Any, *form: Any) -> Update:
        """A setting or the plan has changed: what would be fitted on what, and on how many cuts."""
        n = len(visitor.removed)
        has_cuts = bool(n) and visitor.model_key == self.engine.model_key
        start = f"Fit repairs of {n} removed block{'s' if n > 1 else ''}" if n else None
        try:
            words = said(self.engine, request_of(self.engine, visitor, *form))
        except BlockvizError as error:
            words = {**repair_cards.NO_WORDS, **({"text": str(error)} if n else {})}
        _, table = self._table(visitor, shown)
        state = repair_cards.state_of(self.engine, visitor, table, self.jobs.own_job(call, jobs))
        return {
            "repair_says": words,
            "repair_note": {"text": state},
            "start_repair": gr.update(
                value=start or repair_cards.NOTHING_CUT, interactive=has_cuts
            ),
            "start_auto": gr.update(interactive=has_cuts),
        }

    def tick(self, call: Call, ticked: Any) -> Update:
        """All corrections, or the usual ones where all are ticked."""
        cards = self.engine.correction_cards()
        names = [card.name for card in cards]
        is_all = isinstance(ticked, list) and all(name in ticked for name in names)
        return {"corrections": usual(cards) if is_all else names}

    def start(self, call: Call, visitor: Visitor, jobs: Any, *form: Any) -> Update:
        """The button that fits the chosen corrections."""
        request = request_of(self.engine, visitor, *form)
        return {**self._begun(call, visitor, jobs, request), **_carried(form)}

    def start_auto(self, call: Call, visitor: Visitor, jobs: Any, *form: Any) -> Update:
        """The button that looks for the best one an export can carry, whatever is ticked."""
        request = request_of(self.engine, visitor, *form, is_auto=True)
        return {**self._begun(call, visitor, jobs, request), **_carried(form)}

    def draw(self, call: Call, visitor: Visitor, jobs: Any, shown: Any) -> Update:
        """The table that is chosen, or the newest, and of it what this visitor looks at."""
        offered = repair_rows.choices(self.engine, visitor)
        key, table = self._table(visitor, shown)
        job = self.jobs.own_job(call, jobs)
        return {
            **repair_cards.drawn(self.engine, visitor, key, job, *visitor.look),
            "repair_shown": gr.update(choices=offered, value=key or None, visible=len(offered) > 1),
            **_chosen(table, *visitor.look),
        }

    def newest(self, call: Call, visitor: Visitor, jobs: Any) -> Update:
        """A correction was fitted, or a job has ended: the newest table."""
        return self.draw(call, visitor, jobs, None)

    def turn(self, call: Call, visitor: Visitor, shown: Any, row: Any, place: Any) -> Update:
        """Another correction or place was chosen: its figures, the bars of all stay."""
        _, table = self._table(visitor, shown)
        look = _there(table, _text(row), _text(place))
        return {"visitor": replace(visitor, look=look), **self._looked_at(visitor, shown, look)}

    def turn_back(self, call: Call, visitor: Visitor, shown: Any, row: Any, place: Any) -> Update:
        """A drawing has ended: where something else was chosen while it went on, that again."""
        _, table = self._table(visitor, shown)
        look = _there(table, *visitor.look)
        return {} if look == (_text(row), _text(place)) else self._looked_at(visitor, shown, look)

    def look(self, call: Call, visitor: Visitor, shown: Any, place: Any) -> Update:
        """A button of the table: that correction below."""
        key, table = self._table(visitor, call.data.get("key"))
        label = call.data.get("row")
        known = [row.correction for row in repair_rows.rows_of(table)] if table else []
        if key != call.data.get("key") or label not in known:
            raise BadInput(
                "A correction of the table was to be looked at.",
                "That table is no longer kept, or has no such row.",
                "Start again; it is fitted anew.",
            )
        return self.turn(call, visitor, key, label, place)

    def _looked_at(self, visitor: Visitor, shown: Any, look: tuple[str, str]) -> Update:
        key, table = self._table(visitor, shown)
        return {
            "repair_rows": repair_rows.rows_view(table, key, look[0]),
            **repair_cards.looked_at(self.engine, table, *look),
            **_chosen(table, *look),
        }

    def _begun(self, call: Call, visitor: Visitor, jobs: Any, request: RepairRequest) -> Update:
        self.drawing.check_model(visitor)
        who = {"owner": call.session, "address": call.address}
        started = self.jobs.begin(call, jobs, lambda: self.engine.start_repair(request, **who))
        job = self.jobs.own_job(call, started["jobs"])
        return {
            **started,
            "repair_note": {"text": repair_cards.state_of(self.engine, visitor, None, job)},
        }

    def _table(self, visitor: Visitor, shown: Any) -> tuple[str, RepairTable | None]:
        """The chosen table of this visitor's, or the newest; nobody sees another's."""
        keys = [key for _, key in repair_rows.choices(self.engine, visitor)]
        key = shown if isinstance(shown, str) and shown in keys else (keys or [""])[0]
        return key, self.engine.repair_table(key) if key else None


def _carried(form: tuple[Any, ...]) -> Update:
    """The settings of a repair where Compare and Export would fit and measure it again."""
    raw = dict(zip(FORM, form, strict=True))
    return {field: raw[name] for name, fields in CARRIED.items() for field in fields}


def _there(table: RepairTable | None, row: str, place: str) -> tuple[str, str]:
    """What of a choice the table has; what is no longer there gives way to the best."""
    labels = [value for _, value in repair_rows.row_choices(table)] if table else []
    label = row if row in labels else ""
    places = repair_rows.place_choices(repair_rows.row_of(table, label) if table else None)
    return label, place if place in [value for _, value in places] else ""


def _chosen(table: RepairTable | None, row: str, place: str) -> Update:
    """The two choices of what is looked at."""
    label, block = _there(table, row, place)
    rows = repair_rows.row_choices(table) if table else []
    places = repair_rows.place_choices(repair_rows.row_of(table, label) if table else None)
    return {
        "repair_row": gr.update(choices=rows, value=label if rows else None),
        "repair_place": gr.update(choices=places, value=block if places else None),
        "repair_one": gr.update(visible=bool(rows)),
    }


def _text(raw: Any) -> str:
    return raw if isinstance(raw, str) else ""
