"""A repair moved into weights that a stock checkpoint has, as far as that is exact.

Maps of the whole stream have no such place: upstream norms would notice. What has one: a factor for
the whole stream (its norms do not notice), a constant, a map by channel of what a block reads, any
map in front of the first block, and a map of the normed stream where an MLP was.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from blockviz.corrections.base import Repair
from blockviz.corrections.places import Stretch, stretches_of
from blockviz.export.biases import add_bias, add_read_bias
from blockviz.export.parts import gain_offset, in_weights, joined, no_place
from blockviz.export.slots import MlpSlot, slot_of
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import Channels, Residual, Shift
from blockviz.models.repaired import RepairedModel, linear_writer
from blockviz.types import BlockId


@dataclass(frozen=True)
class Folded:
    """model: without maps, everything in its weights; removed: what it lacks, fewer than the plan's
    where an MLP stands for a map again; rules: what was done, a sentence each; is_scaled: whether
    the whole stream was scaled, which the epsilon of a norm notices a little."""

    model: RepairedModel
    removed: tuple[BlockId, ...]
    rules: tuple[str, ...] = ()
    is_scaled: bool = False


def fold(whole: BlockModel, repair: Repair) -> Folded:
    """The whole model without the plan's blocks, its repair in weights; UnsupportedModel where a
    map has no place there."""
    repair = joined(whole, repair)
    n, is_parallel = whole.info.n_layers, whole.family.is_parallel
    stretches = {s.last: s for s in stretches_of(repair.plan, n, is_parallel=is_parallel) if s.gap}
    slots = {
        block: slot_of(whole, stretches[block], module)
        for block, module in repair.maps.items()
        if block in stretches and not _is_affine(module) and stretches[block].alive
    }
    model = in_weights(whole, repair, revived=tuple(slot.block for slot in slots.values()))
    work = _Folding(model, slots, stretches)
    for block, module in repair.inputs.items():
        work.read(block, module)
    for block, module in repair.maps.items():
        work.mapped(block, module)
    work.scale_all()
    removed = tuple(b for b in repair.plan.removed if b not in model.revived)
    return Folded(model, removed, tuple(dict.fromkeys(work.rules)), work.is_scaled)


def _is_affine(module: nn.Module) -> bool:
    """A constant, or one factor for all channels with or without a constant."""
    return isinstance(module, Shift) or (
        isinstance(module, Channels) and bool((module.scale == module.scale.flatten()[0]).all())
    )


class _Folding:
    """What is folded so far; factors wait until the end, when nothing else comes any more."""

    def __init__(
        self,
        model: RepairedModel,
        slots: dict[BlockId, MlpSlot],
        stretches: dict[BlockId, Stretch],
    ) -> None:
        self.model, self.slots, self.stretches = model, slots, stretches
        self.rules: list[str] = []
        self.factors: dict[BlockId, float] = {}

    @property
    def is_scaled(self) -> bool:
        return bool(self.factors)

    def mapped(self, block: BlockId, module: nn.Module) -> None:
        stretch = self.stretches.get(block)
        if block in self.slots:
            self.slots[block].fill(self.model)
            self.rules.append("maps of the normed stream stand where an MLP was")
        elif stretch is None:
            raise no_place(block, "It stands where nothing was removed.")
        elif _is_affine(module) and (stretch.alive or module.shift is None):
            self._affine(block, stretch, module)
        else:
            self._embed(block, module)

    def _affine(self, block: BlockId, stretch: Stretch, module: nn.Module) -> None:
        """alpha u + beta = alpha (u + beta / alpha): the constant first, behind it the factor."""
        factor = float(module.scale.flatten()[0]) if isinstance(module, Channels) else 1.0
        if factor <= 0:
            raise no_place(block, "Its factor is not above 0.")
        if module.shift is not None:
            add_bias(self.model, stretch.alive[-1], module.shift / factor)
            self.rules.append("constants became biases of the blocks in front")
        if factor != 1.0 and not self.model.family.is_prenormed:
            raise no_place(block, "Blocks read the stream as it is, so that they notice a factor.")
        if factor != 1.0:
            self.factors[block] = factor
            self.rules.append("factors went into the embedding and all that writes in front")

    def _embed(self, block: BlockId, module: nn.Module) -> None:
        """Any map in front of the first block goes into the rows of the embedding."""
        source = self.model.module.get_input_embeddings()
        positions = _positions(self.model)
        is_linear = isinstance(module, Channels | Shift) or (
            isinstance(module, Residual) and module.norm is None
        )
        if not is_linear or (positions and not isinstance(module, Shift)):
            raise no_place(block, "What it maps is not the row of a word alone.")
        ids = torch.arange(source.weight.shape[0], device=source.weight.device)
        with torch.no_grad():
            rows = source(ids).float()
            # Some embeddings multiply their rows by a number of their own.
            unit = rows.abs().max() / source.weight.float().abs().max()
            changed = module(rows) / unit
        out = self.model.module.get_output_embeddings()
        if out.weight is source.weight:
            out.weight = nn.Parameter(source.weight.detach().clone(), requires_grad=False)
            self.model.module.config.tie_word_embeddings = False
            self.rules.append("the head, no longer tied to the embedding, is stored besides")
        source.weight = _parameter(changed, source.weight)
        self.rules.append("the map in front of the first block went into the embedding")

    def read(self, block: BlockId, module: nn.Module) -> None:
        """Channels of what a block reads: its norm's gain, and its bias or those of its readers."""
        family = self.model.family
        layer, path = self.model.layers[block.layer], family.reads(block.part)
        if not isinstance(module, Channels) or family.shared_norm or not path:
            raise no_place(block, "What it reads is not changed channel by channel, or is shared.")
        norm = layer.get_submodule(path)
        if getattr(norm, "weight", None) is None:
            raise no_place(block, "The norm that it reads through has no gain.")
        offset = gain_offset(norm)
        gain = (norm.weight.float() + offset) * module.scale - offset
        norm.weight = _parameter(gain, norm.weight)
        self.rules.append("scales of what blocks read went into the gains of their norms")
        bias = getattr(norm, "bias", None)
        if bias is not None:
            moved = bias.float() * module.scale
            norm.bias = _parameter(moved + (0 if module.shift is None else module.shift), bias)
        elif module.shift is not None and bool(module.shift.any()):
            add_read_bias(self.model, block, module.shift)
            self.rules.append("constants that blocks read became biases of what reads them")

    def scale_all(self) -> None:
        """Everything that writes the stream is scaled by the factors that come behind it.

        The stream of the folded model is the true one times all factors to come; norms take that
        off, and behind the last factor it is the true one.
        """
        if not self.factors:
            return
        family, total = self.model.family, 1.0
        for block in reversed([b.id for b in self.model.info.blocks]):
            total *= self.factors.get(block, 1.0)
            is_gone = block in self.model.plan.removed and block not in self.model.revived
            if is_gone or total == 1.0 or not self.model.info.parameters_of((block,)):
                continue
            if family.join(block.part) != family.module(block.part):
                self._scale_gain(block, total)
            else:
                scale_module(linear_writer(self.model, block), total)
        source = self.model.module.get_input_embeddings()
        out = self.model.module.get_output_embeddings()
        is_tied = out is not None and out.weight is source.weight
        source.weight = _parameter(source.weight.float() * total, source.weight)
        for module in _positions(self.model):
            module.weight = _parameter(module.weight.float() * total, module.weight)
        if is_tied:
            out.weight = source.weight
            self._scale_norm(self.model.final_norm, 1 / total)

    def _scale_gain(self, block: BlockId, factor: float) -> None:
        """Behind a post-norm only its gain counts."""
        layer = self.model.layers[block.layer]
        self._scale_norm(layer.get_submodule(self.model.family.join(block.part)), factor)

    def _scale_norm(self, norm: nn.Module, factor: float) -> None:
        offset = gain_offset(norm)
        norm.weight = _parameter((norm.weight.float() + offset) * factor - offset, norm.weight)
        if getattr(norm, "bias", None) is not None:
            norm.bias = _parameter(norm.bias.float() * factor, norm.bias)


def scale_module(module: nn.Module, factor: float) -> None:
    """Weight and bias of a writer times a factor; its parameters are replaced, not changed."""
    module.weight = _parameter(module.weight.float() * factor, module.weight)
    if getattr(module, "bias", None) is not None:
        module.bias = _parameter(module.bias.float() * factor, module.bias)


def _positions(model: BlockModel) -> list[nn.Embedding]:
    """Learned positions, which the embedding's rows are added to."""
    words = model.module.get_input_embeddings()
    found = model.module.base_model.modules()
    return [m for m in found if isinstance(m, nn.Embedding) and m is not words]


def _parameter(wide: torch.Tensor, like: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(wide.to(like).contiguous(), requires_grad=False)
