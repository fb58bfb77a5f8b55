"""What a token costs: seconds of each block, and multiply-adds counted from the weights."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from blockviz.models.absence import AbsentAttention
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.models.stage import Head, Stage
from blockviz.types import BlockId, CalibrationBatch


@dataclass(frozen=True)
class BlockCosts:
    """Seconds of every attention and MLP block, and of all that is not a block, for one token."""

    blocks: Mapping[BlockId, float]
    rest: float

    @property
    def total(self) -> float:
        return self.rest + sum(self.blocks.values())


@torch.inference_mode()
def block_costs(model: BlockModel, *, repeats: int = 15) -> BlockCosts:
    """Medians over repeats in turn, of a pass without a cache: what a plan can save at decoding.

    A block's cost is that of its layer minus that of its layer without it, never below 0.
    """
    batch = CalibrationBatch(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1).bool())
    stage, head = Stage(model, batch), Head(model)
    layers = range(model.info.n_layers)
    ways = {part: frozenset([part]) for i in layers for part in BlockId(i, "layer").parts}
    whole: dict[int, list[float]] = {i: [] for i in layers}
    without: dict[BlockId, list[float]] = {part: [] for part in ways}
    rest: list[float] = []
    for _ in range(repeats):
        for i in layers:
            with _timed(model, whole[i]):
                stage.run(stage.stream, i, (), stop=i + 1)
            for part in BlockId(i, "layer").parts:
                with _timed(model, without[part]):
                    stage.run(stage.stream, i, ways[part], stop=i + 1)
        with _timed(model, rest):
            head.logits(head.hidden(stage.stream))
    layer = {i: statistics.median(seconds) for i, seconds in whole.items()}
    blocks = {
        part: max(0.0, layer[part.layer] - statistics.median(seconds))
        for part, seconds in without.items()
    }
    return BlockCosts(blocks, statistics.median(rest))


@contextmanager
def _timed(model: BlockModel, seconds: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    seconds.append(time.perf_counter() - started)


@dataclass(frozen=True)
class MultiplyAdds:
    """Of one token. weights: one for each weight of every linear map that it goes through, the
    vocabulary projection included. per_position: what attention adds for each position that the
    token looks at, a key and a value for every head: 2 * heads * head size a block.

    Norms, biases, activations, rotations and scales of single channels are not counted.
    """

    weights: int
    per_position: int


def multiply_adds(model: BlockModel, removed: Iterable[BlockId] = ()) -> MultiplyAdds | None:
    """Counted from the modules that remain, a repair's own maps included.

    None where a module holds matrices of another kind, such as experts of which a token sees some.
    """
    gone = {part for b in removed for part in b.parts}
    away = [f"{model.family.layers}.{b.layer}.{model.family.module(b.part)}" for b in gone]
    weights = 0
    for path, module in model.module.named_modules():
        if any(path == a or path.startswith(f"{a}.") for a in away):
            continue
        found = _matrix_sizes(module.parameters(recurse=False))
        is_linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if found and not is_linear and not isinstance(module, nn.Embedding):
            return None
        weights += found if is_linear else 0
    if isinstance(model, RepairedModel):
        for module in (*model.maps.values(), *model.inputs.values()):
            weights += _matrix_sizes((*module.parameters(), *module.buffers()))
    blocks = (BlockId(i, "attn") for i in range(model.info.n_layers))
    alive = [b for b in blocks if b not in gone and not isinstance(model.part(b), AbsentAttention)]
    return MultiplyAdds(weights, len(alive) * _per_position(model.module.config))


def _matrix_sizes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(t.numel() for t in tensors if t.ndim > 1)


def _per_position(config: Any) -> int:
    head_dim = getattr(config, "head_dim", None)
    heads = config.num_attention_heads
    return 2 * heads * (head_dim or config.hidden_size // heads)
