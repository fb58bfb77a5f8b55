"""A recipe: what to remove, repair and write, and on which texts; written and read again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockviz.errors import BadInput, BlockvizError
from blockviz.session.export_views import ExportRequest
from blockviz.types import EXPORT_MODES, ExportMode, ModelInfo, PruningPlan

SCHEMA = "blockviz/recipe/1"
MAX_CHARS = 1000
# A field of `fit` or of `evaluation` -> the option of the command line of the same meaning.
FIT = {"text": "calibration", "n_samples": "fit_samples", "seq_len": "fit_seq_len",
       "n_skip": "fit_skip", "seed": "seed"}  # fmt: skip
EVALUATION = {"text": "data", "n_samples": "n_samples", "seq_len": "seq_len"}


@dataclass(frozen=True)
class RecipeFile:
    """fit: which text a correction was fitted on, by the keys of FIT; empty where none was.
    evaluation: which text it was measured on, by the keys of EVALUATION. is_from_state: the
    correction was fitted before, and cannot be fitted again from this alone. perplexities: of the
    original and the export, empty where none was written yet; data: of which text.
    """

    plan: PruningPlan
    mode: ExportMode
    as_llama: bool
    correction: str
    fit: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    is_from_state: bool
    perplexities: Mapping[str, float]
    data: str


def recipe_to_json(info: ModelInfo, request: ExportRequest, correction: str) -> dict[str, Any]:
    """What is known of an export before anything is written. correction: its label."""
    fit, measured = request.repair, request.evaluation
    plan = request.plan
    named = PruningPlan(plan.removed, info.name, info.revision, plan.provenance)
    return {
        "schema": SCHEMA,
        "license": info.license,
        "plan": named.to_json(),
        "correction": correction,
        "is_from_state": request.state is not None,
        "fit": None
        if fit is None
        else {
            "text": fit.text.calibration,
            "n_samples": fit.text.n_samples,
            "seq_len": fit.text.seq_len,
            "seed": fit.text.seed,
            "n_skip": fit.n_skip,
        },
        "evaluation": {
            "text": measured.calibration,
            "n_samples": measured.n_samples,
            "seq_len": measured.seq_len,
        },
        "export": {"mode": request.mode, "as_llama": request.as_llama},
    }


def recipe_from_json(data: Any, name: str) -> RecipeFile:
    """BadInput, with the file's name in it, unless it is a recipe."""
    try:
        if data["schema"] != SCHEMA or data["export"]["mode"] not in EXPORT_MODES:
            raise ValueError("another schema")
        fit, results = data["fit"] or {}, data.get("results") or {}
        numbers = {k: float(v) for k, v in dict(results.get("perplexities") or {}).items()}
        if not all(map(math.isfinite, numbers.values())):
            raise ValueError("a perplexity that is no number")
        return RecipeFile(
            plan=PruningPlan.from_json(data["plan"]),
            mode=data["export"]["mode"],
            as_llama=data["export"]["as_llama"] is True,
            correction=_short(data["correction"]),
            fit=_texts(FIT, fit),
            evaluation=_texts(EVALUATION, data.get("evaluation") or {}),
            is_from_state=data["is_from_state"] is True,
            perplexities=numbers,
            data=_short(results.get("data", "")),
        )
    except (BlockvizError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"The recipe {name} was to be followed.",
            "It is not one that an export has written.",
            "Give blockviz_recipe.json of an export.",
        ) from error


def _short(text: Any) -> str:
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise ValueError(f"not a text of at most {MAX_CHARS} characters")
    return text


def _texts(names: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(found[name], is_text=name == "text") for name in names if name in found}


def _plain(value: Any, *, is_text: bool) -> str | int:
    is_right = isinstance(value, str if is_text else int) and not isinstance(value, bool)
    if not is_right:
        raise ValueError(f"{value!r} is of another kind")
    return value
