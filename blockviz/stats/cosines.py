"""Cosines between the streams in front of any two layers, window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from blockviz.models.model import BlockModel
from blockviz.stats.passes import PassStatistic, Point, StreamPoints
from blockviz.types import BlockId, CalibrationSet, LetterPrompts

CHUNK = 128


@dataclass(frozen=True)
class LayerCosines(PassStatistic):
    """Mean cosine of X_l and X_m over a window; X_L is the stream behind the last layer, raw.

    over: `last` compares the window's last token, `tokens` every token, `channels` every channel
    as a vector over the window's tokens. Result: {`mean`: (n_windows, L + 1, L + 1) float64,
    `angle`: the same of arccos(cosine) / pi}.
    """

    over: Literal["last", "tokens", "channels"]
    holds_streams: ClassVar[bool] = True

    def start(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        prompts: LetterPrompts | None = None,
    ) -> _Running:
        return _Running(model, self.over)


class _Running(StreamPoints):
    def __init__(self, model: BlockModel, over: str) -> None:
        self._depths = [("in", i) for i in range(model.info.n_layers + 1)]
        super().__init__(model, set(self._depths))
        self._over = over
        self._streams: dict[Point, torch.Tensor] = {}
        self._means: list[torch.Tensor] = []
        self._angles: list[torch.Tensor] = []

    def take(self, point: Point, stream: torch.Tensor) -> None:
        if self._over == "last":
            last = self.batch.attention_mask.sum(dim=-1) - 1
            rows = torch.arange(len(last))
            stream = stream[rows, last][:, None]  # (batch, 1, hidden)
        self._streams[point] = stream

    def end(self) -> None:
        streams = [self._streams[depth] for depth in self._depths]
        mask = self.batch.attention_mask.to(streams[0].device)
        for window in range(mask.shape[0]):
            if self._over == "last":
                vectors = torch.stack([s[window] for s in streams])
            else:
                vectors = torch.stack([s[window][mask[window]] for s in streams])
            mean, angle = mean_cosines(vectors if self._over != "channels" else vectors.mT)
            self._means.append(mean)
            self._angles.append(angle)
        self._streams.clear()

    def result(self) -> dict[str, torch.Tensor]:
        return {"mean": torch.stack(self._means), "angle": torch.stack(self._angles)}


def mean_cosines(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(depth, depth) float64 means over n of the cosine and the angle / pi of (depth, n, size)."""
    depth, n, _ = vectors.shape
    if vectors.device.type == "mps":  # it has no float64
        vectors = vectors.cpu()
    total = torch.zeros(2, depth, depth, dtype=torch.float64)
    for start in range(0, n, CHUNK):
        # In float32 the angle between equal vectors would come out as up to 5e-4.
        part = torch.nn.functional.normalize(vectors[:, start : start + CHUNK].double(), dim=-1)
        cosine = torch.einsum("inc,jnc->nij", part, part).clamp(-1, 1)
        total[0] += cosine.sum(dim=0).cpu()
        total[1] += (cosine.arccos() / torch.pi).sum(dim=0).cpu()
    mean, angle = total / n
    return mean, angle
