"""A decoder model whose blocks can be watched, masked for a while, and removed for good."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from blockviz.models.absence import (
    AbsentAttention,
    AbsentMlp,
    AbsentNorm,
    no_attention,
    no_mlp,
    replaced,
)
from blockviz.models.families import Family
from blockviz.types import Block, BlockId, CalibrationBatch, ModelInfo, PruningPlan

OnBlock = Callable[[BlockId, torch.Tensor, torch.Tensor], None]


class BlockModel:
    """A causal language model and where its blocks are. Shared and read-only but for `masked`.

    `masked` and `watch` change nothing that outlives their `with`; `prune` gives a new model that
    shares the kept weights.
    """

    def __init__(self, module: nn.Module, tokenizer: Any, family: Family, info: ModelInfo) -> None:
        self.module, self.tokenizer, self.family, self.info = module, tokenizer, family, info
        self.layers: nn.ModuleList = module.get_submodule(family.layers)
        self.final_norm: nn.Module = module.get_submodule(family.final_norm)

    @property
    def device(self) -> torch.device:
        return self.module.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.module.dtype

    def part(self, block: BlockId) -> nn.Module:
        """The attention or MLP module of a block."""
        return self.layers[block.layer].get_submodule(self.family.module(block.part))

    def logits(self, batch: CalibrationBatch) -> torch.Tensor:
        """(batch, seq, vocab) in the model's dtype: the whole model, as the library runs it."""
        mask = batch.attention_mask
        padded = None if bool(mask.all()) else mask.to(self.device)
        with torch.inference_mode():
            ids = batch.input_ids.to(self.device)
            return self.module(input_ids=ids, attention_mask=padded, use_cache=False).logits

    @contextmanager
    def masked(self, removed: Iterable[BlockId] | PruningPlan) -> Iterator[None]:
        """Inside, the blocks are not run and add nothing; restored after, whatever happens."""
        blocks = removed.removed if isinstance(removed, PruningPlan) else removed
        forwards = [pair for b in blocks for p in b.parts for pair in self._stand_ins(p)]
        with replaced(forwards):
            yield

    def _stand_ins(self, block: BlockId) -> list[tuple[nn.Module, Callable[..., Any]]]:
        module, layer = self.part(block), self.layers[block.layer]

        def attention(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
            return no_attention(module, args, kwargs)

        def mlp(*args: Any, **kwargs: Any) -> torch.Tensor:
            return no_mlp(args, kwargs)

        norms = [(layer.get_submodule(n), _unchanged) for n in self.family.norms(block.part)]
        return [(module, attention if block.part == "attn" else mlp), *norms]

    @contextmanager
    def watch(self, on_block: OnBlock) -> Iterator[None]:
        """Inside, every forward calls `on_block(block, before, update)` for each block and layer.

        before, update: (batch, seq, hidden); the stream behind the block is `before + update`.
        A parallel-residual layer gives both its blocks the same `before`.
        """
        handles = []
        try:
            for index, layer in enumerate(self.layers):
                watcher = _LayerWatcher(index, on_block, is_parallel=self.family.is_parallel)
                join = layer.get_submodule(self.family.attn_join)
                mlp_join = layer.get_submodule(self.family.mlp_join)
                handles += [
                    layer.register_forward_pre_hook(watcher.enter, with_kwargs=True),
                    join.register_forward_hook(watcher.attn),
                    mlp_join.register_forward_hook(watcher.mlp),
                ]
            yield
        finally:
            for handle in handles:
                handle.remove()

    def prune(self, plan: PruningPlan) -> BlockModel:
        """A model without the plan's blocks, re-indexed, its config trimmed; kept weights shared.

        Layers that lose both blocks are gone; half layers keep a weightless stand-in.
        """
        plan.check(self.info)
        shared = {id(t): t for t in (*self.module.parameters(), *self.module.buffers())}
        module = copy.deepcopy(self.module, shared)
        layers = module.get_submodule(self.family.layers)
        kept = [i for i in range(len(layers)) if plan.keeps(BlockId(i, "attn"))]
        kept = sorted({*kept, *(i for i in range(len(layers)) if plan.keeps(BlockId(i, "mlp")))})
        for i in kept:
            for part in BlockId(i, "layer").parts:
                if not plan.keeps(part):
                    take_out(layers[i], self.family, part)
        parent, _, name = self.family.layers.rpartition(".")
        setattr(module.get_submodule(parent), name, nn.ModuleList(layers[i] for i in kept))
        trim_config(module.config, kept)
        renumber(module.get_submodule(self.family.layers))
        info = replace(
            self.info,
            n_layers=len(kept),
            n_parameters=self.info.n_parameters - self.info.parameters_of(plan.removed),
            blocks=tuple(_kept_blocks(self.info, plan, kept)),
        )
        return BlockModel(module, self.tokenizer, self.family, info)


class _LayerWatcher:
    """Follows the stream through one layer; keeps only the current layer's tensors."""

    def __init__(self, index: int, on_block: OnBlock, *, is_parallel: bool) -> None:
        self.index, self.on_block, self.is_parallel = index, on_block, is_parallel

    def enter(self, _module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.stream = args[0] if args else kwargs["hidden_states"]

    def attn(self, _module: nn.Module, _args: tuple, output: Any) -> None:
        self.update = unwrap(output)
        self.on_block(BlockId(self.index, "attn"), self.stream, self.update)

    def mlp(self, _module: nn.Module, _args: tuple, output: Any) -> None:
        # Falcon adds the update of the attention to this very tensor.
        update = unwrap(output).clone() if self.is_parallel else unwrap(output)
        before = self.stream if self.is_parallel else self.stream + self.update
        self.on_block(BlockId(self.index, "mlp"), before, update)
        self.on_block(BlockId(self.index, "layer"), self.stream, self.update + update)
        del self.stream, self.update


def unwrap(output: Any) -> torch.Tensor:
    """The (batch, seq, hidden) tensor of a module that may also return weights or a cache."""
    return output if isinstance(output, torch.Tensor) else output[0]


def _unchanged(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def take_out(layer: nn.Module, family: Family, block: BlockId) -> None:
    index = layer.get_submodule(family.module(block.part)).layer_idx if block.part == "attn" else 0
    stand_in = AbsentAttention(index) if block.part == "attn" else AbsentMlp()
    setattr(layer, family.module(block.part), stand_in)
    for norm in family.norms(block.part):
        setattr(layer, norm, AbsentNorm())


# What configs of transformers hold once a layer, and as a list of the numbers of some layers.
PER_LAYER = (
    *("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers", "layer_rope_theta"),
    *("num_attention_heads", "num_key_value_heads", "intermediate_size"),
    *("num_attention_heads_per_layer", "num_key_value_heads_per_layer"),
)
LAYER_NUMBERS = ("mlp_only_layers",)


def trim_config(config: Any, kept: list[int]) -> None:
    """Give `config` the kept layers: their number, and what it says of each of them."""
    n_layers = config.num_hidden_layers
    values = config.to_dict()
    for name in PER_LAYER:
        value = values.get(name)
        if isinstance(value, list) and len(value) == n_layers:
            setattr(config, name, [value[i] for i in kept])
    for name in LAYER_NUMBERS:
        if isinstance(values.get(name), list):
            setattr(config, name, [i for i, old in enumerate(kept) if old in values[name]])
    config.num_hidden_layers = len(kept)


def leave_out_absent(config: Any, written: Mapping[str, Any]) -> None:
    """What a config.json does not hold is not in `config` either, so that no export writes it.

    Read from there it is the default of its class, as before.
    """
    names = {config.attribute_map.get(key, key) for key in written}
    for name, value in tuple(vars(config).items()):
        default = vars(type(config)).get(name)
        is_default = type(default) is type(value) and default == value
        if name not in names and not name.startswith("_") and is_default:
            delattr(config, name)


def renumber(layers: nn.ModuleList) -> None:
    """Give every submodule that knows its layer's index the new one (cache slots follow it)."""
    for index, layer in enumerate(layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index


def _kept_blocks(info: ModelInfo, plan: PruningPlan, kept: list[int]) -> Iterator[Block]:
    by_id = {b.id: b for b in info.blocks}
    for new, old in enumerate(kept):
        for part in BlockId(old, "layer").parts:
            block = replace(by_id[part], id=BlockId(new, part.part))
            gone = not plan.keeps(part)
            yield replace(block, n_parameters=0, kv_bytes_per_token=0) if gone else block


def find_blocks(module: nn.Module, family: Family) -> tuple[Block, ...]:
    """Every attention and MLP block of a model, in order, with what it weighs."""
    config = module.config
    layers = module.get_submodule(family.layers)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None)
    head_dim = head_dim or config.hidden_size // config.num_attention_heads
    kv_bytes = 2 * heads * head_dim * module.dtype.itemsize
    blocks = []
    for index, layer in enumerate(layers):
        for block in BlockId(index, "layer").parts:
            path = family.module(block.part)
            modules = [layer.get_submodule(p) for p in (path, *family.norms(block.part))]
            size = sum(p.numel() for m in modules for p in m.parameters())
            kv = kv_bytes if block.part == "attn" and size else 0
            shared = layer.get_submodule(family.shared_norm) if block.part == "mlp" else nn.Module()
            n_shared = sum(p.numel() for p in shared.parameters()) if family.shared_norm else 0
            blocks.append(Block(block, size, f"{family.layers}.{index}.{path}", kv, n_shared))
    return tuple(blocks)
