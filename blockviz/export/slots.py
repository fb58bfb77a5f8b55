"""A map of the normed stream as an MLP, in the place of one that was removed."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from blockviz.corrections.places import Stretch
from blockviz.export.biases import make_bias
from blockviz.export.parts import no_place
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import Gated, Residual
from blockviz.models.repaired import RepairedModel
from blockviz.types import BlockId

# silu(HELD_OPEN) = 1: a gate with this bias and no weight lets everything through.
HELD_OPEN = 1.2784645427610738


@dataclass(frozen=True)
class MlpSlot:
    """block: the removed MLP whose place the map takes."""

    block: BlockId
    module: Residual | Gated

    def fill(self, model: RepairedModel) -> None:
        """Give the MLP weights with which it adds what the map adds."""
        layer = model.layers[self.block.layer]
        path = model.family.mlp_norms[0]
        if isinstance(self.module, Residual):
            norm = copy.deepcopy(self.module.norm).to(layer.get_submodule(path).weight.dtype)
            self._open_gate(model, layer.get_submodule(model.family.mlp))
        else:
            norm = copy.deepcopy(layer.get_submodule(path))
            norm.weight = nn.Parameter(torch.ones_like(norm.weight), requires_grad=False)
            self._gated(layer.get_submodule(model.family.mlp))
        setattr(layer, path, norm)

    def _open_gate(self, model: RepairedModel, mlp: nn.Module) -> None:
        matrix, size = self.module.matrix.float(), len(self.module.matrix)
        dtype = mlp.up_proj.weight.dtype
        held = torch.tensor(HELD_OPEN).to(dtype)
        through = functional.silu(held.float())
        up, down = _none(mlp.up_proj), _none(mlp.down_proj)
        up[:size] = torch.eye(size, device=up.device)
        down[:, :size] = matrix.T / through
        _put(mlp, gate_proj=_none(mlp.gate_proj), up_proj=up, down_proj=down)
        for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
            make_bias(model, self.block, module)
        shift = self.module.shift
        for module, value in (
            (mlp.gate_proj, torch.full_like(mlp.gate_proj.bias, float(held))),
            (mlp.up_proj, torch.zeros_like(mlp.up_proj.bias)),
            (mlp.down_proj, torch.zeros(size) if shift is None else shift),
        ):
            module.bias = nn.Parameter(value.to(module.bias), requires_grad=False)

    def _gated(self, mlp: nn.Module) -> None:
        width = self.module.gate.shape[1]
        gate, up, down = (_none(m) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        gate[:width], up[:width] = self.module.gate.T, self.module.up.T
        down[:, :width] = self.module.down.T
        _put(mlp, gate_proj=gate, up_proj=up, down_proj=down)
        for module in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
            if module.bias is not None:
                module.bias = nn.Parameter(torch.zeros_like(module.bias), requires_grad=False)


def slot_of(whole: BlockModel, stretch: Stretch, module: nn.Module) -> MlpSlot:
    """Where the map can stand; UnsupportedModel where there is no such place."""
    is_normed = isinstance(module, Residual) and module.norm is not None
    places = [b for b in stretch.gap if b.part == "mlp" and whole.info.parameters_of((b,))]
    if not is_normed and not isinstance(module, Gated):
        raise no_place(stretch.last, "A map of the whole stream is no linear map of what is added.")
    if not places:
        raise no_place(stretch.last, "No MLP was removed there, whose place it could take.")
    mlp, family = whole.part(places[-1]), whole.family
    parts = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    is_gated = all(isinstance(part, nn.Linear) for part in parts)
    activation = getattr(whole.module.config, "hidden_act", "")
    if not is_gated or activation not in ("silu", "swish") or family.mlp_join != family.mlp:
        raise no_place(places[-1], f"An MLP of {family.name} cannot compute it.")
    width = len(module.matrix) if is_normed else module.gate.shape[1]
    if width > parts[1].out_features:
        raise no_place(places[-1], f"It needs a width of {width}, the MLP has less.")
    if is_normed and parts[0].bias is None and not family.mlp_bias_key:
        raise no_place(places[-1], f"It needs biases, which an MLP of {family.name} has not.")
    return MlpSlot(places[-1], module)


def _none(module: nn.Linear) -> torch.Tensor:
    return torch.zeros_like(module.weight, dtype=torch.float32)


def _put(mlp: nn.Module, **weights: torch.Tensor) -> None:
    for name, weight in weights.items():
        module = getattr(mlp, name)
        module.weight = nn.Parameter(weight.to(module.weight), requires_grad=False)
