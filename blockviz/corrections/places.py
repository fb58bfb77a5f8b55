"""The order in which a plan's blocks are met: what runs together, and where its gaps are."""

from __future__ import annotations

from dataclasses import dataclass

from blockviz.types import BlockId, PruningPlan


@dataclass(frozen=True)
class Step:
    """Blocks that are added to the stream at once: one, or both of a parallel layer."""

    blocks: tuple[BlockId, ...]
    removed: tuple[BlockId, ...]

    @property
    def alive(self) -> tuple[BlockId, ...]:
        return tuple(b for b in self.blocks if b not in self.removed)


@dataclass(frozen=True)
class Stretch:
    """A step with surviving blocks and those behind it that have none; or the latter alone, in
    front of the first survivor.

    gap: what is removed of it, which the pruned model's stream behind it lacks. is_late: something
    is removed in it or in front of it.
    """

    steps: tuple[Step, ...]
    is_late: bool

    @property
    def alive(self) -> tuple[BlockId, ...]:
        return self.steps[0].alive

    @property
    def gap(self) -> tuple[BlockId, ...]:
        return tuple(b for step in self.steps for b in step.removed)

    @property
    def blocks(self) -> tuple[BlockId, ...]:
        return tuple(b for step in self.steps for b in step.blocks)

    @property
    def last(self) -> BlockId:
        """Behind which the stream is the stretch's."""
        return self.blocks[-1]


def steps_of(plan: PruningPlan, n_layers: int, *, is_parallel: bool) -> tuple[Step, ...]:
    """Every block of the model, in order."""
    gone = {part for b in plan.removed for part in b.parts}
    steps = []
    for layer in range(n_layers):
        parts = BlockId(layer, "layer").parts
        for blocks in [parts] if is_parallel else [(part,) for part in parts]:
            steps.append(Step(blocks, tuple(b for b in blocks if b in gone)))
    return tuple(steps)


def stretches_of(plan: PruningPlan, n_layers: int, *, is_parallel: bool) -> tuple[Stretch, ...]:
    """Every block of the model, in order; each gap is the end of a stretch."""
    groups: list[list[Step]] = []
    for step in steps_of(plan, n_layers, is_parallel=is_parallel):
        if step.alive or not groups:
            groups.append([])
        groups[-1].append(step)
    stretches, is_late = [], False
    for group in groups:
        is_late = is_late or any(step.removed for step in group)
        stretches.append(Stretch(tuple(group), is_late))
    return tuple(stretches)
