"""Merging layers: a surviving layer takes in what the removed ones above it differ by."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch

from blockviz.corrections.base import CORRECTIONS, Repair, SelfFitted
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, CalibrationSet, Done, Events, PruningPlan

# Path below a layer -> weight.
Weights = dict[str, torch.Tensor]


@CORRECTIONS.register
@dataclass(frozen=True)
class Merge(SelfFitted):
    """W_l <- W_l + factor * sum_k (W_(l+k) - W_l) over the matrices of the layers merged into l.

    mode=paper: W_l on the right is the layer's own throughout (LaCo, arXiv 2402.11187). mode=code:
    it is what the layers before have made of it, as the released code of both papers has it; with a
    factor of 1 the weights of the highest layer stay. Norms and biases are those of layer l.
    steps: `10+3/8+1` merges three layers into layer 10, then one into layer 8, counted among the
    layers that are left; empty: every removed run of layers goes into the layer below it. Reads no
    text.
    """

    mode: str = field(
        default="paper", metadata={"label": "How layers merge", "choices": ("paper", "code")}
    )
    factor: float = field(
        default=1.0, metadata={"label": "Weight of each layer", "min": 0.0, "max": 1.0}
    )
    steps: str = field(default="", metadata={"label": "What is merged, and in which order"})

    name = "merge"
    title = "Layer merge"
    meaning = "The layer below a cut takes in by how much the removed layers' weights differ."
    formula = (
        "W_l ← W_l + f · Σ_k ( W_{l+k} − W_l )\n"
        "W_l: the matrices of the layer below the cut; W_{l+k}: those of the removed layers "
        "above it; f = 1 unless set."
    )
    sees = "The weights alone: by how much the removed layers differ from the one that stays."
    misses = (
        "Whether a sum of weights does what layers did one after the other: no text is read, "
        "nothing is checked. Half layers cannot be merged."
    )
    cost = "Nothing: no text, no time, no room."
    reference = "https://arxiv.org/abs/2402.11187"
    citation = "Yang et al. 2024, LaCo; Ding et al. 2025, Sliding Layer Merging"
    folds = "weights of surviving layers"
    is_experimental = True
    reads_text = False

    def __post_init__(self) -> None:
        super().__post_init__()
        parsed(self.steps)

    def repaired(
        self,
        model: BlockModel,
        plan: PruningPlan,
        windows: CalibrationSet,
        *,
        held: CalibrationSet | None,
        batch_tokens: int,
        memory_bytes: int | None,
    ) -> Events:
        """Done(Repair); UnsupportedModel where the plan cuts half layers or its lowest layers."""
        gone = _whole_layers(plan)
        alive, merged = list(range(model.info.n_layers)), {}
        for base, n in parsed(self.steps) or _below_every_run(gone, model.info.n_layers):
            group = alive[alive.index(base) + 1 :][:n] if base in alive else []
            if len(group) < n or not gone.issuperset(group):
                raise _another_plan(self.steps, plan)
            layers = [merged.get(i) or matrices(model, i) for i in (base, *group)]
            merged[base] = self._merged(*layers)
            alive = [i for i in alive if i not in group]
        if gone.intersection(alive):
            raise _another_plan(self.steps, plan)
        weights = {
            BlockId(i, part): {p: w for p, w in found.items() if _is_of(model, part, p)}
            for i, found in merged.items()
            if i not in gone
            for part in ("attn", "mlp")
        }
        yield Done(Repair(self, plan, weights=weights))

    def _merged(self, base: Weights, *group: Weights) -> Weights:
        found = dict(base)
        for layer in group:
            for path, weight in layer.items():
                if weight.shape != base[path].shape:
                    raise UnsupportedModel(
                        "Layers were to be merged.",
                        f"Their {path} are of different shapes.",
                        "Use a correction of the stream, such as replaceme.",
                    )
                own = base[path] if self.mode == "paper" else found[path]
                found[path] = found[path] + self.factor * (weight - own)
        return found


def parsed(steps: str) -> tuple[tuple[int, int], ...]:
    """(layer, how many are merged into it) of `10+3/8+1`; BadInput otherwise."""
    found = []
    for step in filter(None, steps.split("/")):
        match = re.fullmatch(r"(\d+)\+([1-9]\d*)", step)
        if match is None:
            raise BadInput(
                f"merge:steps={steps} was asked for.",
                f"{step!r} is no step.",
                "Write 10+3/8+1 for three layers into layer 10, then one into layer 8.",
            )
        found.append((int(match[1]), int(match[2])))
    return tuple(found)


def matrices(model: BlockModel, layer: int) -> Weights:
    """The matrices of a layer's attention and MLP by their path below it, in float32."""
    module = model.layers[layer]
    return {
        f"{path}.{name}": weight.detach().float()
        for path in (model.family.module(part) for part in ("attn", "mlp"))
        for name, weight in module.get_submodule(path).named_parameters()
        if weight.ndim > 1
    }


def _is_of(model: BlockModel, part: str, path: str) -> bool:
    return path.startswith(f"{model.family.module(part)}.")


def _whole_layers(plan: PruningPlan) -> set[int]:
    parts = {part for b in plan.removed for part in b.parts}
    gone = {b.layer for b in parts}
    halves = sorted(b for i in gone for b in BlockId(i, "layer").parts if b not in parts)
    if halves:
        raise UnsupportedModel(
            "Removed layers were to be merged into those that stay.",
            f"The plan removes half of layer {halves[0].layer} only.",
            "Remove whole layers, or use a correction of the stream, such as replaceme.",
        )
    return gone


def _below_every_run(gone: set[int], n_layers: int) -> list[tuple[int, int]]:
    """(layer, how many above it are gone), the highest first."""
    if 0 in gone:
        raise UnsupportedModel(
            "Removed layers were to be merged into the layer below them.",
            "The plan removes the lowest layer, which has none below it.",
            "Keep the first layer, or use a correction of the stream, such as replaceme.",
        )
    found: list[tuple[int, int]] = []
    for i in range(n_layers):
        if i not in gone:
            found.append((i, 0))
        else:
            found[-1] = found[-1][0], found[-1][1] + 1
    return [(base, n) for base, n in reversed(found) if n]


def _another_plan(steps: str, plan: PruningPlan) -> BadInput:
    removed = ", ".join(str(i) for i in sorted({b.layer for b in plan.removed}))
    return BadInput(
        f"Layers were to be merged by the steps {steps}.",
        f"They do not come to what the plan removes: layer {removed}.",
        "Give the steps that the search wrote for this plan, or none.",
    )
