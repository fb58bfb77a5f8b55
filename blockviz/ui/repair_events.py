"""Which trigger of the Repair tab calls which handler."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from blockviz.ui.repair_form import CARRIED, FORM
from blockviz.ui.repair_handlers import LOOKED_AT, OUTPUTS, RepairHandlers
from blockviz.ui.screen import EACH, Screen


def wire_repair(
    screen: Screen,
    repair: RepairHandlers,
    changes: Sequence[gr.events.Dependency],
    started: Sequence[str],
) -> None:
    """A change of plan or settings is described; a table is drawn as its rows arrive.

    changes: of the plan; started: what a job that begins is written into.
    """
    last, asked = {"trigger_mode": "always_last"}, ("visitor", "jobs", "repair_shown")
    looked = ("repair_row", "repair_place")
    written = [n for n in FORM if isinstance(screen[n], (gr.Number, gr.Textbox))]
    own = {"inputs": ("corrections",), "outputs": ("corrections",)}
    ticked = screen.listen(screen["tick_all"].click, repair.tick, **own)
    drawings = [
        screen.listen(
            (screen["repair"].select, screen["repair_shown"].input),
            repair.draw, inputs=asked, outputs=OUTPUTS, **last,
        ),
        screen.listen(
            (screen["job"].fitted, screen["job"].settled),
            repair.newest, inputs=("visitor", "jobs"), outputs=OUTPUTS, **last,
        ),
    ]  # fmt: skip
    settled = (
        *(screen[name].blur for name in written), *(screen[name].submit for name in written),
        *(screen[name].input for name in FORM if name not in written),
    )  # fmt: skip
    # After a drawing too: it was begun with the plan as it was then.
    for trigger in (settled, *(change.then for change in (*changes, *drawings, ticked))):
        screen.listen(
            trigger, repair.describe, inputs=(*asked, *FORM),
            outputs=("repair_says", "repair_note", "start_repair", "start_auto"), **last,
        )  # fmt: skip
    for name, start in (("start_repair", repair.start), ("start_auto", repair.start_auto)):
        screen.listen(
            screen[name].click, start, inputs=("visitor", "jobs", *FORM),
            outputs=(*started, "repair_note", *(f for fields in CARRIED.values() for f in fields)),
        )  # fmt: skip
    chosen, turned = ("visitor", "repair_shown", *looked), ("visitor", *LOOKED_AT)
    turns = tuple(screen[name].input for name in looked)
    screen.listen(turns, repair.turn, inputs=chosen, outputs=turned, **last)
    for drawing in drawings:
        screen.listen(drawing.then, repair.turn_back, inputs=chosen, outputs=LOOKED_AT, **last)
    screen.listen(
        screen["repair_rows"].look, repair.look,
        inputs=("visitor", "repair_shown", "repair_place"), outputs=turned, **EACH,
    )  # fmt: skip
