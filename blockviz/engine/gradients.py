"""Numbers of a block's own weights, with or without the loss's gradient on calibration text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.func import functional_call

from blockviz.evaluate.loss import next_token_nll
from blockviz.evaluate.perplexity import next_tokens
from blockviz.models.model import BlockModel
from blockviz.models.writers import block_tensors
from blockviz.types import (
    BlockId,
    CalibrationBatch,
    CalibrationSet,
    Done,
    Events,
    Progress,
    WeightTensors,
)


def weights_of(model: BlockModel, blocks: Sequence[BlockId]) -> WeightTensors:
    """Every parameter of the blocks, without gradients."""
    return WeightTensors(
        {
            block: {name: (tensor.detach(), None) for name, tensor in tensors.items()}
            for block, tensors in ((b, block_tensors(model, b)) for b in blocks)
        }
    )


def weights_and_gradients(
    model: BlockModel, windows: CalibrationSet, blocks: Sequence[BlockId]
) -> Events:
    """Done(WeightTensors): every parameter of the blocks and dL/dW summed over the windows.

    L is the mean next-token NLL of a window. Window by window, gradients added up in float32, so
    memory grows by the size of the blocks in float32 and one window's activations. The model's own
    tensors are not touched: the call runs on detached ones that share their storage.
    """
    names = {b: block_tensors(model, b) for b in blocks}
    wanted = {name: tensor for tensors in names.values() for name, tensor in tensors.items()}
    total: dict[str, torch.Tensor] = {}
    n = len(windows)
    for done, batch in enumerate(windows.batches(1)):
        yield Progress("gradients", done, n, f"window {done + 1}")
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in wanted.items()}
        with torch.enable_grad():
            loss = _loss(model, batch, leaves)
            found = torch.autograd.grad(loss, list(leaves.values()))
        for name, gradient in zip(leaves, found, strict=True):
            if name in total:
                total[name] += gradient.float()
            else:
                total[name] = gradient.float()
    yield Done(
        WeightTensors(
            {
                block: {name: (tensor.detach(), total[name]) for name, tensor in tensors.items()}
                for block, tensors in names.items()
            }
        )
    )


def _loss(
    model: BlockModel, batch: CalibrationBatch, leaves: dict[str, torch.Tensor]
) -> torch.Tensor:
    mask = batch.attention_mask
    padded = None if bool(mask.all()) else mask.to(model.device)
    kwargs = {"input_ids": batch.input_ids.to(model.device), "attention_mask": padded}
    output = functional_call(model.module, leaves, kwargs=dict(kwargs, use_cache=False))
    targets, has_target = next_tokens(batch)
    rows = has_target.flatten()
    logits = output.logits.flatten(0, 1)[rows.to(model.device)]
    return next_token_nll(logits, targets.flatten()[rows].to(model.device)).mean()
