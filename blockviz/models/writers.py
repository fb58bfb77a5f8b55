"""The writer of a block: its last linear map, whose output joins the residual stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from blockviz.errors import UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.types import BlockId

ATTN_WRITERS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
MLP_WRITERS = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2", "wo")

OnInput = Callable[[BlockId, torch.Tensor], None]


def writer(model: BlockModel, block: BlockId) -> nn.Module:
    """The module that writes the block's update; UnsupportedModel where there is not just one."""
    part, hidden = model.part(block), model.info.hidden_size
    for name in ATTN_WRITERS if block.part == "attn" else MLP_WRITERS:
        module = getattr(part, name, None)
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 2 and hidden in weight.shape:
            return module
    raise UnsupportedModel(
        f"The last linear map of {block} was wanted.",
        f"In {type(part).__name__} there is none under a known name, or there are several.",
        "Use a metric that does not look into a block's weights.",
    )


def writer_weight(model: BlockModel, block: BlockId) -> torch.Tensor:
    """(out, in): the matrix of the writer, however its module stores it."""
    module = writer(model, block)
    # GPT-2 keeps its matrices the other way round, in a class of its own.
    return module.weight.T if type(module).__name__ == "Conv1D" else module.weight


def watch_writers(
    model: BlockModel, blocks: Iterable[BlockId], on_input: OnInput
) -> AbstractContextManager[None]:
    """Inside, every forward calls `on_input(block, features)` with what each writer reads.

    features: (batch, seq, in), the heads side by side or the MLP's inner activations.
    """
    return _watched({b: writer(model, b) for b in blocks}, on_input)


def watch_inputs(
    model: BlockModel, blocks: Iterable[BlockId], on_input: OnInput
) -> AbstractContextManager[None]:
    """Inside, every forward calls `on_input(block, hidden)` with what each block reads.

    hidden: (batch, seq, hidden), behind the block's own norm.
    """
    return _watched({b: model.part(b) for b in blocks}, on_input)


@contextmanager
def _watched(modules: Mapping[BlockId, nn.Module], on_input: OnInput) -> Iterator[None]:
    handles = []
    try:
        for block, module in modules.items():

            def hook(
                _module: nn.Module,
                args: tuple[Any, ...],
                kwargs: dict[str, Any],
                block: BlockId = block,
            ) -> None:
                on_input(block, args[0] if args else kwargs["hidden_states"])

            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def block_tensors(model: BlockModel, block: BlockId) -> dict[str, nn.Parameter]:
    """Every parameter of a block or layer by its path in the model, its norms included."""
    found: dict[str, nn.Parameter] = {}
    for part in block.parts:
        layer = model.layers[part.layer]
        for path in (model.family.module(part.part), *model.family.norms(part.part)):
            prefix = f"{model.family.layers}.{part.layer}.{path}"
            for name, parameter in layer.get_submodule(path).named_parameters():
                found[f"{prefix}.{name}"] = parameter
    return found
