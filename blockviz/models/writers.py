"""The writer of a block: its last linear map, whose output joins the residual stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from blockviz.errors import UnsupportedModel
from blockviz.models.families import Family
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import gather_mlp
from blockviz.types import BlockId

ATTN_WRITERS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
MLP_WRITERS = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "fc_out", "w2", "wo")

OnInput = Callable[[BlockId, torch.Tensor], None]


def writer(model: BlockModel, block: BlockId) -> nn.Module:
    """The module that writes the block's update; UnsupportedModel where there is not just one."""
    part = model.part(block)
    found = _last_map(part, block.part, model.info.hidden_size)
    if found is not None:
        return found
    raise UnsupportedModel(
        f"The last linear map of {block} was wanted.",
        f"In {type(part).__name__} there is none under a known name, or there are several.",
        "Use a metric that does not look into a block's weights.",
    )


def _last_map(module: nn.Module, part: str, hidden: int) -> nn.Module | None:
    for name in ATTN_WRITERS if part == "attn" else MLP_WRITERS:
        found = getattr(module, name, None)
        weight = getattr(found, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim == 2 and hidden in weight.shape:
            return found
    return None


def last_tensors(module: nn.Module, part: str, hidden: int) -> dict[str, nn.Parameter]:
    """By path: what an attention or MLP module writes with, such that the update is linear in all
    of it. Every expert's last matrix where there are experts; empty where nothing is known."""
    found = _last_map(module, part, hidden)
    if found is not None:
        path = next(name for name, m in module.named_modules() if m is found)
        return {f"{path}.{name}": p for name, p in found.named_parameters()}
    experts = r"experts\.down_proj|shared_expert\.down_proj\.weight"
    return {n: p for n, p in module.named_parameters() if re.fullmatch(experts, n)}


def scale_writers(module: nn.Module, family: Family) -> None:
    """Take the factor of a family's updates into what writes them; it is 1 from then on.

    What a block writes is then what joins the stream, for every score, repair and export."""
    config = module.config
    factor = getattr(config, family.scale_key, 1.0) if family.scale_key else 1.0
    if factor == 1.0:
        return
    for layer in module.get_submodule(family.layers):
        for part in ("attn", "mlp"):
            own = layer.get_submodule(family.module(part))
            for tensor in last_tensors(own, part, config.hidden_size).values():
                tensor.data.mul_(factor)
        setattr(layer, family.scale_key, 1.0)
    setattr(config, family.scale_key, 1.0)


def gather_mlps(module: nn.Module, family: Family) -> None:
    """Where layers keep the maps of their MLP loose, each MLP becomes one module.

    UnsupportedModel for OPT with its norms behind the sums, where no stream goes through."""
    if getattr(module.config, "do_layer_norm_before", True) is False:
        raise UnsupportedModel(
            "The blocks of a model were to be told apart.",
            "Its layers norm the stream itself (do_layer_norm_before is off), so that what a block "
            "adds does not reach the next one as it is.",
            "Use another size of the family: of OPT only 350M is built so.",
        )
    for layer in module.get_submodule(family.layers):
        gather_mlp(layer)


def is_turned(module: nn.Module) -> bool:
    """Whether it keeps its matrix as (in, out): GPT-2 does, in a class of its own."""
    return type(module).__name__ == "Conv1D"


def writer_weight(model: BlockModel, block: BlockId) -> torch.Tensor:
    """(out, in): the matrix of the writer, however its module stores it."""
    module = writer(model, block)
    return module.weight.T if is_turned(module) else module.weight


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
