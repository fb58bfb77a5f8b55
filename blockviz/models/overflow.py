"""Whether what a model computes is finite; float16 ends at 65 504, and some models go beyond it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import CalibrationSet, Progress


def is_finite(logits: torch.Tensor) -> bool:
    """Whether no logit is NaN or infinite; minus infinity is allowed: a word that cannot follow."""
    return not logits.numel() or float(logits.max()) < math.inf


def overflow(model: BlockModel, where: str) -> BadInput:
    """What to raise where numbers are not finite; `where` ends the sentence "... not finite"."""
    dtype = str(model.dtype).removeprefix("torch.")
    is_half = model.dtype == torch.float16
    return BadInput(
        f"{model.info.name} was to be run in {dtype}.",
        f"Its numbers {'overflow: they ' if is_half else ''}are not finite {where}.",
        "Load it in bfloat16 or float32 (--dtype)."
        if is_half
        else "Load it in float32 (--dtype), or download its weights again.",
    )


def check_windows(
    model: BlockModel, windows: CalibrationSet, *, batch_tokens: int = 1024
) -> Iterator[Progress]:
    """Ends if the whole model is finite on the windows; else BadInput, before anything is measured.

    Run only in float16, the one dtype whose range a sound model can leave.
    """
    if model.dtype != torch.float16:
        return
    head = Head(model)
    size = max(1, batch_tokens // windows.input_ids.shape[1])
    for n, batch in enumerate(windows.batches(size)):
        yield Progress("checking float16", n * size, len(windows))
        stage = Stage(model, batch)
        hidden = head.hidden(stage.run(stage.stream, 0, ()))
        is_read = batch.attention_mask.flatten().to(hidden.device)
        for _, logits in head.chunks(hidden[is_read]):
            if not is_finite(logits):
                raise overflow(model, f"on {windows.origin.dataset}")
