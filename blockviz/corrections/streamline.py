"""LLM-Streamline: at every gap one small network is trained to do what the removed blocks did."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from blockviz.corrections.base import CORRECTIONS, Fit, Repair
from blockviz.corrections.networks import Network, network_of
from blockviz.corrections.places import Stretch, stretches_of
from blockviz.corrections.rows import Met, Rows, behind, checked_tokens, opened
from blockviz.corrections.training import (
    EPOCHS,
    RATE,
    SEED,
    STEP_PASSES,
    Best,
    Schedule,
    Trained,
    shuffled,
    train,
)
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.types import BlockId, CalibrationSet, Done, Events, Progress, PruningPlan

DECAY, CLIP, LAST_SHARE = 1e-3, 5.0, 1 / 4
# Of a network: itself, its gradient, two averages of that, and the best so far.
COPIES = 5


@CORRECTIONS.register
@dataclass(frozen=True)
class LlmStreamline(Trained):
    """g(stream in front of a gap) is trained to be the whole model's stream behind it.

    The loss is the mean square over positions and channels. network=layer: g is a decoder layer
    that begins as the first whole one of the gap, which has to hold two; network=mlp: g adds a
    gated network of `width` to the stream, which begins by adding nothing. AdamW, `batch` windows a
    step, decay 1e-3, gradients up to a norm of 5, lr along a cosine to lr/4.
    """

    is_sequential: bool = field(default=False, metadata={"label": "One gap after the other"})
    network: str = field(
        default="layer", metadata={"label": "What is trained", "choices": ("layer", "mlp")}
    )
    width: int = field(default=256, metadata={"label": "Width of an mlp", "min": 1})
    batch: int = field(default=8, metadata={"label": "Windows a step", "min": 1})
    epochs: int = field(default=10, metadata=EPOCHS)
    lr: float = field(default=2e-4, metadata=RATE)
    seed: int = field(default=0, metadata=SEED)

    name = "llm_streamline"
    title = "LLM-Streamline"
    meaning = (
        "One light network for each gap, trained to give the stream behind it. Takes minutes: a "
        "short training of what the paper trains on millions of tokens."
    )
    formula = (
        "min over g of mean_{t,c} ( g(x) − y )^2\n"
        "x: the stream in front of a gap, y: behind it, both of the whole model unless gaps are"
        " fitted in turn; g: one decoder layer that starts as the gap's first, or a small gated"
        " network."
    )
    sees = (
        "What is not linear and, as a layer, what comes from other positions: whatever one "
        "layer can be taught of several."
    )
    misses = (
        "The prediction, as the loss is a distance of streams. A short training on little text "
        "gets near it on that text first."
    )
    cost = (
        "Minutes of training, and a layer or a small network for each gap that is stored and "
        "run. A layer needs a gap of two whole ones."
    )
    reference = "https://arxiv.org/abs/2403.19135"
    citation = "Chen et al. 2024, LLM-Streamline"

    def repaired(
        self,
        model: BlockModel,
        plan: PruningPlan,
        windows: CalibrationSet,
        *,
        held: CalibrationSet | None,
        batch_tokens: int,
        memory_bytes: int | None,
    ) -> Events:
        """Done(Repair); UnsupportedModel where a gap is too short for a layer, BadInput where the
        streams would take more than `memory_bytes`."""
        running = _Running(self, model, plan)
        sets = [windows] if held is None else [windows, held]
        running.check_memory(sets, memory_bytes)
        n_tokens = checked_tokens(windows, self)
        if running.networks:
            yield from running.events(windows, held, batch_tokens)
        yield Done(running.repair(n_tokens))


# The windows of one step: so many rows, each with its stream in front of the gap.
Group = list[tuple[Rows, torch.Tensor]]


class _Running:
    def __init__(self, correction: LlmStreamline, model: BlockModel, plan: PruningPlan) -> None:
        self.correction, self.model, self.plan = correction, model, plan
        every = stretches_of(plan, model.info.n_layers, is_parallel=model.family.is_parallel)
        ends = [i for i, stretch in enumerate(every, start=1) if stretch.gap]
        self.stretches = every[: max(ends, default=0)]
        generator = torch.Generator().manual_seed(correction.seed)
        self.networks: dict[BlockId, Network] = {
            s.last: network_of(correction.network, model, s, correction.width, generator)
            for s in self.stretches
            if s.gap
        }
        self.pruned = RepairedModel(model, plan)
        self.fits: list[Fit] = []
        self.notes: dict[BlockId, str] = {}
        self.n_run, self.n_rows, self._size = 0, 0, model.info.hidden_size

    def check_memory(self, sets: Sequence[CalibrationSet], memory_bytes: int | None) -> None:
        """BadInput where the streams of all windows would take more."""
        n_tokens = sum(windows.input_ids.numel() for windows in sets)
        n_streams = 2 if self.correction.is_sequential else 3
        wanted = n_streams * n_tokens * self._size * self.model.dtype.itemsize
        most = max((network.n_numbers for network in self.networks.values()), default=0)
        wanted += COPIES * most * torch.float32.itemsize
        if memory_bytes is not None and wanted > memory_bytes:
            raise BadInput(
                f"Networks were to be trained on {n_tokens} tokens.",
                f"The streams at a gap and a network take {wanted / 2**20:.1f} MiB, and "
                f"{memory_bytes / 2**20:.1f} MiB may be used.",
                "Train on fewer tokens, use network=mlp, or allow more memory.",
            )

    def events(
        self, windows: CalibrationSet, held: CalibrationSet | None, batch_tokens: int
    ) -> Iterator[Progress]:
        """The windows side by side from the first block to the last gap."""
        how = self.correction
        # Neighbours in a text do not share a step.
        mixed = torch.tensor(shuffled(len(windows), 1, how.seed))
        ids, mask = windows.input_ids[mixed], windows.attention_mask[mixed]
        mixed = CalibrationSet(ids, mask, windows.origin)
        most = max(1, batch_tokens // ids.shape[1])
        # So that a step has the same windows, however many of them are run at once.
        n = max(n for n in range(1, how.batch + 1) if how.batch % n == 0 and n <= most)
        rows: list[Rows] = []
        for text, is_held in [(mixed, False)] + ([] if held is None else [(held, True)]):
            shape = {"n_windows": n, "tokens": how.tokens, "is_held": is_held}
            for row in opened(self.model, self.pruned, text, **shape):
                rows.append(row)
                yield Progress(self._stage, 0, 0, "reading the windows")
        self.n_rows = len(rows)
        for stretch in self.stretches:
            fronts = []
            for row in rows:
                fronts.append(self._front(row, stretch))
                yield Progress(self._stage, 0, 0, f"streams behind {stretch.last}")
            if stretch.gap:
                yield from self._train(
                    list(zip(rows, fronts, strict=True)), stretch, how.batch // n
                )
                del fronts
                for _ in self._meet(rows, stretch):
                    yield Progress(self._stage, 0, 0, f"streams behind {stretch.last}")

    @property
    def _stage(self) -> str:
        return f"training {self.correction.name}"

    def _front(self, row: Rows, stretch: Stretch) -> torch.Tensor:
        """What the gap's network reads; both models' streams go on to the end of the stretch, the
        pruned one's without the network."""
        start, blocks = row.whole, stretch.steps[0].blocks
        row.whole = front = behind(row.whole_stage, start, blocks)
        if stretch.alive != blocks:
            front = behind(row.whole_stage, start, stretch.alive)
        for step in stretch.steps[1:]:
            row.whole = behind(row.whole_stage, row.whole, step.blocks)
        self.n_run += len(stretch.blocks)
        if not stretch.is_late:
            row.pruned = row.whole
            return front
        row.pruned = behind(row.pruned_stage, row.pruned, stretch.alive)
        self.n_run += len(stretch.alive)
        return row.pruned if self.correction.is_sequential else front

    def _train(self, pairs: Group, stretch: Stretch, n_rows: int) -> Iterator[Progress]:
        """The gap's network is trained, each step on so many rows."""
        how, network = self.correction, self.networks[stretch.last]
        leaves = network.leaves()
        taught = [pair for pair in pairs if not pair[0].is_held]
        tests = [pair for pair in pairs if pair[0].is_held]
        groups = [taught[i : i + n_rows] for i in range(0, len(taught), n_rows)]
        groups = [group for group in groups if _n_counted(group)]
        order = shuffled(len(groups), how.epochs, how.seed)

        def backward(step: int) -> float:
            group, loss = groups[order[step]], 0.0
            for row, front in group:
                with torch.enable_grad():
                    part = network.missed(leaves, row, front) / (self._size * _n_counted(group))
                part.backward()
                loss += part.item()
            return loss

        @torch.no_grad()
        def held() -> float:
            missed = sum(network.missed(leaves, row, front).item() for row, front in tests)
            return missed / (self._size * _n_counted(tests))

        def so_far(best: Best) -> Repair:
            self._keep(stretch, best)
            return self.repair(0)

        training = train(
            leaves,
            Schedule(len(order), how.lr, how.lr * LAST_SHARE, DECAY, CLIP),
            backward,
            held=held if _n_counted(tests) else None,
            stage=self._stage,
            so_far=so_far,
        )
        self.n_run += STEP_PASSES * how.epochs * len(taught) * network.n_blocks
        self._keep(stretch, (yield from self._counted(training, len(order))))

    def _counted(
        self, training: Generator[Progress, None, Best], n_steps: int
    ) -> Generator[Progress, None, Best]:
        """Its steps among those of all gaps."""
        n_before, n_all = len(self.notes) * n_steps, len(self.networks) * n_steps
        while True:
            try:
                event = next(training)
            except StopIteration as end:
                return end.value
            yield replace(event, done=n_before + event.done, total=n_all)

    def _keep(self, stretch: Stretch, best: Best) -> None:
        self.networks[stretch.last].keep(best.tensors)
        self.notes[stretch.last] = f"Training behind {stretch.last} {best.said}."

    def _meet(self, rows: Sequence[Rows], stretch: Stretch) -> Iterator[None]:
        """The pruned streams go through the network; how near they come."""
        before, after = Met(self._size), Met(self._size)
        network = self.networks[stretch.last]
        for row in rows:
            before.add(row, row.pair(row.pruned, row.whole))
            row.pruned = network.applied(row, row.pruned)
            after.add(row, row.pair(row.pruned, row.whole))
            self.n_run += network.n_blocks
            yield
        self.fits.append(
            Fit(stretch.last, stretch.gap, before.fit, after.fit, before.held, after.held)
        )

    def repair(self, n_tokens: int) -> Repair:
        """With every network as it is so far."""
        repair = Repair(
            self.correction,
            self.plan,
            fits=tuple(self.fits),
            n_tokens=n_tokens,
            passes=self.n_run / (max(1, self.n_rows) * 2 * self.model.info.n_layers),
            notes=tuple(self.notes.values()),
        )
        for block, network in self.networks.items():
            repair = network.put_into(repair, block)
        return repair


def _n_counted(group: Group) -> int:
    """Positions that count."""
    return sum(int(row.wanted.sum()) for row, _ in group)
