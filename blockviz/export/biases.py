"""Biases where a stock model has a place for them, asked for in its config."""

from __future__ import annotations

import torch
from torch import nn

from blockviz.errors import UnsupportedModel
from blockviz.models.families import Family
from blockviz.models.repaired import RepairedModel, linear_writer
from blockviz.models.writers import writer
from blockviz.types import BlockId


def add_bias(model: RepairedModel, block: BlockId, shift: torch.Tensor) -> None:
    """The block adds shift (hidden,) besides; UnsupportedModel where no bias can say so."""
    _add(model, block, linear_writer(model, block), shift)


def add_read_bias(model: RepairedModel, block: BlockId, shift: torch.Tensor) -> None:
    """All that reads the block's input reads shift (hidden,) besides, as a bias of W shift."""
    last = writer(model, block)
    for module in model.part(block).modules():
        if isinstance(module, nn.Linear) and module is not last:
            _add(model, block, module, module.weight.float() @ shift)


def complete_biases(module: nn.Module, family: Family) -> None:
    """Where the config says that every linear map of a part has a bias, those without get zeros."""
    for part in ("attn", "mlp"):
        key = family.bias_key(part)
        if not key or not getattr(module.config, key):
            continue
        for layer in module.get_submodule(family.layers):
            for found in layer.get_submodule(family.module(part)).modules():
                if isinstance(found, nn.Linear) and found.bias is None:
                    found.bias = _zeros(found)


def make_bias(model: RepairedModel, block: BlockId, module: nn.Module) -> None:
    """The module has a bias from now on; UnsupportedModel where its family has none."""
    if module.bias is not None:
        return
    key = model.family.bias_key(block.part)
    if not key:
        raise UnsupportedModel(
            f"A constant was to be put into a bias of {block}.",
            f"In {model.family.name} there is none.",
            "Export as custom, or as a Llama where that is offered, or use a repair of weights "
            "such as writer_refit.",
        )
    setattr(model.module.config, key, True)
    module.bias = _zeros(module)


def _add(model: RepairedModel, block: BlockId, module: nn.Module, shift: torch.Tensor) -> None:
    make_bias(model, block, module)
    wide = module.bias.float() + shift.to(module.bias.device)
    module.bias = nn.Parameter(wide.to(module.bias), requires_grad=False)


def _zeros(module: nn.Linear) -> nn.Parameter:
    return nn.Parameter(module.weight.new_zeros(module.out_features), requires_grad=False)
