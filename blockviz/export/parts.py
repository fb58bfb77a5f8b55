"""What an export is made of: a model, what it lacks, and what makes up for that."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from blockviz.corrections.base import Repair
from blockviz.corrections.sparsifying import NoCorrection
from blockviz.errors import UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.types import BlockId, PruningPlan


def no_repair(plan: PruningPlan) -> Repair:
    """A repair of a plan that changes nothing."""
    return Repair(NoCorrection(), plan)


def joined(whole: BlockModel, repair: Repair) -> Repair:
    """The repair, with what the model lacked before and with the maps that it had before."""
    absent = whole.info.absent
    plan = replace(repair.plan, removed=(*absent, *repair.plan.removed))
    maps, inputs = (getattr(whole, name, {}) for name in ("maps", "inputs"))
    return replace(
        repair, plan=plan, maps={**maps, **repair.maps}, inputs={**inputs, **repair.inputs}
    )


def in_weights(
    whole: BlockModel, repair: Repair, *, revived: tuple[BlockId, ...] = ()
) -> RepairedModel:
    """The model without the plan's blocks, with all of a joined repair but its maps."""
    model = RepairedModel(whole, repair.plan, revived=(*repair.revived, *revived))
    if getattr(whole, "maps", {}) or getattr(whole, "inputs", {}):
        for module in model.module.modules():
            _unhook(module)
    for block, tensors in repair.weights.items():
        model.put_weights(block, tensors)
    for block, writing in repair.writers.items():
        model.put_writer(block, writing.weight, writing.bias)
    return model


def _unhook(module: nn.Module) -> None:
    module._forward_hooks.clear()
    module._forward_pre_hooks.clear()


def sharing(model: BlockModel, *others: BlockModel) -> dict[int, object]:
    """What copies of the models' modules hold in common: all tensors, and one config of theirs."""
    models = (model, *others)
    kept: dict[int, object] = {
        id(t): t for m in models for t in (*m.module.parameters(), *m.module.buffers())
    }
    config = copy.deepcopy(model.module.config)
    return kept | {id(m.module.config): config for m in models}


def copied(module: nn.Module, shared: dict[int, object]) -> nn.Module:
    """A new copy each time: what was copied once is not handed out again."""
    return copy.deepcopy(module, dict(shared))


def no_place(block: BlockId, why: str) -> UnsupportedModel:
    """A map of the stream for which stock weights have none."""
    return UnsupportedModel(
        f"A repair was to be put into stock weights; at {block} it maps the stream.",
        why,
        "Export as custom, which carries such maps, or use a repair of weights such as "
        "writer_refit.",
    )


def gain_offset(norm: nn.Module) -> float:
    """1 where a norm multiplies by 1 + weight, 0 where by weight."""
    bare = copy.deepcopy(norm).float()
    with torch.no_grad():
        for tensor in bare.parameters():
            tensor.zero_()
        ramp = torch.arange(1.0, 1.0 + len(bare.weight), device=bare.weight.device)
        return 1.0 if bool(bare(ramp).any()) else 0.0
