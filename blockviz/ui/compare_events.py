"""Which trigger of the Compare tab calls which handler."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from blockviz.ui.compare_form import FORM
from blockviz.ui.compare_handlers import DESCRIBED, OFFERED, OUTPUTS, CompareHandlers
from blockviz.ui.screen import Screen


def wire_compare(
    screen: Screen,
    compare: CompareHandlers,
    changes: Sequence[gr.events.Dependency],
    started: Sequence[str],
) -> None:
    """A change of plan or settings is described; a comparison is drawn as its columns arrive.

    changes: of the plan; started: what a job that begins is written into.
    """
    last, own = {"trigger_mode": "always_last"}, ("visitor", "jobs")
    shown = (*own, "compare_shown", *FORM)
    offer = {"inputs": ("visitor", "compare_a", "compare_b", "compare_offered"), "outputs": OFFERED}
    opened = screen.listen(screen["compare"].select, compare.offer, **offer)
    ended = screen.listen(screen["job"].settled, compare.offer, **offer)
    written = [n for n in FORM if isinstance(screen[n], (gr.Number, gr.Textbox))]
    drawings = [
        *(screen.listen(trigger, compare.draw, inputs=shown, outputs=OUTPUTS, **last)
          for trigger in (opened.then, screen["compare_shown"].input)),
        *(screen.listen(trigger, compare.newest, inputs=(*own, *FORM), outputs=OUTPUTS, **last)
          for trigger in (ended.then, screen["job"].compared)),
    ]  # fmt: skip
    settled = (
        *(screen[name].blur for name in written), *(screen[name].submit for name in written),
        *(screen[name].input for name in FORM if name not in written),
    )  # fmt: skip
    # After a drawing too: it was begun with the settings as they were then.
    for trigger in (settled, *(change.then for change in (*changes, *drawings))):
        screen.listen(trigger, compare.describe, inputs=shown, outputs=DESCRIBED, **last)
    screen.listen(
        screen["start_compare"].click, compare.start, inputs=(*own, *FORM),
        outputs=(*started, "compare_note"),
    )  # fmt: skip
