"""The registries and a model's make-up as plain JSON, for the command line and the README."""

from __future__ import annotations

from typing import Any

from blockviz.metrics import METRICS
from blockviz.models.load import known_families
from blockviz.types import ModelInfo


def metrics_json() -> dict[str, Any]:
    """Every metric with its parameters' defaults, what a low score means, and its source."""
    rows = [
        {
            "name": cls.name,
            "title": cls.title,
            "meaning": cls.meaning,
            "unit_label": cls.unit_label,
            "parameters": cls().parameters(),
            "reference": cls.reference,
        }
        for cls in METRICS.classes()
    ]
    return {"schema": "blockviz/metrics/1", "metrics": rows}


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
    return {"schema": "blockviz/info/1", "summary": summary, "model": info.to_json()}
