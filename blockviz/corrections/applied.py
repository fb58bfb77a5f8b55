"""A fitted repair put into a model."""

from __future__ import annotations

from blockviz.corrections.base import Repair
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel


def repaired_model(model: BlockModel, repair: Repair) -> RepairedModel:
    """The model without the plan's blocks and with the repair in it; `model` is left as it is."""
    found = RepairedModel(model, repair.plan, revived=repair.revived)
    for block, tensors in repair.weights.items():
        found.put_weights(block, tensors)
    for block, writing in repair.writers.items():
        found.put_writer(block, writing.weight, writing.bias)
    for block, module in repair.inputs.items():
        found.put_input(block, module)
    for block, module in repair.maps.items():
        found.put_map(block, module)
    return found
