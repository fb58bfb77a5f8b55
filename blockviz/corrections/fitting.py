"""Fitting a correction: both models go through the fit set side by side, block after block.

Of each model one stream is held for the whole fit set, never more, and up to the first gap it is
the same one. The whole model goes ahead to the next depth at which the pruned one has a block
again; the pruned one follows; what stands in between is fitted and put in, and both go on from
there. That takes one pass of each model, and one more over the blocks whose writer is changed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from blockviz.corrections.base import (
    Correction,
    Fit,
    Fitter,
    Pair,
    Place,
    Repair,
    SelfFitted,
    Writing,
)
from blockviz.corrections.places import Stretch, stretches_of
from blockviz.corrections.rows import (
    Met,
    Rows,
    behind,
    check_memory,
    checked_tokens,
    mapped,
    norm_of,
    opened,
    through,
    wide,
)
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel, linear_writer
from blockviz.models.stage import Stage
from blockviz.models.writers import watch_writers, writer_weight
from blockviz.types import BlockId, CalibrationSet, Done, Events, Progress, PruningPlan

Read = dict[BlockId, torch.Tensor]


def fit(
    model: BlockModel,
    plan: PruningPlan,
    correction: Correction,
    windows: CalibrationSet,
    *,
    held: CalibrationSet | None = None,
    batch_tokens: int = 2048,
    memory_bytes: int | None = None,
) -> Events:
    """Done(Repair) of a correction fitted on windows; a Progress after every few of them.

    held: windows that say how well it fits what it has not seen; nothing is fitted on them.
    BadInput where the streams would take more than `memory_bytes`, or no position counts;
    UnsupportedModel where a writer that it changes is none.
    """
    correction.check(model.info.hidden_size)
    if isinstance(correction, SelfFitted):
        yield from correction.repaired(
            model,
            plan,
            windows,
            held=held,
            batch_tokens=batch_tokens,
            memory_bytes=memory_bytes,
        )
        return
    check_memory(model, [windows] if held is None else [windows, held], memory_bytes)
    n_tokens = checked_tokens(windows, correction)
    running = _Fitting(model, plan, correction)
    yield from running.events(windows, held, batch_tokens)
    yield Done(running.repair(n_tokens))


@dataclass(frozen=True)
class _Site:
    """A place as it is met: the streams there, or behind a reader's norm, or with what a writer
    reads and adds. Without a fitter it is only looked at."""

    block: BlockId
    fitter: Fitter | None = None
    norm: nn.Module | None = None
    writer: nn.Module | None = None

    def pair(self, rows: Rows, u: torch.Tensor, read: Read) -> Pair:
        y = rows.whole
        if self.norm is not None:
            return rows.pair(through(self.norm, u), through(self.norm, y))
        if self.block not in read or self.writer is None:
            return rows.pair(u, y)
        features = read[self.block]
        return rows.pair(u, y, update=through(self.writer, features), features=features)

    def feed(self, rows: Rows, pair: Pair) -> None:
        if self.fitter is not None and not rows.is_held:
            self.fitter.add(pair)


class _Fitting:
    def __init__(self, model: BlockModel, plan: PruningPlan, correction: Correction) -> None:
        self.whole, self.repaired = model, RepairedModel(model, plan)
        self.plan, self.correction, self.where = plan, correction, correction.where
        n_layers, is_parallel = model.info.n_layers, model.family.is_parallel
        self.every = stretches_of(plan, n_layers, is_parallel=is_parallel)
        ends = [i for i, s in enumerate(self.every, start=1) if s.gap or self._is_place(s)]
        # Behind the last place there is nothing left to fit.
        self.stretches = self.every[: max(ends, default=0)]
        self.maps: dict[BlockId, nn.Module] = {}
        self.writers: dict[BlockId, Writing] = {}
        self.fits: list[Fit] = []
        self.notes: list[str] = []
        # Blocks of either model that a few windows went through so far, and will go through.
        self.n_run, self.n_runs, self.n_rows = 0, 0, 0
        for stretch in filter(self._is_refit, self.stretches):
            linear_writer(self.repaired, stretch.alive[-1])

    def _is_refit(self, stretch: Stretch) -> bool:
        """Whether the last writer of its surviving blocks is changed."""
        if self.where != "writer" or not (stretch.is_late and stretch.alive):
            return False
        return self.correction.changes(stretch.alive[-1], stretch.gap)

    def _is_place(self, stretch: Stretch) -> bool:
        """Whether something is fitted there."""
        if self.where == "writer":
            return self._is_refit(stretch)
        is_read = stretch is not self.every[-1]
        if self.where == "every_block":
            return stretch.is_late and (is_read or bool(stretch.gap))
        return bool(stretch.gap) and (is_read or self.where == "gap")

    def events(
        self, windows: CalibrationSet, held: CalibrationSet | None, batch_tokens: int
    ) -> Iterator[Progress]:
        if not self.stretches:
            return
        stage, rows = f"fitting {self.correction.name}", []
        for found, is_held in [(windows, False)] + ([] if held is None else [(held, True)]):
            n = max(1, batch_tokens // found.input_ids.shape[1])
            how = {"n_windows": n, "tokens": self.correction.tokens, "is_held": is_held}
            for row in opened(self.whole, self.repaired, found, **how):
                rows.append(row)
                yield Progress(stage, 0, 0, "reading the windows")
        self.n_rows = len(rows)
        self.n_runs = len(rows) * sum(map(self._n_runs, self.stretches))
        for stretch in self.stretches:
            for _ in self._stretch(rows, stretch):
                yield Progress(stage, self.n_run, self.n_runs, str(stretch.blocks[0]))

    def _n_runs(self, stretch: Stretch) -> int:
        """How many blocks the rows are run through there."""
        n = len(stretch.blocks)
        if not stretch.is_late:
            return n
        is_split = bool(stretch.steps[0].removed) and not self.correction.is_sequential
        times = 1 + self._is_refit(stretch) + (is_split and self._is_place(stretch))
        return n + len(stretch.alive) * times

    def repair(self, n_tokens: int) -> Repair:
        n_blocks = max(1, self.n_rows) * 2 * self.whole.info.n_layers
        return Repair(
            correction=self.correction,
            plan=self.plan,
            maps=self.maps,
            inputs=dict(self.repaired.inputs),
            writers=self.writers,
            fits=tuple(self.fits),
            n_tokens=n_tokens,
            passes=self.n_run / n_blocks,
            notes=tuple(self.notes),
        )

    def _run(
        self,
        stage: Stage,
        stream: torch.Tensor,
        blocks: Sequence[BlockId],
        sites: Sequence[_Site] = (),
    ) -> tuple[torch.Tensor, Read]:
        """The stream behind the blocks, and what the writers of these sites read."""
        self.n_run += len(blocks)
        read: Read = {}
        writers = [s.block for s in sites if s.writer is not None and s.block in blocks]
        with watch_writers(stage.model, writers, read.__setitem__):
            return behind(stage, stream, blocks), read

    def _stretch(self, rows: Sequence[Rows], stretch: Stretch) -> Iterator[None]:
        sites = self._sites(stretch)
        for row in rows:
            self._lead(row, stretch, sites)
            yield
        if not stretch.is_late:
            return
        shown = sites or ([_Site(stretch.last)] if stretch.gap else [])
        before = [Met(self.whole.info.hidden_size) for _ in shown]
        for row in rows:
            u, read = self._run(row.pruned_stage, row.pruned, stretch.alive, sites)
            for site, met in zip(shown, before, strict=True):
                pair = site.pair(row, u, read)
                met.add(row, pair)
                if self.correction.is_sequential:
                    site.feed(row, pair)
            if not self._is_refit(stretch):
                row.pruned = u
            yield
        after = (yield from self._put(rows, stretch, sites)) if sites else before
        for site, old, new in zip(shown, before, after, strict=True):
            self.fits.append(Fit(site.block, stretch.gap, old.fit, new.fit, old.held, new.held))

    def _lead(self, row: Rows, stretch: Stretch, sites: Sequence[_Site]) -> None:
        """The whole model goes to the end of the stretch. Gaps that are fitted in parallel are fed
        its stream where the gap begins."""
        first, start = stretch.steps[0], row.whole
        row.whole, read = self._run(row.whole_stage, start, first.blocks, sites)
        u = row.whole
        is_fed = bool(sites) and not self.correction.is_sequential
        if is_fed and first.removed:
            u, _ = self._run(row.whole_stage, start, first.alive)
        for step in stretch.steps[1:]:
            row.whole, _ = self._run(row.whole_stage, row.whole, step.blocks)
        if not stretch.is_late:
            row.pruned = row.whole
        for site in sites if is_fed else ():
            site.feed(row, site.pair(row, u, read))

    def _sites(self, stretch: Stretch) -> list[_Site]:
        size, gap = self.whole.info.hidden_size, stretch.gap
        if not self._is_place(stretch):
            if gap and self.where == "writer" and not stretch.alive:
                self.notes.append(f"No block writes in front of {gap[0]}: nothing is fitted there.")
            if gap and self.where == "norm_out":
                self.notes.append(f"No block reads behind {gap[-1]}: nothing is fitted there.")
            return []
        if self.where == "writer":
            place = _writer_place(self.repaired, stretch)
            module = linear_writer(self.repaired, place.block)
            return [_Site(place.block, self.correction.fitter(place), writer=module)]
        if self.where == "norm_out":
            readers = self.every[self.every.index(stretch) + 1].alive
            found = [(block, norm_of(self.whole, block)) for block in readers]
            return [
                _Site(b, self.correction.fitter(Place(size, b, gap, norm=wide(norm))), norm=norm)
                for b, norm in found
            ]
        slot = next((b for b in reversed(gap) if b.part == "mlp"), gap[-1] if gap else None)
        norm = None if slot is None else wide(norm_of(self.whole, slot))
        fitter = self.correction.fitter(Place(size, stretch.last, gap, norm=norm))
        return [_Site(stretch.last, fitter)]

    def _put(
        self, rows: Sequence[Rows], stretch: Stretch, sites: Sequence[_Site]
    ) -> Generator[None, None, list[Met]]:
        """What was fitted is put in and the pruned streams are brought up to it; how it is met."""
        for site in sites:
            found = site.fitter.result()
            if self.where == "writer":
                self.repaired.put_writer(site.block, found.weight, found.bias)
                self.writers[site.block] = found
            elif self.where == "norm_out":
                self.repaired.put_input(site.block, found)
            else:
                self.maps[site.block] = found.to(self.whole.device)
            yield
        after = [Met(self.whole.info.hidden_size) for _ in sites]
        for row in rows:
            if self.where == "writer":
                row.pruned, _ = self._run(row.pruned_stage, row.pruned, stretch.alive)
            elif self.where != "norm_out":
                row.pruned = mapped(self.maps[stretch.last], row.pruned)
            for site, met in zip(sites, after, strict=True):
                pair = site.pair(row, row.pruned, {})
                if self.where == "norm_out":
                    pair = replace(pair, u=through(self.repaired.inputs[site.block], pair.u))
                met.add(row, pair)
            yield
        return after


def _writer_place(model: RepairedModel, stretch: Stretch) -> Place:
    block = stretch.alive[-1]
    bias = getattr(linear_writer(model, block), "bias", None)
    return Place(
        model.info.hidden_size,
        block,
        stretch.gap,
        weight=writer_weight(model, block).detach().float().cpu(),
        bias=None if bias is None else bias.detach().float().cpu(),
    )
