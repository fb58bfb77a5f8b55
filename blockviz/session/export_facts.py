"""What an export says of itself: facts for its card, its recipe, and what a mode loses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from blockviz.corrections import Repair
from blockviz.errors import UnsupportedModel
from blockviz.export import (
    MODES,
    Assembled,
    CardFacts,
    custom_parameters,
    no_repair,
    slots_of,
    stored_parameters,
    whole_layers,
)
from blockviz.models.model import BlockModel
from blockviz.session.export_views import ExportRequest, ModeCard
from blockviz.session.opening import provenance_of
from blockviz.session.recipe_file import recipe_to_json
from blockviz.settings import label_of
from blockviz.types import EXPORT_MODES, ExportMode, ExportReport, PruningPlan

# A sentence of ours, by which a tokenizer is known again.
SENTENCE = "Twelve blocks were taken out, and the 3rd layer's MLP stayed."


def mode_cards(model: BlockModel, plan: PruningPlan) -> tuple[ModeCard, ...]:
    """What each mode would store of a plan that is not repaired."""
    return tuple(_mode_card(model, plan, mode) for mode in EXPORT_MODES)


def _mode_card(model: BlockModel, plan: PruningPlan, mode: ExportMode) -> ModeCard:
    try:
        n = _size(model, plan, mode)
    except UnsupportedModel as refusal:
        return ModeCard(mode, MODES[mode], refused=f"{refusal.found} {refusal.todo}")
    return ModeCard(mode, MODES[mode], n, 1 - n / model.info.n_parameters)


def _size(model: BlockModel, plan: PruningPlan, mode: ExportMode) -> int:
    if mode == "custom":
        return custom_parameters(model, no_repair(plan))
    return stored_parameters(model.info, slots_of(model, plan.removed, mode))


def notes_of(model: BlockModel, repair: Repair, found: Assembled) -> tuple[str, ...]:
    """What to know of the mode chosen for this plan, a sentence each."""
    return tuple(_notes(model, repair, found))


def _notes(model: BlockModel, repair: Repair, found: Assembled) -> Iterator[str]:
    if found.n_silent:
        custom = custom_parameters(model, repair)
        yield (
            f"{found.n_silent} half layers stay in the file as zeros: it stores "
            f"{_share(found.n_parameters, model)} fewer parameters than the original, a custom "
            f"export would store {_share(custom, model)} fewer."
        )
    yield from (f"{rule[:1].upper()}{rule[1:]}." for rule in found.rules)
    if found.mode == "custom":
        yield "It is loaded with its own modelling file; llama.cpp and vLLM cannot load it."
    else:
        name = type(found.module).__name__
        yield f"A plain {name}: what loads that, such as llama.cpp's converter or vLLM, loads this."


def _share(n_parameters: int, model: BlockModel) -> str:
    return f"{100 * (1 - n_parameters / model.info.n_parameters):.2f} %"


def facts_of(
    model: BlockModel, repair: Repair, found: Assembled, report: ExportReport
) -> CardFacts:
    """What the model card says."""
    info, correction = model.info, repair.correction
    origin = repair.plan.provenance
    cited = correction.citation or correction.title
    values = report.perplexities
    results = (
        ("parameters", f"{report.n_parameters:,} of {report.n_parameters_before:,}"),
        ("parameters of the removed blocks", f"{100 * report.effective_ratio:.2f} %"),
        ("what the file does without", f"{100 * report.stored_ratio:.2f} %"),
        ("layers", f"{report.layers}; {info.n_layers} before"),
        ("perplexity of the original", f"{values['original']:.4f}"),
        ("perplexity of this model", f"{values['exported']:.4f}"),
    )
    provenance = [f"Perplexities on {report.data}, computed in {info.dtype}."]
    if origin is not None and origin.data is not None:
        provenance.append(f"Blocks were chosen on {origin.data.describe()}.")
    if repair.n_tokens:
        provenance.append(f"The repair was fitted on {repair.n_tokens} tokens.")
    if info.quantisation:
        provenance.append(f"The original came as {info.quantisation}.")
    return CardFacts(
        name=info.name,
        revision=info.revision,
        license=info.license,
        mode=found.mode,
        dtype=info.dtype,
        removed=report.removed,
        correction=report.correction,
        correction_title=correction.title,
        results=results,
        provenance=provenance,
        notes=report.notes,
        citations=((cited, correction.reference),) if repair.n_tokens else (),
        layers_gone=whole_layers(info, repair.plan),
        n_layers_before=info.n_layers,
    )


def recipe_of(
    model: BlockModel,
    request: ExportRequest,
    repair: Repair,
    found: Assembled,
    report: ExportReport,
) -> dict[str, Any]:
    """Everything needed to make the same export again, and to know this one."""
    ids = list(model.tokenizer(SENTENCE)["input_ids"])
    planned = replace(request, plan=repair.plan)
    recipe = recipe_to_json(model.info, planned, label_of(repair.correction))
    if recipe["fit"] is not None:
        recipe["fit"]["n_tokens"] = repair.n_tokens
    return {
        **recipe,
        "provenance": provenance_of(model, None).to_json(),
        "export": {
            **recipe["export"],
            "layers_at": found.layers_at,
            "n_layers": found.n_layers,
            "n_parameters": found.n_parameters,
        },
        "results": {
            "data": report.data,
            "perplexities": dict(report.perplexities),
            "effective_ratio": report.effective_ratio,
            "stored_ratio": report.stored_ratio,
        },
        "tokenizer": {"text": SENTENCE, "ids": ids},
    }
