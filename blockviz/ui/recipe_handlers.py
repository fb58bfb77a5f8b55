"""Recipes on the Export tab: saved as they stand, opened, shown, and followed when confirmed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.errors import BadInput
from blockviz.plots import visible
from blockviz.session import Visitor
from blockviz.session.export_views import ExportRequest
from blockviz.session.recipe_file import RecipeFile, recipe_from_json, recipe_to_json
from blockviz.types import UNITS, ModelInfo
from blockviz.ui import inputs
from blockviz.ui.compare_cards import NO_WORDS
from blockviz.ui.compare_form import NONE
from blockviz.ui.drawing import Drawing
from blockviz.ui.export_form import MODES, fits
from blockviz.ui.job_handlers import MODES as MODES_OF_TEXT
from blockviz.ui.job_handlers import texts_for
from blockviz.ui.repair_rows import blocks
from blockviz.ui.screen import Call, Update
from blockviz.ui.search_handlers import applied
from blockviz.ui.turns import Turns
from blockviz.ui.words import TIMES, grouped, short

if TYPE_CHECKING:
    from blockviz.session import Engine

NO_RECIPE = {"text": "", "name": "blockviz_recipe.json", "label": "Save the recipe"}
MOST_NAMED = 6
OPENED = ("recipe_kept", "recipe_says", "recipe_use")
# A key of `fit` or of `evaluation` -> the field of the form.
FIT = {"text": "export_text", "n_samples": "export_samples", "seq_len": "export_seq_len",
       "n_skip": "export_skip", "n_held": "export_held", "seed": "export_seed"}  # fmt: skip
EVALUATION = {"text": "shown_text", "n_samples": "shown_samples", "seq_len": "shown_seq_len"}
SCORING = {"metrics": "metrics", "text": "source", "n_samples": "n_samples", "seq_len": "seq_len",
           "seed": "seed", "mode": "mode", "unit": "unit", "tasks": "tasks",
           "limit": "task_rows"}  # fmt: skip
FOLLOWED = ("export_mode", "export_fix", "export_llama", *FIT.values(), *EVALUATION.values(),
            *SCORING.values())  # fmt: skip


def saved(info: ModelInfo, request: ExportRequest) -> dict[str, str]:
    """The page as it stands, as a file to save; none where there is nothing to say."""
    if not request.plan.removed and not request.scoring:
        return NO_RECIPE
    fix = request.repair.corrections[0] if request.repair else NONE
    recipe = recipe_to_json(info, request, fix)
    return {**NO_RECIPE, "text": json.dumps(recipe, indent=1, ensure_ascii=False) + "\n"}


class RecipeHandlers:
    """What a file says is shown first: nothing changes before it is confirmed."""

    def __init__(self, engine: Engine, turns: Turns) -> None:
        self.engine, self.turns, self.drawing = engine, turns, Drawing(engine)

    def open(self, call: Call, visitor: Visitor, file: Any) -> Update:
        """A recipe was uploaded."""
        self.drawing.check_model(visitor)
        data, name = inputs.json_file(file, "A recipe")
        found = recipe_from_json(data, name)
        found.plan.check(self.engine.info)
        if not fits(found.correction, self.engine):
            raise BadInput(
                f"The recipe {name} was to be followed.",
                f"Its correction {visible(found.correction, 80)!r} is none of this version.",
                "Use the version of blockviz that wrote it.",
            )
        return {
            "recipe_kept": found,
            "recipe_says": {**NO_WORDS, "text": _said(found), "note": self._note(found)},
            "recipe_use": gr.update(visible=not found.is_from_state and not _unusual(found)),
        }

    def use(self, call: Call, visitor: Visitor, kept: Any, metric: Any, shade: Any) -> Update:
        """The recipe that is shown is followed: its plan, its repair, its texts."""
        if not isinstance(kept, RecipeFile):
            raise BadInput("A recipe was to be followed.", "None is open.", "Open one first.")
        fix = kept.correction
        changed = applied(
            self.drawing, self.turns, call, replace(visitor, fix=fix), kept.plan.removed,
            metric, shade,
        )  # fmt: skip
        fields = {FIT[key]: value for key, value in kept.fit.items() if key in FIT}
        fields |= {
            EVALUATION[key]: value for key, value in kept.evaluation.items() if key in EVALUATION
        }
        fields |= {"export_mode": kept.mode, "export_llama": kept.as_llama}
        fields |= {SCORING[key]: value for key, value in self._scoring(kept)[0].items()}
        offered = gr.update(choices=[(visible(fix), fix)], value=fix)
        return {
            **changed,
            **{name: gr.update(value=value) for name, value in fields.items()},
            "export_fix": offered,
            "recipe_kept": None,
            "recipe_says": NO_WORDS,
            "recipe_use": gr.update(visible=False),
        }

    def _scoring(self, found: RecipeFile) -> tuple[dict[str, Any], list[str]]:
        """How it was scored: what the form of this page can say, and what it cannot."""
        able = {
            "metrics": [card.name for card in self.engine.metrics()],
            "text": [value for _, value in texts_for(self.engine.limits)],
            "mode": MODES_OF_TEXT, "unit": UNITS, "tasks": ("", *self.engine.tasks()),
        }  # fmt: skip
        kept, left_out = {}, []
        for name, value in found.scoring.items():
            wanted = value if name == "metrics" else (value,)
            fits_here = [one for one in wanted if name not in able or one in able[name]]
            left_out += [visible(str(one), 60) for one in wanted if one not in fits_here]
            if fits_here:
                kept[name] = fits_here if name == "metrics" else fits_here[0]
        return kept, left_out

    def _note(self, found: RecipeFile) -> str:
        _, left_out = self._scoring(found)
        if found.is_from_state:
            return (
                "Its correction was fitted before and is not in this file: follow it on the "
                "command line, with --state."
            )
        if _unusual(found):
            return (
                "Its windows are cut in a way that this page does not offer "
                f"({', '.join(_unusual(found))}): follow it on the command line."
            )
        if found.plan.model and found.plan.model != self.engine.info.name:
            return (
                f"It was written for {visible(found.plan.model, 120)}; the model here is "
                f"{self.engine.info.name}."
            )
        if left_out:
            more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
            named = ", ".join(left_out[:MOST_NAMED])
            return f"Not to be chosen on this page, and left as it is: {named}{more}."
        return ""


def _unusual(found: RecipeFile) -> list[str]:
    """What it says of its windows that has no field on this page."""
    names = [key for key in found.fit if key not in FIT]
    names += [key for key in found.evaluation if key not in EVALUATION]
    return list(dict.fromkeys(names))


def _said(found: RecipeFile) -> str:
    name, n = visible(found.plan.model, 120) or "A model", len(found.plan.removed)
    parts = [*_scored(found.scoring), f"{name} without {blocks(n)}" if n else f"{name}, whole"]
    if found.correction != NONE:
        fit = ""
        if {"text", "n_samples", "seq_len"} <= set(found.fit):
            windows = f"{grouped(found.fit['n_samples'])} {TIMES} {grouped(found.fit['seq_len'])}"
            fit = f", fitted on {windows} tokens of {visible(found.fit['text'], 80)}"
        parts.append(f"repaired by {visible(found.correction, 80)}{fit}")
    if n:
        parts.append(f"written {MODES[found.mode][:1].lower()}{MODES[found.mode][1:]}")
    before, after = (found.perplexities.get(k) for k in ("original", "exported"))
    measured = ""
    if before is not None and after is not None:
        measured = (
            f" Its perplexity went from {short(before)} to {short(after)} on "
            f"{visible(found.data, 160)}."
        )
    return f"{'; '.join(parts)}.{measured}"


def _scored(scoring: Mapping[str, Any]) -> Iterator[str]:
    if {"metrics", "text", "n_samples", "seq_len", "seed"} <= set(scoring):
        n = len(scoring["metrics"])
        windows = f"{grouped(scoring['n_samples'])} {TIMES} {grouped(scoring['seq_len'])}"
        yield (
            f"{n} {'metric' if n == 1 else 'metrics'} scored on {windows} tokens of "
            f"{visible(scoring['text'], 80)}, seed {scoring['seed']}"
        )
