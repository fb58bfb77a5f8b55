"""Linear CKA between the streams at any two depths, from their Gram matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.stats.passes import PassStatistic, Point, StreamPoints, around_block
from blockviz.types import BlockId, CalibrationSet, LetterPrompts

CHUNK = 1 << 16


@dataclass(frozen=True)
class StreamCka(PassStatistic):
    """Linear CKA of the stream at two depths on the same rows; arXiv 1905.00414, section 3.

    rows: `tokens` takes every calibration token as a sample, thinned out evenly to at most
    `n_rows`; `sequences` takes each whole window, flattened. Columns are centred.
    Result: {`layers`: (L + 1, L + 1) float64, `blocks`: {BlockId: CKA across that block}}.
    """

    rows: Literal["tokens", "sequences"] = "tokens"
    n_rows: int = 1024
    holds_streams: ClassVar[bool] = True
    is_costly: ClassVar[bool] = True

    def start(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        prompts: LetterPrompts | None = None,
    ) -> _Running:
        return _Running(model, blocks, windows, self)


class _Running(StreamPoints):
    def __init__(
        self,
        model: BlockModel,
        blocks: tuple[BlockId, ...],
        windows: CalibrationSet,
        asked: StreamCka,
    ) -> None:
        parallel = model.family.is_parallel
        self._pairs = {b: around_block(b, is_parallel=parallel) for b in blocks}
        self._layers: list[Point] = [("in", i) for i in range(model.info.n_layers + 1)]
        points = {*self._layers, *(p for pair in self._pairs.values() for p in pair)}
        super().__init__(model, points)
        self._rows = asked.rows
        n = int(windows.attention_mask.sum())
        _check_samples(asked.rows, n if asked.rows == "tokens" else len(windows))
        wanted = torch.linspace(0, n - 1, min(n, asked.n_rows), dtype=torch.float64).round()
        self._is_wanted = torch.zeros(n, dtype=torch.bool)
        self._is_wanted[wanted.long()] = True
        self._start = 0
        self._kept: dict[Point, list[torch.Tensor]] = {p: [] for p in points}

    def end(self) -> None:
        self._start += int(self.batch.attention_mask.sum())

    def take(self, point: Point, stream: torch.Tensor) -> None:
        mask = self.batch.attention_mask.to(stream.device)
        if self._rows == "sequences":
            self._kept[point].append(torch.where(mask[..., None], stream, 0).flatten(1).cpu())
            return
        wanted = self._is_wanted[self._start : self._start + int(mask.sum())]
        self._kept[point].append(stream[mask][wanted.to(stream.device)].cpu())

    def result(self) -> dict[str, object]:
        grams = {p: self._gram(p) for p in self._layers}
        blocks = {}
        for block, (front, back) in self._pairs.items():
            one = grams[front] if front in grams else self._gram(front)
            two = grams[back] if back in grams else self._gram(back)
            blocks[block] = float(_products(torch.stack([one.flatten(), two.flatten()]))[0, 1])
        return {
            "layers": _products(torch.stack([grams[p].flatten() for p in self._layers])),
            "blocks": blocks,
        }

    def _gram(self, point: Point) -> torch.Tensor:
        return centred_gram(torch.cat(self._kept[point]))


def _check_samples(rows: str, n: int) -> None:
    if n < 3:
        raise BadInput(
            f"The similarity of streams was to be measured with {rows} as samples.",
            f"Their number is {n}, and with fewer than 3 all streams look alike.",
            "Read more windows, or take tokens as samples.",
        )


def centred_gram(rows: torch.Tensor) -> torch.Tensor:
    """(n, n) float32 of (n, size): X X^T with centred columns, of Frobenius norm 1.

    The inner product of two of them is the CKA of their rows; rows that are all equal give zeros.
    """
    rows = rows.double() if rows.numel() <= CHUNK else rows.float()
    centred = rows - rows.mean(dim=0)
    gram = centred @ centred.T
    size = gram.double().norm()
    return (gram / size if size > 0 else gram).float()


def _products(flat: torch.Tensor) -> torch.Tensor:
    """(depth, depth) float64 inner products of (depth, n) rows, at most 1."""
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for start in range(0, flat.shape[1], CHUNK):
        part = flat[:, start : start + CHUNK].double()
        total += part @ part.T
    return total.clamp(0, 1)
