"""The button that saves a report of the page."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from blockviz.errors import BlockvizError
from blockviz.session import Visitor
from blockviz.ui.export_form import FORM
from blockviz.ui.report import report_of
from blockviz.ui.report_results import Look
from blockviz.ui.screen import EACH, Call, Screen, Update, failure

if TYPE_CHECKING:
    from blockviz.session import Engine

NO_REPORT = {"asked": 0, "name": "", "before": "", "after": ""}
LOOK = tuple(field.name for field in fields(Look))


class ReportHandlers:
    """A report is sent to the page that asked for it and kept nowhere."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def save(self, call: Call, visitor: Visitor, *values: Any) -> Update:
        """The button was pressed. The page numbers its wishes: each answer is saved once."""
        asked = call.data.get("asked")
        asked = asked if isinstance(asked, int) and not isinstance(asked, bool) else 0
        look = Look(**dict(zip(LOOK, values[: len(LOOK)], strict=True)))
        try:
            report = report_of(self.engine, visitor, look, values[len(LOOK) :])
        except BlockvizError as error:
            return {"report": {**NO_REPORT, "asked": asked}, **failure(error)}
        return {"report": {"asked": asked, **asdict(report)}}


def wire_report(screen: Screen, report: ReportHandlers) -> None:
    """The button to its handler, one report at a time: drawing all its figures takes seconds."""
    screen.listen(
        screen["report"].ask, report.save, inputs=("visitor", *LOOK, *FORM), outputs=("report",),
        queue=True, concurrency_id="reports", concurrency_limit=1, **EACH,
    )  # fmt: skip
