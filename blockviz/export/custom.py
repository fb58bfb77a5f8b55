"""A plan and its repair as a custom checkpoint: half layers are gone, maps stand where they act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from blockviz.corrections.base import Repair
from blockviz.errors import UnsupportedModel
from blockviz.export.packing import check_numbering, put_block
from blockviz.export.parts import copied, in_weights, joined, no_place, sharing
from blockviz.models import modeling_blockviz as file
from blockviz.models.custom import AUTO_MAP, CLASS, SCHEMA, class_of
from blockviz.models.model import BlockModel, renumber, trim_config
from blockviz.models.repaired import RepairedModel
from blockviz.types import BlockId


@dataclass
class Attending:
    """One layer that attends: its attention, its MLP or None, and what comes behind it, each the
    block of a lone MLP or a map."""

    attn: BlockId
    mlp: BlockId | None = None
    behind: list[BlockId | nn.Module] = field(default_factory=list)


def custom_module(whole: BlockModel, repair: Repair) -> nn.Module:
    """What a custom export is saved from; weights are shared. UnsupportedModel without attention.

    An attention block and the MLP that comes next share a layer where no map stands between them.
    """
    check_numbering(whole)
    repair = joined(whole, repair)
    model = in_weights(whole, repair)
    front, stack = _stacked(model, repair.maps)
    return _Builder(model, repair.inputs).built(front, stack)


def _stacked(
    model: RepairedModel, maps: Mapping[BlockId, nn.Module]
) -> tuple[list[BlockId | nn.Module], list[Attending]]:
    gone = {*model.plan.removed} - model.revived
    front: list[BlockId | nn.Module] = []
    stack: list[Attending] = []
    for block in (b.id for b in model.info.blocks):
        last = stack[-1] if stack else None
        if block not in gone and block.part == "attn":
            stack.append(Attending(block))
        elif block not in gone:
            is_free = last is not None and last.mlp is None and not last.behind
            if is_free and (not model.family.is_parallel or last.attn.layer == block.layer):
                last.mlp = block
            else:
                (front if last is None else last.behind).append(block)
        if block in maps:
            (stack[-1].behind if stack else front).append(maps[block])
    if not stack:
        raise UnsupportedModel(
            f"A custom export of {model.info.name} was asked for.",
            "The plan leaves no attention block.",
            "Keep one, or export as stock-compact.",
        )
    return front, stack


class _Builder:
    """Copies layers of a model, and writes down what they became."""

    def __init__(self, model: RepairedModel, inputs: Mapping[BlockId, nn.Module]) -> None:
        family = model.family
        self.model, self.inputs = model, inputs
        self.shared = sharing(model)
        self.spec: dict[str, Any] = {
            "schema": SCHEMA,
            "layers": family.layers,
            "attn": family.attn,
            "mlp": family.mlp,
            "attn_norms": list(family.attn_norms),
            "mlp_norms": list(family.mlp_norms),
            "norm": family.reads("mlp") or family.mlp_norms[0],
        }

    def built(self, front: list[BlockId | nn.Module], stack: list[Attending]) -> nn.Module:
        model, family = self.model, self.model.family
        layers, entries = [], []
        for item in stack:
            layer, entry = self._attending(item)
            layers.append(layer)
            entries.append(entry)
        layers[0].front, self.spec["front"] = self._list(front)
        self.spec["stack"] = entries
        module = copied(model.module, {**self.shared, id(model.layers): nn.ModuleList(layers)})
        trim_config(module.config, [item.attn.layer for item in stack])
        renumber(module.get_submodule(family.layers))
        module.config.blockviz, module.config.auto_map = self.spec, dict(AUTO_MAP)
        module.__class__ = class_of(type(module))
        file.connect(module.get_submodule(family.layers))
        return module

    def _attending(self, item: Attending) -> tuple[nn.Module, dict[str, Any]]:
        layer = copied(self.model.layers[item.attn.layer], self.shared)
        if item.mlp is None:
            file.take_out(layer, self.spec, "mlp")
        else:
            put_block(layer, self.model, item.mlp, self.shared)
        layer.behind, behind = self._list(item.behind)
        read = {"attn": item.attn, "mlp": item.mlp}
        entry = {f"{part}_map": self._read(layer, part, block) for part, block in read.items()}
        return layer, {"has_mlp": item.mlp is not None, **entry, "behind": behind}

    def _list(self, items: list[BlockId | nn.Module]) -> tuple[nn.ModuleList, list[dict[str, Any]]]:
        made, entries = nn.ModuleList(), []
        for item in items:
            if isinstance(item, BlockId):
                layer = copied(self.model.layers[item.layer], self.shared)
                file.take_out(layer, self.spec, "attn")
                entries.append({"kind": "mlp", "map": self._read(layer, "mlp", item)})
                made.append(layer)
            else:
                entries.append(described(item))
                made.append(file.MappedStream(item))
        return made, entries

    def _read(self, layer: nn.Module, part: str, block: BlockId | None) -> dict[str, Any] | None:
        if block is None or block not in self.inputs:
            return None
        if self.model.family.reads(part) not in self.model.family.norms(part):
            raise no_place(block, "What it reads, no norm of its own gives it.")
        file.put_map(layer, self.spec, part, self.inputs[block])
        return described(self.inputs[block])


def described(module: nn.Module) -> dict[str, Any]:
    """The class of a map and the sizes of its numbers."""
    own = dict(module.named_buffers(recurse=False))
    return {
        "kind": type(module).__name__,
        "shapes": {name: list(tensor.shape) for name, tensor in own.items()},
        "has_norm": getattr(module, "norm", None) is not None,
    }


def modelling_file(stock: type) -> str:
    """The text of the modelling file of a custom export, for this class of transformers."""
    text = Path(file.__file__).read_text(encoding="utf-8")
    base = stock.__name__
    text = text.replace(
        "from torch.nn import functional\n",
        f"from torch.nn import functional\nfrom transformers import {base}\n",
    )
    return text + (
        f"\n\nclass {CLASS}(Pruned, {base}):\n"
        f'    """{base} without the blocks that config.blockviz leaves out."""\n'
    )
