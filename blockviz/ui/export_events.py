"""Which trigger of the Export tab calls which handler."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from blockviz.ui.export_cards import OUTPUTS
from blockviz.ui.export_form import FORM
from blockviz.ui.export_handlers import DESCRIBED, ExportHandlers
from blockviz.ui.export_tab import can_sign_in
from blockviz.ui.recipe_handlers import FOLLOWED, OPENED, RecipeHandlers
from blockviz.ui.screen import Screen


def wire_recipes(
    screen: Screen, recipes: RecipeHandlers, look: Sequence[str], plan: Sequence[str]
) -> gr.events.Dependency:
    """A recipe is shown before it is followed; the dependency is the one that changes the plan.

    look, plan: what a change of the plan is drawn by, and what it is drawn into.
    """
    screen.listen(
        screen["recipe_open"].upload, recipes.open, inputs=("visitor", "recipe_open"),
        outputs=OPENED,
    )  # fmt: skip
    return screen.listen(
        screen["recipe_use"].click, recipes.use, inputs=("visitor", "recipe_kept", *look),
        outputs=(*plan, *FOLLOWED, *OPENED),
    )  # fmt: skip


def wire_export(
    screen: Screen,
    export: ExportHandlers,
    changes: Sequence[gr.events.Dependency],
    started: Sequence[str],
) -> None:
    """A change of plan or settings is described; checks are drawn as they are done.

    changes: of the plan; started: what a job that begins is written into.
    """
    last, own = {"trigger_mode": "always_last"}, ("visitor", "jobs")
    numbers = [n for n in FORM if isinstance(screen[n], gr.Number)]
    settled = (
        screen["export"].select, screen["job"].settled,
        *(screen[name].blur for name in numbers), *(screen[name].submit for name in numbers),
        *(screen[name].input for name in FORM if name not in numbers),
    )  # fmt: skip
    for trigger in (settled, *(change.then for change in changes)):
        screen.listen(
            trigger,
            export.describe,
            inputs=(*own, "export_offered", *FORM),
            outputs=DESCRIBED,
            **last,
        )
    screen.listen(screen["job"].exported, export.draw, inputs=own, outputs=OUTPUTS, **last)
    if can_sign_in():
        screen.listen(
            screen["push"].click, export.push, inputs=(*own, "push_repo", "push_private"),
            outputs=(*started, *OUTPUTS), is_signed=True,
        )  # fmt: skip
    screen.listen(
        screen["start_export"].click, export.start, inputs=(*own, *FORM),
        outputs=(*started, *OUTPUTS),
    )  # fmt: skip
