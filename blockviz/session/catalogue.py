"""The registries and a model's make-up as plain JSON, for the command line and the README."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from blockviz.corrections import CORRECTIONS, Correction
from blockviz.metrics import METRICS, Metric
from blockviz.models.load import known_families
from blockviz.search import PRESETS, STRATEGIES, Strategy
from blockviz.types import ModelInfo

_COLUMNS = ("name", "title", "what it measures", "unit", "cost", "parameters", "source")


def metrics_json() -> dict[str, Any]:
    """Every metric: what it measures, of what, at what cost, its parameters and its source."""
    return {"schema": "blockviz/metrics/1", "metrics": [_metric_json(c) for c in METRICS.classes()]}


def _metric_json(cls: type[Metric]) -> dict[str, Any]:
    return {
        "name": cls.name,
        "title": cls.title,
        "meaning": cls.meaning,
        **_explained(cls),
        "unit_label": cls.unit_label,
        "units": [unit for unit in ("block", "layer") if unit in cls.units],
        "cost": cls.cost,
        "needs_tasks": cls().needs_tasks(),
        "parameters": _parameters_json(cls),
        "reference": cls.reference,
        "citation": cls.citation,
    }


def _explained(cls: type[Metric] | type[Correction]) -> dict[str, str]:
    """The formula of a method, what it sees and what it misses."""
    return {"formula": cls.formula, "sees": cls.sees, "misses": cls.misses}


def _parameters_json(cls: type[Metric] | type[Strategy] | type[Correction]) -> dict[str, Any]:
    """The parameters of a method: default, label, and what they may be."""
    return {
        field.name: {
            "default": field.default,
            **{k: field.metadata[k] for k in ("label", "min", "max") if k in field.metadata},
            **({"choices": list(c)} if (c := field.metadata.get("choices")) else {}),
        }
        for field in fields(cls)
    }


def strategies_json() -> dict[str, Any]:
    """Every search strategy: what it does, what it searches, its parameters and its source."""
    found = [_strategy_json(cls) for cls in STRATEGIES.classes()]
    return {"schema": "blockviz/strategies/1", "strategies": found}


def _strategy_json(cls: type[Strategy]) -> dict[str, Any]:
    return {
        "name": cls.name,
        "title": cls.title,
        "meaning": cls.meaning,
        "units": list(cls.units),
        "wants": cls.wants,
        "is_experimental": cls.is_experimental,
        "parameters": _parameters_json(cls),
        "reference": cls.reference,
        "citation": cls.citation,
    }


def corrections_json() -> dict[str, Any]:
    """Every correction: what it does, how an export takes it, its parameters and its source."""
    found = [_correction_json(cls()) for cls in CORRECTIONS.classes()]
    return {"schema": "blockviz/corrections/1", "corrections": found}


def _correction_json(correction: Correction) -> dict[str, Any]:
    return {
        "name": correction.name,
        "title": correction.title,
        "meaning": correction.meaning,
        **_explained(type(correction)),
        "cost": correction.cost,
        "folds": correction.folds,
        "is_experimental": correction.is_experimental,
        "parameters": _parameters_json(type(correction)),
        "reference": correction.reference,
        "citation": correction.citation,
    }


def presets_json() -> dict[str, Any]:
    """Every paper's recipe: what it sets, what of it is left out here, and its source."""
    names = ("name", "title", "meaning", "repair", "note", "reference", "citation")
    found = [
        {**{name: getattr(p, name) for name in names}, "settings": dict(p.settings)}
        for p in PRESETS
    ]
    return {"schema": "blockviz/presets/1", "presets": found}


def settings_of(method: Mapping[str, Any]) -> Iterator[str]:
    """`k=100 (at least 1)` for every parameter of an entry of one of the registries."""
    for name, rules in method["parameters"].items():
        default, low, high = (rules.get(k) for k in ("default", "min", "max"))
        text = f"{name}={str(default).lower() if isinstance(default, bool) else default}"
        if rules.get("choices"):
            text += f" ({', '.join(map(str, rules['choices']))})"
        elif isinstance(default, bool):
            text += " (true, false)"
        elif high is not None:
            text += f" ({low} to {high})"
        elif low is not None:
            text += f" (at least {low})"
        yield text


def source_of(method: Mapping[str, Any]) -> str:
    """Who and where, of an entry of one of the registries."""
    return " · ".join(text for text in (method["citation"], method["reference"]) if text)


def metrics_markdown() -> str:
    """The table of all metrics for the README."""
    rows = [_COLUMNS, ("---",) * len(_COLUMNS)]
    for metric in metrics_json()["metrics"]:
        settings = [f"`{head}`{tail}" for head, tail in map(_cut, settings_of(metric))]
        rows.append(
            (
                f"`{metric['name']}`",
                metric["title"],
                metric["meaning"],
                ", ".join(metric["units"]),
                metric["cost"],
                "<br>".join(settings),
                f"[{metric['citation'] or metric['reference']}]({metric['reference']})",
            )
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _cut(setting: str) -> tuple[str, str]:
    """A setting's assignment, and the rest of it."""
    head, space, tail = setting.partition(" ")
    return head, space + tail


def families_json() -> dict[str, Any]:
    rows = [{"name": name, "types": ", ".join(types)} for name, types in known_families()]
    return {"schema": "blockviz/families/1", "families": rows}


def info_json(info: ModelInfo) -> dict[str, Any]:
    """A model's make-up: a readable summary, and every block."""
    attn, mlp = info.blocks[0], info.blocks[1]
    summary = {
        "model": info.name,
        "revision": info.revision or "-",
        "family": info.family + (", parallel residual" if info.is_parallel else ""),
        "parameters": f"{info.n_parameters:,}",
        "layers": f"{info.n_layers} ({len(info.blocks)} blocks)",
        "attention": f"{attn.n_parameters:,} parameters a block",
        "MLP": f"{mlp.n_parameters:,} parameters a block",
        "KV cache": f"{info.kv_bytes_per_token():,} bytes a token",
        "context": f"{info.max_seq_len:,} tokens",
        "dtype": f"{info.dtype} on {info.device}",
        "stored as": info.quantisation or "as loaded",
        "chat template": "yes" if info.has_chat_template else "no",
        "licence": info.license or "not stated",
    }
    if info.unread:
        summary["not read"] = info.unread
    return {"schema": "blockviz/info/1", "summary": summary, "model": info.to_json()}
