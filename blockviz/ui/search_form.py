"""The settings of a search as they stand on the page, and the request that they make."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from blockviz.session import Limits, MetricCard, ScoreRequest
from blockviz.session.recipes import filled_request
from blockviz.session.repair_views import CorrectionCard
from blockviz.session.search_views import SearchRequest, StrategyCard
from blockviz.types import UNITS, ModelInfo, Unit, parts_of
from blockviz.ui import inputs
from blockviz.ui.job_handlers import MAX_SAMPLES, MAX_SEED, MAX_SEQ_LEN, UPLOAD, texts_for
from blockviz.ui.screen import Update
from blockviz.ui.words import TIMES

if TYPE_CHECKING:
    from blockviz.session import Engine

# In the order in which handlers get them.
FORM = (
    "search_preset", "search_target", "search_amount", "search_strategy", "strategy_settings",
    "search_objective", "objective_settings", "search_unit", "protect_first", "protect_last",
    "search_text", "search_samples", "search_seq_len", "search_seed", "search_tasks",
    "search_task_rows", "search_scores", "scores_settings", "search_pool", "search_with_repair",
    "with_repair_settings", "is_exhaustive",
)  # fmt: skip
# Fields of a request that are a name and its settings, and those that the page calls the same.
METHOD_NAMES = {
    "strategy": "The strategy", "objective": "The objective", "scores": "The metric to order by",
    "with_repair": "The repair on the way",
}  # fmt: skip
METHODS = tuple(METHOD_NAMES)
OTHERS = ("protect_first", "protect_last", "is_exhaustive")
UNIT_TITLES = {
    "block": "attention and MLP blocks",
    "layer": "whole layers",
    "attn": "attention only",
    "mlp": "MLP only",
}
# What stands in the fields that a search need not be told.
BARE = {
    **dict.fromkeys(FORM, ""), "protect_first": 0, "protect_last": 0, "search_task_rows": 1,
    "is_exhaustive": False,
}  # fmt: skip
MAX_SETTINGS_CHARS = 80
MAX_LAYERS = 4096


@dataclass(frozen=True)
class Target:
    """A way to say how far to cut. `scale`: what one of the page's numbers is in the `field` of a
    SearchRequest."""

    field: str
    title: str
    label: str
    usual: float
    low: float
    high: float
    scale: float = 1.0
    is_whole: bool = False


# Value of the page's choice -> how the page asks. Gradio would take "blocks" for texts of its own.
TARGETS = {
    "count": Target(
        "blocks", "Number removed", "How many to remove", 6, 1, 2 * MAX_LAYERS, is_whole=True
    ),
    "ratio": Target(
        "ratio", "Parameters", "Share of all parameters to remove, %", 15, 0.1, 99, 0.01
    ),
    "max_ppl_rise": Target(
        "max_ppl_rise", "Perplexity rise", "Perplexity may rise by, %", 10, 0.01, 100_000
    ),
    "speedup": Target("speedup", "Speed-up", f"Faster to decode, {TIMES}", 1.2, 1.01, 100),
}


def texts_to_search(limits: Limits) -> tuple[tuple[str, str], ...]:
    """(label, value) of the calibration texts that a search may read."""
    return tuple(t for t in texts_for(limits) if t[1] != UPLOAD)


def unit_choices(units: Collection[str]) -> list[tuple[str, str]]:
    """(label, value) of these units, in the order in which they are always offered."""
    return [(UNIT_TITLES[unit], unit) for unit in UNITS if unit in units]


def repairs(engine: Engine) -> tuple[CorrectionCard, ...]:
    """The corrections that a search may fit on its way: none of them is trained."""
    return tuple(card for card in engine.correction_cards() if not card.is_experimental)


def narrowed(engine: Engine, strategy: str, unit: str) -> Update:
    """The units that a strategy can search; the present one stays if it is among them."""
    units = next((card.units for card in engine.strategies() if card.name == strategy), UNITS)
    chosen = unit if unit in units else units[0]
    return {"search_unit": gr.update(choices=unit_choices(units), value=chosen)}


def request_of(engine: Engine, *form: Any) -> SearchRequest:
    """The search that the page's settings ask for; whether it makes sense is the session's."""
    raw = dict(zip(FORM, form, strict=True))
    kind = inputs.choice(raw["search_target"], "The target", TARGETS)
    recipes = ("", *(card.name for card in engine.presets()))
    chosen = inputs.choice(raw["search_preset"] or "", "The recipe", recipes)
    request = SearchRequest(
        text=_text_of(engine, raw),
        objective=_method(raw, "objective", engine.objectives()),
        strategy=_method(raw, "strategy", engine.strategies()),
        scores=_method(raw, "scores", engine.metrics()) if raw["search_scores"] else "",
        with_repair=(
            _method(raw, "with_repair", repairs(engine)) if raw["search_with_repair"] else ""
        ),
        unit=inputs.choice(raw["search_unit"], "The unit", UNITS),
        protect_first=_layers(raw["protect_first"], "The first layers to protect"),
        protect_last=_layers(raw["protect_last"], "The last layers to protect"),
        pool=_short(raw["search_pool"], "The candidate pool"),
        is_exhaustive=raw["is_exhaustive"] is True,
        **_amount(engine.info, TARGETS[kind], raw["search_amount"], raw["search_unit"]),
    )  # fmt: skip
    is_named = chosen and _is_recipe(engine, request, chosen)
    return replace(request, preset=chosen) if is_named else request


def filled(engine: Engine, name: str) -> Update:
    """Component name -> value of a recipe's method; target and text stay as they are.

    What the recipe leaves open becomes what is usual, so that nothing of another recipe remains.
    """
    recipe, update = _recipe(engine, name), {}
    for kind in METHODS:
        method, _, settings = getattr(recipe, kind).partition(":")
        update |= {f"search_{kind}": method, f"{kind}_settings": settings}
    update |= {part: getattr(recipe, part) for part in OTHERS}
    tasks = recipe.text.tasks if recipe.text.tasks in engine.tasks() else ""
    rest = {"search_pool": recipe.pool, "search_tasks": tasks}
    return {**update, **rest, **narrowed(engine, update["search_strategy"], recipe.unit)}


def aimed(kind: str) -> Update:
    """The number's box for one kind of target."""
    target = TARGETS[kind]
    return {"search_amount": gr.update(label=target.label, value=target.usual)}


