"""Options with what a recipe says in their place."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from blockviz.cli.console import complain
from blockviz.cli.out_file import shown
from blockviz.errors import BadInput
from blockviz.json_files import NotJson, read_json
from blockviz.session.recipe_file import (
    CUT,
    EVALUATION,
    FIT,
    SCORING,
    RecipeFile,
    recipe_from_json,
)
from blockviz.types import ScoreTable

DEFAULT_TEXT = "demo"


def read_recipe(args: argparse.Namespace) -> RecipeFile:
    """The file of --recipe; BadInput unless it is one."""
    try:
        data = read_json(args.recipe)
    except NotJson as error:
        raise BadInput(
            f"The recipe {shown(args.recipe)} was to be followed.",
            error.found,
            "Give blockviz_recipe.json of an export.",
        ) from error
    return recipe_from_json(data, args.recipe.name)


def scored_as_before(args: argparse.Namespace, found: RecipeFile) -> argparse.Namespace:
    """The options of score. BadInput where nothing was scored."""
    if not found.scoring:
        raise BadInput(
            f"The scoring of the recipe {args.recipe.name} was to be done again.",
            "It says nothing of a scoring.",
            "Give --metrics and --calibration instead.",
        )
    own = {**found.scoring, "metrics": ",".join(found.scoring["metrics"])}
    return argparse.Namespace(**{**vars(args), **_options(args, SCORING, own)})


def check_text(table: ScoreTable, found: RecipeFile) -> None:
    """A warning where the text is no longer the one of the recipe."""
    data = table.provenance.data
    if found.scored_hash and data is not None and data.token_hash != found.scored_hash:
        complain("The text is another one than the recipe was written for, so numbers may differ.")


def cut_as_before(args: argparse.Namespace, found: RecipeFile) -> argparse.Namespace:
    """The options of evaluate or export; where to write it stays."""
    if found.is_from_state:
        raise BadInput(
            f"The recipe {args.recipe.name} was to be followed.",
            "Its correction was fitted before, and taken from the folder that held it.",
            "Give that folder with --state.",
        )
    if any(getattr(args, name, None) is not None for name in ("plan", "remove", "state")):
        raise BadInput(
            "A recipe was given, and a plan or a fitted correction besides.",
            "A recipe holds its own.",
            "Leave one of the two out.",
        )
    if not found.plan.removed:
        raise BadInput(
            f"The recipe {args.recipe.name} was to be followed.",
            "It removes nothing.",
            "Give one that was saved with blocks switched off.",
        )
    own = {
        "remove": ",".join(str(b) for b in found.plan.removed),
        "mode": found.mode,
        "as_llama": found.as_llama,
        "correction": found.correction,
        **_options(args, FIT | CUT, found.fit),
        **_options(args, EVALUATION | CUT, found.evaluation),
    }
    return argparse.Namespace(**{**vars(args), **own})


def _options(
    args: argparse.Namespace, names: Mapping[str, str], found: Mapping[str, Any]
) -> dict[str, Any]:
    """A recipe knows a file by its name alone, so a text that is given besides counts."""
    is_given = "text" in names and getattr(args, names["text"]) != DEFAULT_TEXT
    return {names[k]: value for k, value in found.items() if k != "text" or not is_given}
