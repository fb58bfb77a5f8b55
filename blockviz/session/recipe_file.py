"""A recipe: what to score, remove, repair and write, and on which texts; written and read again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockviz.data import public_name
from blockviz.errors import BadInput, BlockvizError
from blockviz.session.export_views import ExportRequest
from blockviz.session.views import ScoreRequest
from blockviz.types import EXPORT_MODES, ExportMode, ModelInfo, PruningPlan, ScoreTable, SearchRun

SCHEMA = "blockviz/recipe/1"
MAX_CHARS = 1000
# A field of `fit` or of `evaluation` -> the option of the command line of the same meaning.
FIT = {"text": "calibration", "n_samples": "fit_samples", "seq_len": "fit_seq_len",
       "n_skip": "fit_skip", "n_held": "fit_held", "seed": "seed"}  # fmt: skip
EVALUATION = {"text": "data", "n_samples": "n_samples", "seq_len": "seq_len"}
SCORING = {"metrics": "metrics", "text": "calibration", "n_samples": "n_samples",
           "seq_len": "seq_len", "seed": "seed", "mode": "calibration_mode", "unit": "unit",
           "tasks": "tasks", "limit": "limit"}  # fmt: skip
# How windows of both are cut; written down only where that is not as usual.
CUT = {"mode": "calibration_mode", "text_column": "text_column", "is_shuffled": "shuffle"}
# Those that are words, or yes and no; the others are numbers.
WORDS, FLAGS = ("text", "mode", "unit", "tasks", "text_column"), ("is_shuffled",)
MOST_METRICS = 200
# Larger ones are no size or seed of anything, and a browser could not hold them.
MOST = 2**53


@dataclass(frozen=True)
class RecipeFile:
    """scoring: which metrics were scored on which text, by the keys of SCORING; empty where
    nothing was scored. scored_hash: of the token ids of that text. fit: which text a correction
    was fitted on, by the keys of FIT; empty where none was.
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
    scoring: Mapping[str, Any] = field(default_factory=dict)
    scored_hash: str = ""

    def scoring_to_json(self) -> dict[str, Any]:
        """As scoring_to_json has written it; empty where nothing was scored."""
        if not self.scoring:
            return {}
        metrics = list(self.scoring["metrics"])
        return {**self.scoring, "metrics": metrics, "token_hash": self.scored_hash}


def scoring_to_json(request: ScoreRequest, table: ScoreTable) -> dict[str, Any]:
    """The part of a recipe that says how a table was scored; of a path, the file's name only."""
    data = table.provenance.data
    return {
        "metrics": list(request.metrics),
        "text": public_name(request.calibration),
        "n_samples": request.n_samples,
        "seq_len": request.seq_len,
        "seed": request.seed,
        "mode": request.mode,
        "unit": request.unit,
        "tasks": request.tasks,
        **({} if request.limit is None else {"limit": request.limit}),
        "token_hash": data.token_hash if data else "",
    }


def search_to_json(run: SearchRun, n_decisions: int) -> dict[str, Any]:
    """The part of a recipe that says which search found its plan, and after how many decisions."""
    data = run.provenance.data
    text = {} if data is None else {
        "text": public_name(data.dataset),
        "n_samples": data.n_samples,
        "seq_len": data.seq_len,
        "seed": data.seed,
        "token_hash": data.token_hash,
    }  # fmt: skip
    asked = {"strategy": run.strategy, "objective": run.objective, "unit": run.unit}
    return {**asked, "n_decisions": n_decisions, **text}


def recipe_to_json(info: ModelInfo, request: ExportRequest, correction: str) -> dict[str, Any]:
    """What is known of an export before anything is written. correction: its label."""
    fit, measured = request.repair, request.evaluation
    plan = request.plan
    named = PruningPlan(plan.removed, info.name, info.revision, plan.provenance)
    return {
        "schema": SCHEMA,
        "license": info.license,
        "scoring": dict(request.scoring) or None,
        "search": dict(request.search) or None,
        "plan": named.to_json(),
        "correction": correction,
        "is_from_state": request.state is not None,
        "fit": None
        if fit is None
        else {
            "text": public_name(fit.text.calibration),
            "n_samples": fit.text.n_samples,
            "seq_len": fit.text.seq_len,
            "seed": fit.text.seed,
            "n_skip": fit.n_skip,
            "n_held": fit.n_held,
            **_unusual(fit.text),
        },
        "evaluation": {
            "text": public_name(measured.calibration),
            "n_samples": measured.n_samples,
            "seq_len": measured.seq_len,
            **_unusual(measured),
        },
        "export": {"mode": request.mode, "as_llama": request.as_llama},
    }


def _unusual(text: ScoreRequest) -> dict[str, Any]:
    """How windows are cut, where that is not as usual."""
    usual = ScoreRequest()
    found = {name: getattr(text, name) for name in CUT}
    return {name: value for name, value in found.items() if value != getattr(usual, name)}


def recipe_from_json(data: Any, name: str) -> RecipeFile:
    """BadInput, with the file's name in it, unless it is a recipe."""
    try:
        if data["schema"] != SCHEMA or data["export"]["mode"] not in EXPORT_MODES:
            raise ValueError("another schema")
        fit, results = data["fit"] or {}, data.get("results") or {}
        scoring = data.get("scoring") or {}
        numbers = {k: float(v) for k, v in dict(results.get("perplexities") or {}).items()}
        if not all(map(math.isfinite, numbers.values())):
            raise ValueError("a perplexity that is no number")
        return RecipeFile(
            plan=PruningPlan.from_json(data["plan"]),
            mode=data["export"]["mode"],
            as_llama=data["export"]["as_llama"] is True,
            correction=_short(data["correction"]),
            # Before it was written down, nothing was held out.
            fit=_texts(FIT | CUT, {"n_held": 0, **fit} if fit else {}),
            evaluation=_texts(EVALUATION | CUT, data.get("evaluation") or {}),
            is_from_state=data["is_from_state"] is True,
            perplexities=numbers,
            data=_short(results.get("data", "")),
            scoring=_scoring(scoring),
            scored_hash=_short(scoring.get("token_hash", "")),
        )
    except (BlockvizError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise BadInput(
            f"The recipe {name} was to be followed.",
            "It is not one that an export has written.",
            "Give blockviz_recipe.json of an export.",
        ) from error


def _short(text: Any) -> str:
    if not isinstance(text, str) or len(text) > MAX_CHARS:
        raise ValueError(f"not a text of at most {MAX_CHARS} characters")
    return text


def _scoring(found: Mapping[str, Any]) -> dict[str, Any]:
    if not found:
        return {}
    metrics = found["metrics"]
    if not isinstance(metrics, list) or not 0 < len(metrics) <= MOST_METRICS:
        raise ValueError("no list of metrics")
    rest = {name: option for name, option in SCORING.items() if name != "metrics"}
    return {"metrics": tuple(dict.fromkeys(map(_short, metrics))), **_texts(rest, found)}


def _texts(names: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: found[name] is True if name in FLAGS else _plain(found[name], is_text=name in WORDS)
        for name in names
        if name in found
    }


def _plain(value: Any, *, is_text: bool) -> str | int:
    is_right = isinstance(value, str if is_text else int) and not isinstance(value, bool)
    if not is_right or (not is_text and abs(value) > MOST):
        raise ValueError("of another kind, or out of every range")
    return _short(value) if is_text else value
