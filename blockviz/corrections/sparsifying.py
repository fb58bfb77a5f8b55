"""Making a model sparse: layer after layer, by what each matrix reads.

One stream is held for the whole calibration set. At every layer its blocks say what they read, its
matrices are made sparse, and the stream goes on through what is left: two passes in all. A layer is
one step: what its last matrix reads is what the layer gives while it is still dense.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from blockviz.corrections.applied import repaired_model
from blockviz.corrections.base import Correction, Repair
from blockviz.corrections.linears import (
    check_widths,
    linear_maps,
    reading,
    weight_of,
)
from blockviz.corrections.rows import counted
from blockviz.corrections.sparse import (
    AXES,
    Inputs,
    InputScore,
    Pattern,
    WeightScore,
    compensated,
    dropped,
)
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.models.stage import Stage
from blockviz.models.writers import is_turned, writer
from blockviz.settings import label_of
from blockviz.types import BlockId, CalibrationSet, Done, Events, Progress


@dataclass(frozen=True)
class NoCorrection(Correction):
    """Stands in a repair that changes weights without making up for what the plan cut."""

    name = "none"
    title = "No correction"
    meaning = "The plan as it is."
    folds = "weights of surviving blocks"


@dataclass(frozen=True)
class Sparsity:
    """Which weights become zero, by what score, and how the rest makes up for it.

    energy: axes along which the rest gets back the energy it had; clip: bounds of its factor.
    """

    score: WeightScore
    pattern: Pattern
    energy: tuple[str, ...] = ()
    clip: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        if set(self.energy) - set(AXES):
            raise BadInput(
                f"Energy by {', '.join(self.energy)} was to be made up for.",
                "Only columns and rows have one.",
                f"Name {' or '.join(AXES)}, or both.",
            )
        low, high = self.clip
        if not 0 < low <= 1 <= high < float("inf"):
            raise BadInput(
                f"Energy factors from {low} to {high} were asked for.",
                "What has lost no weight gets a factor of 1, so the bounds must be around it.",
                "Give two such as 0.5,2.",
            )

    def describe(self) -> str:
        axes = " and ".join(axis for axis in AXES if axis in self.energy)
        energy = f", energy kept by {axes}" if axes else ""
        return f"{self.pattern} by {label_of(self.score)}{energy}"


def sparsify(
    model: BlockModel,
    repair: Repair,
    windows: CalibrationSet | None,
    sparsity: Sparsity,
    *,
    batch_tokens: int = 2048,
    memory_bytes: int | None = None,
) -> Events:
    """Done(Repair): the same, with all matrices of surviving blocks sparse and in `weights`.

    windows: what the blocks read; None will do for a score that does not look at it. BadInput where
    stream and new weights would take more than `memory_bytes`, or no position counts;
    UnsupportedModel where a block keeps matrices in another way than linear maps.
    """
    blocks = surviving(model, repair)
    n_tokens = check_room(model, blocks, windows, sparsity.score, memory_bytes)
    running = _Sparsifying(model, repair, sparsity, n_tokens)
    yield from running.events(windows, batch_tokens)
    yield Done(running.repair())


def check_room(
    model: BlockModel,
    blocks: Iterable[BlockId],
    windows: CalibrationSet | None,
    score: WeightScore,
    memory_bytes: int | None,
) -> int:
    """How many positions a score looks at; BadInput where it has none, or not enough memory."""
    found = [m.weight for block in blocks for m in linear_maps(model, block).values()]
    taken = sum(weight.numel() * weight.element_size() for weight in found)
    n_read = n_tokens = 0
    if isinstance(score, InputScore):
        n_windows = 0 if windows is None else len(windows)
        n_read = windows.input_ids.numel() if n_windows else 0
        n_tokens = int(counted(windows, score.tokens).sum()) if n_windows else 0
        taken += n_read * model.info.hidden_size * model.dtype.itemsize
        if not n_tokens:
            raise BadInput(
                f"What {n_windows} windows make the blocks read was to be seen.",
                f"Without padding, and with tokens={score.tokens}, no position is left.",
                "Give windows, or longer ones.",
            )
    if memory_bytes is not None and taken > memory_bytes:
        raise BadInput(
            f"{model.info.name} was to be made sparse by {score.name}, on {n_read} tokens.",
            f"Their stream and the new weights take {taken / 2**20:.1f} MiB, and "
            f"{memory_bytes / 2**20:.1f} MiB may be used.",
            "Use fewer tokens, or allow more memory.",
        )
    return n_tokens


def surviving(model: BlockModel, repair: Repair) -> tuple[BlockId, ...]:
    """The blocks that run, in order of depth."""
    revived = {part for block in repair.revived for part in block.parts}
    return tuple(b.id for b in model.info.blocks if repair.plan.keeps(b.id) or b.id in revived)


@dataclass
class _Rows:
    """A few windows, their stream at the present layer, and which positions count."""

    stage: Stage
    stream: torch.Tensor
    wanted: torch.Tensor

    def step(self, layer: int) -> torch.Tensor:
        return self.stage.layer(layer, self.stream)


class _Sparsifying:
    def __init__(
        self, model: BlockModel, repair: Repair, sparsity: Sparsity, n_tokens: int
    ) -> None:
        self.model, self.before, self.sparsity = model, repair, sparsity
        # It becomes sparse layer by layer.
        self.target = repaired_model(model, repair)
        self.blocks = surviving(model, repair)
        self.linears = {block: linear_maps(self.target, block) for block in self.blocks}
        self.weights: dict[BlockId, dict[str, torch.Tensor]] = {}
        self.n_tokens, self.n_windows, self.n_run = n_tokens, 0, 0
        check_widths(self.target, self.blocks, sparsity.pattern)

    def events(self, windows: CalibrationSet | None, batch_tokens: int) -> Iterator[Progress]:
        stage, score = f"sparsifying by {label_of(self.sparsity.score)}", self.sparsity.score
        rows: list[_Rows] = []
        if isinstance(score, InputScore):
            for row in self._opened(windows, score.tokens, batch_tokens):
                rows.append(row)
                self.n_windows += len(row.wanted)
                yield Progress(stage, 0, 0, "reading the windows")
        n_layers, last = self.model.info.n_layers, max(b.layer for b in self.blocks)
        for layer in range(last + 1):
            here = [block for block in self.blocks if block.layer == layer]
            for _ in self._layer(rows, layer, here):
                yield Progress(stage, layer, n_layers, f"layer {layer}")

    def _opened(self, windows: CalibrationSet, tokens: str, batch_tokens: int) -> Iterator[_Rows]:
        wanted, start = counted(windows, tokens), 0
        for batch in windows.batches(max(1, batch_tokens // windows.input_ids.shape[1])):
            stage = Stage(self.target, batch)
            stream = stage.stream
            # It is kept as long as this layer is the present one, not for the whole walk.
            del stage.stream
            yield _Rows(stage, stream, wanted[start : start + len(batch.input_ids)])
            start += len(batch.input_ids)

    def _layer(self, rows: list[_Rows], layer: int, here: list[BlockId]) -> Iterator[None]:
        """Makes one layer sparse and brings the streams behind it."""
        linears = {path: m for block in here for path, m in self.linears[block].items()}
        is_ahead = isinstance(self.sparsity.score, InputScore) and self.sparsity.score.is_sequential
        seen: dict[str, Inputs] = {}
        for row in rows if here else ():
            with reading(linears) as read:
                dense = row.step(layer)
            seen = _joined(seen, read, row.wanted)
            self.n_run += len(row.wanted)
            if not is_ahead:
                row.stream = dense
            yield
        for block in here:
            found = {f"{p}.weight": self._sparse(block, p, seen) for p in self.linears[block]}
            self.target.put_weights(block, found)
            self.weights[block] = found
            yield
        is_read_on = layer < self.blocks[-1].layer
        for row in rows if is_read_on and (is_ahead or not here) else ():
            row.stream = row.step(layer)
            self.n_run += len(row.wanted)
            yield

    def _sparse(self, block: BlockId, path: str, seen: Mapping[str, Inputs]) -> torch.Tensor:
        """The new weight of a linear map, as its module keeps it."""
        module, asked = self.linears[block][path], self.sparsity
        weight = weight_of(module)
        scores = asked.score.scores(weight, seen.get(path))
        if not bool(scores.isfinite().all()):
            raise BadInput(
                f"The weights of {path} in layer {block.layer} were to be scored by "
                f"{asked.score.name}.",
                "Some scores are no numbers: what it reads overflows, or its weights are damaged.",
                "Use --dtype float32, or another calibration text.",
            )
        gone = dropped(scores, asked.pattern, asked.score.group)
        sparse = compensated(weight, gone, asked.energy, asked.clip)
        return (sparse.T if is_turned(module) else sparse).contiguous()

    def repair(self) -> Repair:
        """What was there before it, its writers included, with the new weights."""
        weights = {block: dict(found) for block, found in self.before.weights.items()}
        for block, found in self.weights.items():
            weights[block] = {**weights.get(block, {}), **found}
            writing = self.before.writers.get(block)
            if writing is not None and writing.bias is not None:
                last = writer(self.target, block)
                path = next(p for p, m in self.linears[block].items() if m is last)
                weights[block][f"{path}.bias"] = last.bias.detach()
        n_runs = max(1, self.n_windows) * self.model.info.n_layers
        return replace(
            self.before,
            weights=weights,
            writers={},
            n_tokens=self.before.n_tokens or self.n_tokens,
            passes=self.before.passes + self.n_run / n_runs,
            notes=(*self.before.notes, f"Weights made sparse: {self.sparsity.describe()}."),
        )


def _joined(
    seen: Mapping[str, Inputs], read: Mapping[str, torch.Tensor], wanted: torch.Tensor
) -> dict[str, Inputs]:
    """With a batch more. Maps that read one and the same tensor have its moments taken once."""
    taken: dict[int, Inputs] = {}
    for values in read.values():
        if id(values) not in taken:
            taken[id(values)] = Inputs.of(values[wanted.to(values.device)])
    new = {path: taken[id(values)] for path, values in read.items()}
    return {
        path: seen[path].joined(found) if path in seen else found for path, found in new.items()
    }
