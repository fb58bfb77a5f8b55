"""A model without a plan's blocks, and with what makes up for them.

It is a model of its own: everything that runs a model runs it, and the one it comes from is left as
it is. Layers and their numbers stay, what is not changed is shared.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from blockviz.errors import UnsupportedModel
from blockviz.models.model import BlockModel, take_out, unwrap
from blockviz.models.writers import is_turned, writer
from blockviz.types import BlockId, PruningPlan


class RepairedModel(BlockModel):
    """`maps`: block -> what the stream behind it goes through; `inputs`: block -> the same for what
    it reads, behind its norm; `writers`: block -> (weight (out, in), bias or None) that were put
    in. A parallel layer's map stands behind its MLP, removed or not.
    """

    def __init__(
        self, model: BlockModel, plan: PruningPlan, *, revived: tuple[BlockId, ...] = ()
    ) -> None:
        plan.check(model.info)
        shared = {id(t): t for t in (*model.module.parameters(), *model.module.buffers())}
        module = copy.deepcopy(model.module, shared)
        super().__init__(module, model.tokenizer, model.family, model.info)
        self.plan, self.revived = plan, frozenset(part for b in revived for part in b.parts)
        self.maps: dict[BlockId, nn.Module] = {}
        self.inputs: dict[BlockId, nn.Module] = {}
        self.writers: dict[BlockId, tuple[torch.Tensor, torch.Tensor | None]] = {}
        self._mapped: dict[int, _MappedLayer] = {}
        for block in plan.removed:
            for part in set(block.parts) - self.revived:
                take_out(self.layers[part.layer], self.family, part)

    @property
    def n_added(self) -> int:
        """Parameters that a stock model has no place for."""
        modules = (*self.maps.values(), *self.inputs.values())
        added = sum(t.numel() for m in modules for t in (*m.parameters(), *m.buffers()))
        return added + self.info.parameters_of(tuple(self.revived))

    def put_map(self, block: BlockId, module: nn.Module) -> None:
        """From now on the stream behind the block is module(stream), in float32."""
        if self.family.is_parallel and block.part == "attn":
            raise ValueError("both blocks of a parallel layer are added at once, behind its MLP")
        if block.layer not in self._mapped:
            self._mapped[block.layer] = _MappedLayer(self, block.layer)
        self.maps[block] = module.to(self.device)

    def put_input(self, block: BlockId, module: nn.Module) -> None:
        """From now on the block reads module(what its norm gives), in float32."""
        if block not in self.inputs:
            part = self.part(block)
            part.register_forward_pre_hook(_InputHook(self.inputs, block), with_kwargs=True)
        self.inputs[block] = module.to(self.device)

    def put_writer(
        self, block: BlockId, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> None:
        """Give the block's last linear map another (out, in) weight; bias None leaves its own.

        UnsupportedModel where a norm follows it, or where a bias has no place.
        """
        module = linear_writer(self, block)
        if bias is not None and module.bias is None:
            raise UnsupportedModel(
                f"A bias was to be added to what {block} writes.",
                f"{type(module).__name__} of {self.info.name} has none.",
                "Use a correction without a bias.",
            )
        kept = (weight.T if is_turned(module) else weight).to(module.weight)
        module.weight = nn.Parameter(kept.contiguous(), requires_grad=False)
        if bias is not None:
            module.bias = nn.Parameter(bias.to(module.bias), requires_grad=False)
        self.writers[block] = (weight, bias)

    def put_weights(self, block: BlockId, tensors: Mapping[str, torch.Tensor]) -> None:
        """Give parameters of the block's layer, by their path below it, other numbers."""
        for path, tensor in tensors.items():
            name, _, attribute = path.rpartition(".")
            module = self.layers[block.layer].get_submodule(name)
            kept = tensor.to(getattr(module, attribute))
            setattr(module, attribute, nn.Parameter(kept.contiguous(), requires_grad=False))


def linear_writer(model: BlockModel, block: BlockId) -> nn.Module:
    """The writer of a block whose output joins the stream as it is; UnsupportedModel otherwise."""
    family = model.family
    if family.join(block.part) != family.module(block.part):
        raise UnsupportedModel(
            f"What {block} writes was to be changed.",
            f"In {family.name} a norm follows it, so that no change of it is a linear one.",
            "Use a correction of the stream, such as ridge or asc.",
        )
    return writer(model, block)


class _MappedLayer:
    """Follows the stream through one layer and sends it through the maps that stand there."""

    def __init__(self, model: RepairedModel, index: int) -> None:
        self.maps: Mapping[BlockId, nn.Module] = model.maps
        self.index = index
        layer, family = model.layers[index], model.family
        layer.register_forward_pre_hook(self.enter, with_kwargs=True)
        layer.get_submodule(family.attn_join).register_forward_hook(self.attn)
        layer.get_submodule(family.mlp_join).register_forward_hook(self.mlp)
        # However the layer ends, no stream outlives the call.
        layer.register_forward_hook(self.leave, always_call=True)

    def enter(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.stream = args[0] if args else kwargs["hidden_states"]

    def attn(self, _module: nn.Module, _args: tuple, output: Any) -> Any:
        return self._joined("attn", output)

    def mlp(self, _module: nn.Module, _args: tuple, output: Any) -> Any:
        return self._joined("mlp", output)

    def leave(self, *_called: Any) -> None:
        self.stream = None

    def _joined(self, part: str, output: Any) -> Any:
        """The block's output, changed so that the stream behind it is the map's."""
        update = unwrap(output)
        stream = self.stream + update
        module = self.maps.get(BlockId(self.index, part))
        if module is not None:
            wide = stream.float()
            update = update + (module(wide) - wide).to(update.dtype)
            stream = self.stream + update
        self.stream = stream
        return update if isinstance(output, torch.Tensor) else (update, *output[1:])


class _InputHook:
    """Changes what a block reads; looks the map up each time, so that it may be put in anew."""

    def __init__(self, inputs: Mapping[BlockId, nn.Module], block: BlockId) -> None:
        self.inputs, self.block = inputs, block

    def __call__(self, _module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        hidden = args[0] if args else kwargs["hidden_states"]
        changed = self.inputs[self.block](hidden.float()).to(hidden.dtype)
        if args:
            return (changed, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": changed}