def _recipe(engine: Engine, name: str) -> SearchRequest:
    return filled_request({}, recipe=name, n_layers=engine.info.n_layers)


def _is_recipe(engine: Engine, request: SearchRequest, name: str) -> bool:
    """Whether the method is still the one of this recipe; the text may be another."""
    recipe = _recipe(engine, name)
    fields = (*METHODS, *OTHERS, "unit", "pool")
    return all(getattr(request, field) == getattr(recipe, field) for field in fields)


def _text_of(engine: Engine, raw: dict[str, Any]) -> ScoreRequest:
    limits = engine.limits
    offered = [value for _, value in texts_to_search(limits)]
    most, longest = limits.n_samples or MAX_SAMPLES, limits.seq_len or MAX_SEQ_LEN
    rows = limits.task_rows or MAX_SAMPLES
    return ScoreRequest(
        calibration=inputs.choice(raw["search_text"], "The calibration text", offered),
        n_samples=inputs.whole(
            raw["search_samples"], "The number of windows", low=1, high=most
        ),
        seq_len=inputs.whole(raw["search_seq_len"], "The window length", low=2, high=longest),
        seed=inputs.whole(raw["search_seed"], "The seed", low=0, high=MAX_SEED),
        tasks=inputs.choice(raw["search_tasks"] or "", "The questions", ("", *engine.tasks())),
        limit=inputs.whole(raw["search_task_rows"], "The number of questions", low=1, high=rows),
    )  # fmt: skip


def _amount(info: ModelInfo, target: Target, raw: Any, unit: Unit) -> dict[str, Any]:
    """The field of a request that says how far to cut."""
    if target.is_whole:
        most = _most(info, unit)
        return {target.field: inputs.whole(raw, target.label, low=int(target.low), high=most)}
    found = inputs.real(raw, target.label, low=target.low, high=target.high)
    return {target.field: round(found * target.scale, 6)}


def _most(info: ModelInfo, unit: Unit) -> int:
    """How many units of this model can go: one block always stays."""
    units = info.candidates(unit)
    return max(1, len(units) - (len(parts_of(units)) == len(info.blocks)))


def _method(
    raw: dict[str, Any], kind: str, cards: Sequence[MetricCard | StrategyCard | CorrectionCard]
) -> str:
    """`beam:width=3` from the chosen name and the text of its settings."""
    said = METHOD_NAMES[kind]
    name = inputs.choice(raw[f"search_{kind}"], said, [card.name for card in cards])
    settings = _short(raw[f"{kind}_settings"], f"{said}'s settings")
    return f"{name}:{settings}" if settings else name


def _short(raw: Any, name: str) -> str:
    return inputs.text(raw or "", name, max_chars=MAX_SETTINGS_CHARS).strip()


def _layers(raw: Any, name: str) -> int:
    return inputs.whole(raw, name, low=0, high=MAX_LAYERS)
