"""Logit Disruption Score: how far the strongest logits turn when the block is masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from blockviz.metrics.base import METRICS, AblationMetric
from blockviz.types import Readout

SPACES = ("raw", "centered", "logprob")


@METRICS.register
@dataclass(frozen=True)
class LogitDisruption(AblationMetric):
    """LDS = 1 - mean over tokens of cos(z0[S], z[S]), in [0, 2]; Hu et al., Findings of EACL 2026.

    S: the K largest logits of the dense model at that token, fixed once; z0 dense, z masked. The
    abstract fixes no more than that; `raw` logits and K = 100 are our reading. Raw
    cosine is not invariant to a shift of all logits, `centered` (mean over S taken off) is;
    `logprob` takes log-probabilities over the whole vocabulary.
    """

    k: int = field(default=100, metadata={"label": "Top logits kept", "min": 2, "max": 100000})
    space: str = field(default="raw", metadata={"label": "Logit space", "choices": SPACES})

    name = "lds"
    title = "Logit disruption"
    meaning = "How far the strongest logits turn when the block is removed."
    formula = (
        "LDS(b) = 1 − mean_t cos( z^0_t[S_t], z_t[S_t] )\n"
        "z^0, z: logits of the whole model, and without block b; S_t: the K words that the "
        "whole model finds likeliest at position t, K = 100 unless set."
    )
    sees = (
        "A change among the words that the model thought likely, at every position and without "
        "asking which word was right."
    )
    misses = (
        "A longer or shorter logit vector has the same direction: a model that only grows "
        "surer, or less sure, scores 0. Words outside the K do not exist for it, and a shift of"
        " all logits, which changes no probability, counts as damage unless they are centred."
    )
    reference = "https://aclanthology.org/2026.findings-eacl.193/"
    unit_label = "1 - cosine"
    citation = "Hu, Xu, Zhan, Findings of EACL 2026"

    def remember(self, readout: Readout) -> dict[str, torch.Tensor]:
        """{`index`: (position, K) int32, `values`: (position, K) float32}, K largest logits."""
        top = readout.logits.topk(min(self.k, readout.logits.shape[-1]), dim=-1)
        return {
            "index": top.indices.to(torch.int32),
            "values": self._in_space(top.values, readout.logits),
        }

    def per_position(self, readout: Readout, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        picked = readout.logits.gather(-1, kept["index"].long())
        return _turn(self._in_space(picked, readout.logits), kept)

    def picks(self, kept: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        return None if self.space == "logprob" else kept["index"]

    def of_picked(self, logits: torch.Tensor, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return _turn(self._in_space(logits, logits), kept)

    def _in_space(self, picked: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if self.space == "centered":
            return picked - picked.mean(dim=-1, keepdim=True)
        if self.space == "logprob":
            return picked - logits.logsumexp(dim=-1, keepdim=True)
        return picked


def _turn(now: torch.Tensor, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """(position,) 1 - cosine of (position, K) logits with those of the dense model."""
    return 1 - torch.nn.functional.cosine_similarity(kept["values"], now, dim=-1)
