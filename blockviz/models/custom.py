"""Custom exports: the class that they are, whether a config describes one, and one opened again."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from blockviz.errors import UnsupportedModel
from blockviz.models.absence import AbsentAttention, AbsentMlp, AbsentNorm
from blockviz.models.families import Family
from blockviz.models.model import renumber, trim_config
from blockviz.models.modeling_blockviz import (
    MAPS,
    MappedNorm,
    MappedStream,
    NoAttention,
    NoMlp,
    Pruned,
)
from blockviz.types import BlockId

SCHEMA = "blockviz/custom/1"
FILE, CLASS = "modeling_blockviz.py", "BlockvizForCausalLM"
AUTO_MAP = {"AutoModelForCausalLM": f"{FILE.removesuffix('.py')}.{CLASS}"}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}(\.[a-z][a-z0-9_]{0,40}){0,3}")
_KINDS = frozenset(kind.__name__ for kind in MAPS)


def class_of(stock: type) -> type:
    """What the modelling file of a custom export defines, for this class of transformers."""
    return type(CLASS, (Pruned, stock), {"stock": stock})


def class_of_config(config: Mapping[str, Any]) -> type:
    """The same by a checked config; UnsupportedModel where transformers has no such family."""
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config["model_type"], "")
    stock = getattr(transformers, name, None)
    if stock is None:
        raise UnsupportedModel(
            "A custom export was to be loaded.",
            f"transformers has no class for {config['model_type'][:40]!r}.",
            "Load it with the version of blockviz that wrote it.",
        )
    return class_of(stock)


def is_custom(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a custom export, to the last of its settings."""
    spec, n_layers = config.get("blockviz"), config.get("num_hidden_layers", config.get("n_layer"))
    if not isinstance(spec, Mapping) or spec.get("schema") != SCHEMA:
        return False
    if config.get("auto_map") != AUTO_MAP or not isinstance(config.get("model_type"), str):
        return False
    keys = {"schema", "layers", "attn", "mlp", "attn_norms", "mlp_norms", "norm", "front", "stack"}
    if set(spec) != keys or not _is_list(spec["stack"]) or not _is_list(spec["front"]):
        return False
    names = [spec["layers"], spec["attn"], spec["mlp"], spec["norm"]]
    for part in ("attn_norms", "mlp_norms"):
        names += spec[part] if _is_list(spec[part]) else [None]
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        return False
    items = [*spec["front"], *(item for entry in spec["stack"] for item in _items(entry))]
    return len(spec["stack"]) == n_layers and all(map(_is_item, items))


def _items(entry: Any) -> Iterator[Any]:
    """Everything behind one layer, and what its blocks read through; None where it is damaged."""
    keys = {"has_mlp", "attn_map", "mlp_map", "behind"}
    if not isinstance(entry, Mapping) or set(entry) != keys or not _is_list(entry["behind"]):
        yield None
        return
    if not isinstance(entry["has_mlp"], bool):
        yield None
    yield from entry["behind"]
    yield from (entry[name] for name in ("attn_map", "mlp_map") if entry[name] is not None)


def _is_item(item: Any) -> bool:
    if not isinstance(item, Mapping):
        return False
    if item.get("kind") == "mlp":
        return set(item) == {"kind", "map"} and (item["map"] is None or _is_map(item["map"]))
    return _is_map(item)


def _is_map(item: Any) -> bool:
    if not isinstance(item, Mapping) or set(item) != {"kind", "shapes", "has_norm"}:
        return False
    if item["kind"] not in _KINDS or not isinstance(item["has_norm"], bool):
        return False
    shapes = item["shapes"]
    return isinstance(shapes, Mapping) and all(
        isinstance(name, str)
        and _is_list(shape)
        and 1 <= len(shape) <= 2
        and all(type(n) is int and 0 < n <= 1 << 17 for n in shape)
        for name, shape in shapes.items()
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


@dataclass
class Flat:
    """A custom export as layers of one attention block and one MLP each, stand-ins included.

    module: of the class of transformers; maps, inputs: what RepairedModel.put_map and put_input
    are to put where.
    """

    module: nn.Module
    maps: dict[BlockId, nn.Module] = field(default_factory=dict)
    inputs: dict[BlockId, nn.Module] = field(default_factory=dict)


def flattened(module: nn.Module, family: Family) -> Flat:
    """A loaded custom export, its weights shared, every lone MLP in a layer of its own."""
    shared = {id(t): t for t in (*module.parameters(), *module.buffers())}
    made = copy.deepcopy(module, shared)
    made.__class__ = type(module).stock
    flat, slots, hosts = Flat(made), [], []
    layers = made.get_submodule(family.layers)
    front = layers[0].front
    if len(front) and isinstance(front[0], MappedStream):
        # A map of the embeddings stands behind a layer without blocks.
        slots.append(_empty(layers[0], family))
        hosts.append(0)
    for host, layer in enumerate(layers):
        behind, before = layer.behind, front if host == 0 else ()
        for item in (*before, layer, *behind):
            if isinstance(item, MappedStream):
                flat.maps[BlockId(len(slots) - 1, "mlp")] = item.blockviz_map
                continue
            slots.append(item)
            hosts.append(host)
        _disconnected(layer)
    for index, layer in enumerate(slots):
        _plain(layer, index, family, flat)
    parent, _, name = family.layers.rpartition(".")
    setattr(made.get_submodule(parent), name, nn.ModuleList(slots))
    del made.config.blockviz
    if hasattr(made.config, "auto_map"):
        del made.config.auto_map
    trim_config(made.config, hosts)
    renumber(made.get_submodule(family.layers))
    return flat


def _empty(layer: nn.Module, family: Family) -> nn.Module:
    """A layer of the same kind without either block."""
    spare = copy.deepcopy(layer, {id(layer.behind): nn.ModuleList()})
    _disconnected(spare)
    setattr(spare, family.attn, NoAttention())
    setattr(spare, family.mlp, NoMlp())
    return spare


def _disconnected(layer: nn.Module) -> None:
    """The layer runs nothing but itself."""
    layer._forward_hooks.clear()
    layer._forward_hooks_with_kwargs.clear()
    layer._forward_pre_hooks.clear()
    layer._forward_pre_hooks_with_kwargs.clear()
    for name in ("front", "behind"):
        if hasattr(layer, name):
            delattr(layer, name)


def _plain(layer: nn.Module, index: int, family: Family, flat: Flat) -> None:
    """Our own stand-ins where blocks are missing; what a block reads through is noted."""
    for part, gone in (("attn", NoAttention), ("mlp", NoMlp)):
        if isinstance(layer.get_submodule(family.module(part)), gone):
            stand_in = AbsentAttention(index) if part == "attn" else AbsentMlp()
            setattr(layer, family.module(part), stand_in)
            for name in family.norms(part):
                setattr(layer, name, AbsentNorm())
        path = next(iter(family.norms(part)), "")
        norm = layer.get_submodule(path)
        if isinstance(norm, MappedNorm):
            setattr(layer, path, norm.norm)
            flat.inputs[BlockId(index, part)] = norm.blockviz_map
