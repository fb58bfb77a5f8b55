"""The fit set on its way through both models: a few windows at a time, one depth for all."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from blockviz.corrections.base import Correction, Pair
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.models.stage import Stage
from blockviz.stats.pairs import ChannelMoments, ChannelPairs
from blockviz.types import BlockId, CalibrationSet


@dataclass
class Rows:
    """A few windows, both models' streams at the present depth, and which positions count.

    Up to the first gap both streams are the same tensor. anchors: the positions that are anchors,
    None where none is; first_window: the number of the first window; is_held: nothing is fitted on
    them.
    """

    whole_stage: Stage
    pruned_stage: Stage
    whole: torch.Tensor
    pruned: torch.Tensor
    wanted: torch.Tensor
    anchors: torch.Tensor | None
    first_window: int
    is_held: bool

    def pair(self, u: torch.Tensor, y: torch.Tensor, **more: torch.Tensor) -> Pair:
        """The positions that count of (batch, seq, channel) tensors, in float32."""
        found = self._rows(self.wanted, u, y, more)
        if self.anchors is None:
            return found
        return replace(found, anchor=self._rows(self.anchors, u, y, more))

    def _rows(
        self,
        wanted: torch.Tensor,
        u: torch.Tensor,
        y: torch.Tensor,
        more: Mapping[str, torch.Tensor],
    ) -> Pair:
        wanted = wanted.to(u.device)
        numbers = torch.arange(len(wanted), device=u.device) + self.first_window
        rows = {name: value[wanted].float() for name, value in more.items()}
        window = numbers[:, None].expand(wanted.shape)[wanted]
        return Pair(u[wanted].float(), y[wanted].float(), window, **rows)


def check_memory(
    model: BlockModel, sets: Sequence[CalibrationSet], memory_bytes: int | None
) -> None:
    """BadInput where both models' streams of all windows would take more."""
    n = sum(windows.input_ids.numel() for windows in sets)
    wanted = 2 * n * model.info.hidden_size * model.dtype.itemsize
    if memory_bytes is not None and wanted > memory_bytes:
        raise BadInput(
            f"A correction was to be fitted on {n} tokens.",
            f"Both models' streams of them take {wanted / 2**20:.1f} MiB, and "
            f"{memory_bytes / 2**20:.1f} MiB may be used.",
            "Fit on fewer tokens, or allow more memory.",
        )


def checked_tokens(windows: CalibrationSet, correction: Correction) -> int:
    """How many positions it is fitted on; BadInput if none."""
    n_tokens = int(counted(windows, correction.tokens).sum())
    if not n_tokens:
        raise BadInput(
            f"{correction.name} was to be fitted on {len(windows)} windows.",
            f"Without padding, and with tokens={correction.tokens}, no position is left.",
            "Fit on longer windows.",
        )
    return n_tokens


def counted(windows: CalibrationSet, tokens: str) -> torch.Tensor:
    """(n_samples, seq) bool: the positions that a correction looks at."""
    wanted = windows.attention_mask.clone()
    if tokens != "all":
        wanted[:, 0] = False
    return wanted


def opened(
    whole: BlockModel,
    repaired: RepairedModel,
    windows: CalibrationSet,
    *,
    n_windows: int,
    tokens: str,
    is_held: bool,
) -> Iterator[Rows]:
    """The windows in front of the first block, so many at a time."""
    wanted, start = counted(windows, tokens), 0
    for batch in windows.batches(n_windows):
        stage = Stage(whole, batch)
        stream = stage.stream
        # It is kept as long as this depth is the present one, not for the whole fit.
        del stage.stream
        # What a layer is called with besides the stream is the same in both models.
        other = copy.copy(stage)
        other.model = repaired
        here = wanted[start : start + len(batch.input_ids)]
        anchors = None
        if tokens == "anchored":
            anchors = batch.attention_mask.bool() & ~here
        yield Rows(stage, other, stream, stream, here, anchors, start, is_held)
        start += len(batch.input_ids)


class Met:
    """Moments of (stream, whole model's stream) of the fit windows and of the held ones."""

    def __init__(self, size: int) -> None:
        self._fit, self._held = ChannelPairs(size), ChannelPairs(size)

    def add(self, rows: Rows, pair: Pair) -> None:
        (self._held if rows.is_held else self._fit).add(pair.u, pair.y)

    @property
    def fit(self) -> ChannelMoments:
        return self._fit.result()

    @property
    def held(self) -> ChannelMoments | None:
        """None where none were set aside."""
        return self._held.result() if self._held.n else None


@torch.inference_mode()
def behind(stage: Stage, stream: torch.Tensor, blocks: Sequence[BlockId]) -> torch.Tensor:
    """The stream behind these blocks of one layer alone."""
    if not blocks:
        return stream
    layer = blocks[0].layer
    others = set(BlockId(layer, "layer").parts) - set(blocks)
    return stage.run(stream, layer, others, stop=layer + 1)


@torch.inference_mode()
def through(module: torch.nn.Module, values: torch.Tensor) -> torch.Tensor:
    """What a module of the model makes of them."""
    return module(values)


@torch.inference_mode()
def mapped(module: torch.nn.Module, stream: torch.Tensor) -> torch.Tensor:
    """As a RepairedModel does it."""
    wide = stream.float()
    return stream + (module(wide) - wide).to(stream.dtype)


def norm_of(model: BlockModel, block: BlockId) -> torch.nn.Module | None:
    """The norm that a block reads the stream through; None where it reads it as it is."""
    path = model.family.reads(block.part)
    return model.layers[block.layer].get_submodule(path) if path else None


def wide(norm: torch.nn.Module | None) -> torch.nn.Module | None:
    """A copy in float32, as maps compute in."""
    return None if norm is None else copy.deepcopy(norm).float()
