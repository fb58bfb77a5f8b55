"""What the model would say if it stopped after each of its blocks, at one position of a text."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import BlockId, CalibrationBatch


@dataclass(frozen=True)
class EarlyExits:
    """Depth 0 is the embedding, then one row a block in order (a layer, where both are parallel).

    depths (depth,) names; top (depth, k) int64 ids, likeliest first; probabilities (depth, k);
    entropy, kl (depth,) nats, kl from the last depth; rank_of_final (depth,) int64, 1 = on top.
    """

    depths: tuple[str, ...]
    top: torch.Tensor
    probabilities: torch.Tensor
    entropy: torch.Tensor
    kl: torch.Tensor
    rank_of_final: torch.Tensor


@torch.inference_mode()
def read_early_exits(model: BlockModel, ids: torch.Tensor, position: int, k: int) -> EarlyExits:
    """The early exits of (seq,) ids at a position: softmax(head(final norm(stream)))."""
    parts = ("layer",) if model.family.is_parallel else ("attn", "mlp")
    depths, rows = ["embedding"], []

    def on_block(block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        if not rows:
            rows.append(before[0, position])
        if block.part in parts:
            depths.append(str(block))
            rows.append((before + update)[0, position])

    ids = ids[None, : position + 1]
    batch = CalibrationBatch(ids, torch.ones_like(ids, dtype=torch.bool))
    stage = Stage(model, batch)
    # Layer by layer and without the head: of all the text only one position's logits are wanted.
    with model.watch(on_block):
        stage.run(stage.stream, 0, ())
    head = Head(model)
    hidden = head.hidden(torch.stack(rows)[:, None])
    # A chunk at a time would do, but the last depth is compared with all others.
    logs = torch.cat([logits.float().log_softmax(dim=-1) for _, logits in head.chunks(hidden)])
    best = logs.topk(k, dim=-1)
    final = logs[-1]
    return EarlyExits(
        depths=tuple(depths),
        top=best.indices.cpu(),
        probabilities=best.values.exp().clamp_max(1).cpu(),
        entropy=torch.special.entr(logs.exp()).sum(dim=-1).cpu(),
        kl=(final.exp() * (final - logs)).sum(dim=-1).clamp_min(0).cpu(),
        rank_of_final=((logs > logs[:, final.argmax()][:, None]).sum(dim=-1) + 1).cpu(),
    )
