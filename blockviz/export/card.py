"""The texts of an export's folder: its model card, how to load it, and recipes of other tools."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from blockviz.export.names import CARD, HOW_TO_LOAD, MERGEKIT
from blockviz.types import ExportMode

MODES: dict[ExportMode, str] = {
    "stock-compact": "a plain checkpoint; surviving blocks are packed into as few layers as run "
    "them in the same order",
    "stock-zeroed": "a plain checkpoint; every layer is where it was, and removed blocks write "
    "zeros",
    "custom": "a checkpoint with a modelling file of its own; removed blocks are not in it",
}


@dataclass(frozen=True)
class CardFacts:
    """What the texts of an export say. results: (what, value) rows; citations: (name, where)."""

    name: str
    revision: str
    license: str
    mode: ExportMode
    dtype: str
    removed: Sequence[str]
    correction: str
    correction_title: str
    results: Sequence[tuple[str, str]]
    provenance: Sequence[str]
    notes: Sequence[str] = ()
    citations: Sequence[tuple[str, str]] = ()
    layers_gone: tuple[int, ...] | None = None
    n_layers_before: int = 0

    @property
    def is_custom(self) -> bool:
        return self.mode == "custom"


def texts_of(facts: CardFacts) -> dict[str, str]:
    """File name -> text."""
    found = {CARD: card(facts), HOW_TO_LOAD: how_to_load(facts)}
    if facts.layers_gone is not None and "/" in facts.name:
        found[MERGEKIT] = mergekit(facts)
    return found


def card(facts: CardFacts) -> str:
    head = {"library_name": "transformers", "pipeline_tag": "text-generation",
            "tags": ["blockviz", "pruned"]}  # fmt: skip
    if facts.license:
        head = {"license": facts.license.lower(), **head}
    if "/" in facts.name:
        head["base_model"] = facts.name
    # Every JSON value is a YAML value.
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items())
    name, many = plain(facts.name), len(facts.removed)
    lines = [
        "---",
        front,
        "---",
        "",
        f"# {name} without {many} of its blocks",
        "",
        f"Made from {code(facts.name)}{f' at {code(facts.revision)}' if facts.revision else ''} by "
        f"blockviz: {MODES[facts.mode]}. Weights in {facts.dtype}.",
        "",
        f"Removed, in this order: {', '.join(facts.removed) or 'nothing'}.",
        "",
        f"Repaired by: {plain(facts.correction_title)} ({code(facts.correction)}).",
        "",
        "| what | value |",
        "|---|---|",
        *(f"| {plain(what)} | {plain(value)} |" for what, value in facts.results),
        "",
        *(f"{plain(line)}  " for line in facts.provenance),
        "",
        *(f"- {plain(note)}" for note in facts.notes),
        "",
        f"The licence is that of the model it comes from: {plain(facts.license) or 'not stated'}.",
        f"[{HOW_TO_LOAD}]({HOW_TO_LOAD}) says how to load it and how to check the files.",
        "",
    ]
    if facts.citations:
        lines += ["## Methods", ""]
        lines += [f"- {plain(name)}: {plain(where)}" for name, where in facts.citations]
        lines.append("")
    return "\n".join(lines)


def how_to_load(facts: CardFacts) -> str:
    trusted = ", trust_remote_code=True" if facts.is_custom else ""
    lines = [
        "# How to load it",
        "",
        "    from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'    model = AutoModelForCausalLM.from_pretrained("."{trusted})',
        '    tokenizer = AutoTokenizer.from_pretrained(".")',
        "",
    ]
    if facts.is_custom:
        lines += [
            "`trust_remote_code` runs `modeling_blockviz.py` of this folder: read it first. Tools",
            "that know stock layouts only (llama.cpp, vLLM) cannot load it.",
            "",
        ]
    else:
        lines += ["It needs no code besides transformers; tools for this family load it too.", ""]
    lines += [
        "The same files in blockviz, as a model like any other, and checked:",
        "",
        "    python -m blockviz verify .",
        "    python -m blockviz app        # then load this folder",
        "",
    ]
    if facts.layers_gone is not None:
        gone = ",".join(map(str, facts.layers_gone))
        lines += [
            "# The same cut elsewhere",
            "",
            "Whole layers only were removed, so that other tools can make the same cut"
            + (" (without the repair)." if facts.correction != "none" else "."),
            "llama.cpp, from a GGUF file of the original:",
            "",
            f"    llama-quantize --prune-layers {gone} original.gguf pruned.gguf F16",
            "",
        ]
        if "/" in facts.name:
            lines += [f"mergekit: `mergekit-yaml {MERGEKIT} OUT`", ""]
    return "\n".join(lines)


def mergekit(facts: CardFacts) -> str:
    """Slices of the layers that stay, for mergekit."""
    lines, kept = ["slices:"], [
        i for i in range(facts.n_layers_before) if i not in (facts.layers_gone or ())
    ]  # fmt: skip
    for first, last in _runs(kept):
        lines += [
            "- sources:",
            f"  - model: {json.dumps(facts.name)}",
            f"    layer_range: [{first}, {last + 1}]",
        ]
    return "\n".join([*lines, "merge_method: passthrough", f"dtype: {facts.dtype}", ""])


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of every run of neighbours."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], n)
        else:
            runs.append((n, n))
    return runs


def plain(text: str) -> str:
    """Text of others that neither Markdown nor HTML takes for its own."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", re.sub(r"\s+", " ", text)).strip()


def code(text: str) -> str:
    """Text of others between backticks."""
    inner = re.sub(r"[`|\s]+", " ", text).strip()
    return f"`{inner}`"
