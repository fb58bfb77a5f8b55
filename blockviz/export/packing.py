"""Surviving blocks repacked into as few stock layers as run them in the same order.

Only the order in which blocks are added to the stream counts, not the layer that they stand in: an
attention block and the MLP that comes next may share a layer, wherever each of them comes from. A
block without a partner stands in a layer whose other half writes zeros.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from blockviz.errors import UnsupportedModel
from blockviz.export.biases import complete_biases
from blockviz.export.parts import copied, gain_offset, sharing
from blockviz.models.model import BlockModel, renumber, trim_config
from blockviz.models.modeling_blockviz import scatter_mlp
from blockviz.models.writers import last_tensors
from blockviz.types import BlockId, ModelInfo


@dataclass(frozen=True)
class Slot:
    """One stock layer: where its attention and its MLP come from, None where it writes zeros.

    host: the layer that it is otherwise a copy of, such as in the kind of its attention.
    """

    host: int
    attn: BlockId | None = None
    mlp: BlockId | None = None

    def of(self, part: str) -> BlockId | None:
        return self.attn if part == "attn" else self.mlp


def packed(
    removed: Iterable[BlockId], n_layers: int, *, is_parallel: bool = False
) -> tuple[Slot, ...]:
    """The fewest layers that add the surviving blocks in order: #alive - #(attention then MLP).

    Where both blocks of a layer read the same stream no others can be paired: a layer stays while
    one of them does.
    """
    gone = {part for b in removed for part in b.parts}
    alive = [
        part for i in range(n_layers) for part in BlockId(i, "layer").parts if part not in gone
    ]
    slots: list[Slot] = []
    for block in alive:
        last = slots[-1] if slots else Slot(0)
        fits = block.part == "mlp" and last.attn is not None and last.mlp is None
        if fits and (not is_parallel or last.attn.layer == block.layer):
            slots[-1] = replace(last, mlp=block)
        else:
            slots.append(Slot(block.layer, **{block.part: block}))
    return tuple(slots)


def zeroed(removed: Iterable[BlockId], n_layers: int) -> tuple[Slot, ...]:
    """Every layer where it was, half of it silent where that half is gone."""
    gone = {part for b in removed for part in b.parts}
    return tuple(
        Slot(i, *(None if part in gone else part for part in BlockId(i, "layer").parts))
        for i in range(n_layers)
    )


def stored_parameters(info: ModelInfo, slots: Iterable[Slot]) -> int:
    """What a stock checkpoint with these layers holds: silent halves take their room too.

    UnsupportedModel where blocks of one part differ in size, so that a silent one has none.
    """
    sizes = {part: {b.n_parameters for b in info.blocks if b.id.part == part and b.n_parameters}
             for part in ("attn", "mlp")}  # fmt: skip
    if any(len(found) != 1 for found in sizes.values()):
        raise UnsupportedModel(
            f"The size of an export of {info.name} was wanted.",
            "Its layers are not of one size.",
            "Export it as custom.",
        )
    a_layer = sum(next(iter(found)) for found in sizes.values()) + info.blocks[1].n_shared
    rest = info.n_parameters - info.parameters_of(b.id for b in info.blocks)
    return rest + a_layer * len(tuple(slots))


def stock_parameters(model: BlockModel, removed: Iterable[BlockId]) -> int | None:
    """What the smallest stock checkpoint without these blocks holds; None where there is none."""
    info = model.info
    gone = (*removed, *info.absent)
    slots = packed(gone, info.n_layers, is_parallel=model.family.is_parallel)
    try:
        return stored_parameters(info, slots)
    except UnsupportedModel:
        return None


def stock_module(model: BlockModel, whole: BlockModel, slots: tuple[Slot, ...]) -> nn.Module:
    """The library's own model class with these layers, its config trimmed; weights are shared.

    model: has the surviving blocks, with their repair in their weights, and all that is no layer;
    whole: the original, whose modules stand where a half is silent, set to 0 what they write with:
    their last matrix and bias, or the gain and bias of the norm behind it. UnsupportedModel where
    nothing of that kind is known, and where what a layer computes hangs on its number.
    """
    check_numbering(model)
    family = model.family
    shared = sharing(model, whole)
    made, hosts = [], []
    for slot in slots:
        host = slot.host if slot.attn is not None else _nearest(whole, slot.host, "attn")
        layer = copied(whole.layers[host], shared)
        for part in ("attn", "mlp"):
            source = slot.of(part)
            if source is None:
                _silence(whole, BlockId(_nearest(whole, host, part), part), layer, shared)
            else:
                put_block(layer, model, source, shared)
        made.append(layer)
        hosts.append(host)
    # Wherever the copy meets the layers it takes these.
    module = copied(model.module, {**shared, id(model.layers): nn.ModuleList(made)})
    trim_config(module.config, hosts)
    renumber(module.get_submodule(family.layers))
    complete_biases(module, family)
    for layer in module.get_submodule(family.layers):
        scatter_mlp(layer)
    return module


def put_block(
    layer: nn.Module, model: BlockModel, block: BlockId, shared: dict[int, object]
) -> None:
    """A copy of the block and its norms into another layer; what `shared` holds is not copied."""
    family, donor = model.family, model.layers[block.layer]
    for path in (family.module(block.part), *family.norms(block.part)):
        _put(layer, path, copied(donor.get_submodule(path), shared))


def check_numbering(model: BlockModel) -> None:
    """UnsupportedModel where what a layer computes hangs on its number, which an export changes."""
    config = model.module.config
    asked = f"An export of {model.info.name} was asked for."
    if getattr(config, "scale_attn_by_inverse_layer_idx", False):
        raise UnsupportedModel(
            asked,
            "Its attention is scaled by the number of its layer, which removing others changes.",
            "Use a model without scale_attn_by_inverse_layer_idx.",
        )
    if getattr(config, "mlp_only_layers", None) or getattr(config, "decoder_sparse_step", 1) != 1:
        raise UnsupportedModel(
            asked,
            "The numbers of its layers say which of them have experts, and removing others changes "
            "them.",
            "Use a model with experts in every layer.",
        )


def _nearest(whole: BlockModel, index: int, part: str) -> int:
    """The layer nearest to this one that has such a block."""
    gone = whole.info.absent
    having = [i for i in range(whole.info.n_layers) if BlockId(i, part) not in gone]
    if not having:
        raise UnsupportedModel(
            f"A stock export of {whole.info.name} was asked for.",
            "None of its layers has both kinds of blocks.",
            "Export it as custom.",
        )
    return min(having, key=lambda i: abs(i - index))


def _silence(
    whole: BlockModel, block: BlockId, layer: nn.Module, shared: dict[int, object]
) -> None:
    """The block, put into a copied layer, adds nothing there."""
    put_block(layer, whole, block, shared)
    family, part = whole.family, block.part
    join = layer.get_submodule(family.join(part))
    if family.join(part) != family.module(part):
        _fill(join, "weight", -gain_offset(join))
        last = ["bias"] if getattr(join, "bias", None) is not None else []
    else:
        last = list(last_tensors(join, part, whole.info.hidden_size))
        if not last:
            raise UnsupportedModel(
                f"{block} was to be kept without adding anything.",
                f"In {type(join).__name__} what it writes with is not under a known name.",
                "Export whole layers, or as custom.",
            )
    for path in last:
        _fill(join, path, 0.0)


def _fill(module: nn.Module, path: str, value: float) -> None:
    """Give the parameter one value; it is replaced, not changed."""
    parent, _, name = path.rpartition(".")
    owner = module.get_submodule(parent)
    filled = torch.full_like(getattr(owner, name), value)
    setattr(owner, name, nn.Parameter(filled, requires_grad=False))


def _put(layer: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(layer.get_submodule(parent) if parent else layer, name, module)
