"""What is trained to stand in for a gap: a decoder layer, or a small gated network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch.func import functional_call

from blockviz.corrections.base import Repair
from blockviz.corrections.places import Stretch
from blockviz.corrections.rows import Rows, mapped
from blockviz.errors import UnsupportedModel
from blockviz.models.absence import replaced
from blockviz.models.model import BlockModel, unwrap
from blockviz.models.modeling_blockviz import Gated
from blockviz.models.stage import Stage
from blockviz.types import BlockId

Tensors = Mapping[str, torch.Tensor]


class Network(Protocol):
    """n_blocks: how many blocks it takes as long as; n_numbers: how many are trained."""

    n_blocks: int
    n_numbers: int

    def leaves(self) -> Tensors:
        """What is trained: its numbers so far in float32, copied."""

    def missed(self, leaves: Tensors, row: Rows, front: torch.Tensor) -> torch.Tensor:
        """The sum of squares between what the leaves make of a stream and the whole model's."""

    def applied(self, row: Rows, stream: torch.Tensor) -> torch.Tensor:
        """The stream behind the gap as a repaired model has it, by what is kept so far."""

    def keep(self, tensors: Tensors) -> None:
        """From now on these numbers are the network's."""

    def put_into(self, repair: Repair, block: BlockId) -> Repair:
        """The repair with the network behind the gap that ends with this block."""


def network_of(
    kind: str, model: BlockModel, stretch: Stretch, width: int, generator: torch.Generator
) -> Network:
    """An untrained one; UnsupportedModel where the gap does not hold two whole layers for one."""
    if kind == "layer":
        return _Layer(model, _first_of_several(stretch.gap))
    return _Mlp(model, width, generator)


def _first_of_several(gap: tuple[BlockId, ...]) -> int:
    layers = sorted({b.layer for b in gap if {*BlockId(b.layer, "layer").parts} <= {*gap}})
    if len(layers) < 2:
        raise UnsupportedModel(
            f"A layer was to be trained in place of {', '.join(map(str, gap))}.",
            "That gap does not hold two whole layers, so that nothing would be saved.",
            "Use llm_streamline:network=mlp, or a plan that removes neighbouring layers.",
        )
    return layers[0]


class _Layer:
    """A removed layer that stands after all, and learns what the ones behind it did."""

    n_blocks = 2

    def __init__(self, model: BlockModel, index: int) -> None:
        self._model, self._index, self._layer = model, index, model.layers[index]
        self._kept = {name: tensor.detach() for name, tensor in self._layer.named_parameters()}
        self.n_numbers = sum(tensor.numel() for tensor in self._kept.values())

    def leaves(self) -> Tensors:
        return _copied(self._kept)

    def missed(self, leaves: Tensors, row: Rows, front: torch.Tensor) -> torch.Tensor:
        cast = {name: leaf.to(self._model.dtype) for name, leaf in leaves.items()}
        return _squares(row, self._run(row, front, cast).float())

    @torch.no_grad()
    def applied(self, row: Rows, stream: torch.Tensor) -> torch.Tensor:
        return self._run(row, stream, self._kept)

    def keep(self, tensors: Tensors) -> None:
        self._kept = {name: tensor.to(self._model.dtype) for name, tensor in tensors.items()}

    def put_into(self, repair: Repair, block: BlockId) -> Repair:
        parts, weights = BlockId(self._index, "layer").parts, dict(repair.weights)
        for part in parts:
            weights[part] = {n: t for n, t in self._kept.items() if self._is_of(part, n)}
        return replace(repair, weights=weights, revived=(*repair.revived, *parts))

    def _is_of(self, block: BlockId, path: str) -> bool:
        family = self._model.family
        heads = (family.attn, *family.attn_norms)
        return (block.part == "attn") == any(path.startswith(f"{head}.") for head in heads)

    def _run(self, row: Rows, stream: torch.Tensor, weights: Tensors) -> torch.Tensor:
        args, kwargs = _called(row.whole_stage, self._index, stream)
        return unwrap(functional_call(self._layer, dict(weights), args, kwargs))


class _Mlp:
    """A Gated map that begins by adding nothing."""

    n_blocks = 1

    def __init__(self, model: BlockModel, width: int, generator: torch.Generator) -> None:
        size = model.info.hidden_size
        drawn = [torch.randn(size, width, generator=generator) / size**0.5 for _ in range(2)]
        made = dict(zip(("gate", "up", "down"), (*drawn, torch.zeros(width, size)), strict=True))
        self._kept = {name: tensor.to(model.device) for name, tensor in made.items()}
        self.n_numbers = 3 * size * width

    def leaves(self) -> Tensors:
        return _copied(self._kept)

    def missed(self, leaves: Tensors, row: Rows, front: torch.Tensor) -> torch.Tensor:
        return _squares(row, Gated(**leaves)(front.float()))

    def applied(self, row: Rows, stream: torch.Tensor) -> torch.Tensor:
        return mapped(Gated(**self._kept), stream)

    def keep(self, tensors: Tensors) -> None:
        self._kept = tensors

    def put_into(self, repair: Repair, block: BlockId) -> Repair:
        return replace(repair, maps={**repair.maps, block: Gated(**self._kept)})


def _copied(tensors: Tensors) -> Tensors:
    wide = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
    return {name: tensor.requires_grad_() for name, tensor in wide.items()}


def _squares(row: Rows, found: torch.Tensor) -> torch.Tensor:
    wanted = row.wanted.to(found.device)
    return (found[wanted] - row.whole[wanted].float()).square().sum()


def _called(stage: Stage, index: int, stream: torch.Tensor) -> tuple[tuple, dict[str, Any]]:
    """What a stage calls a layer with, as tensors that gradients may go through."""
    found: list[tuple[tuple, dict[str, Any]]] = []

    def note(*args: Any, **kwargs: Any) -> torch.Tensor:
        found.append((args, kwargs))
        return args[0]

    with replaced([(stage.model.layers[index], note)]):
        stage.layer(index, stream)
    return _normal(found[0])


def _normal(value: Any) -> Any:
    """The same with tensors copied: what inference mode made cannot be kept for going back."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(_normal(item) for item in value)
    if isinstance(value, dict):
        return {name: _normal(item) for name, item in value.items()}
    return value
