"""The linear maps of a block: where they are, what they read, and how their modules store them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from blockviz.corrections.sparse import Pattern
from blockviz.errors import UnsupportedModel
from blockviz.models.model import BlockModel
from blockviz.models.writers import is_turned
from blockviz.types import BlockId


def linear_maps(model: BlockModel, block: BlockId) -> dict[str, nn.Module]:
    """Path below the layer -> every linear map of a block; UnsupportedModel if it has others."""
    part, prefix = model.part(block), model.family.module(block.part)
    found = {
        f"{prefix}.{name}": module for name, module in part.named_modules() if _is_linear(module)
    }
    known = {id(module.weight) for module in found.values()}
    others = [n for n, p in part.named_parameters() if p.ndim > 1 and id(p) not in known]
    if others or not found:
        what = f"keeps {others[0]} outside of one" if others else "has none"
        raise UnsupportedModel(
            f"The linear maps of {block} were to be made sparse.",
            f"In {model.info.name} that block {what}.",
            "Use a model without experts, or leave its weights dense.",
        )
    return found


def check_widths(model: BlockModel, blocks: Iterable[BlockId], pattern: Pattern) -> None:
    """UnsupportedModel where a matrix has no whole number of the pattern's groups of inputs."""
    for block in blocks:
        for path, module in linear_maps(model, block).items():
            n_inputs = weight_of(module).shape[1]
            if pattern.n_of and n_inputs % pattern.n_of:
                raise UnsupportedModel(
                    f"{pattern} zeros were asked for, in groups of {pattern.n_of} inputs.",
                    f"{path} of layer {block.layer} reads {n_inputs} inputs, which are no whole "
                    "number of groups.",
                    f"Use a pattern N:M whose M divides {n_inputs}, or a share such as 0.5.",
                )


def weight_of(module: nn.Module) -> torch.Tensor:
    """(out, in): the matrix of a linear map, however its module stores it."""
    return module.weight.detach().T if is_turned(module) else module.weight.detach()


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or is_turned(module)


@contextmanager
def reading(linears: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Inside, what each linear map reads in the last forward."""
    read: dict[str, torch.Tensor] = {}
    handles = []
    try:
        for path, module in linears.items():

            def hook(_module: nn.Module, args: tuple[Any, ...], path: str = path) -> None:
                read[path] = args[0]

            handles.append(module.register_forward_pre_hook(hook))
        yield read
    finally:
        for handle in handles:
            handle.remove()
