"""Training a correction: one loop for all of them, which keeps the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from blockviz.corrections.base import SelfFitted
from blockviz.types import Progress

# So often, the beginning and the end included, what is trained is tried on the held windows.
N_LOOKS = 8
# Going back through a model takes about as long as two ways forward.
STEP_PASSES = 3

EPOCHS = {"label": "Times through the text", "min": 0}
RATE = {"label": "Learning rate at the start", "min": 0.0, "max": 1.0}
SEED = {"label": "Seed of the order", "min": 0, "max": 2**32 - 1}

Tensors = Mapping[Any, torch.Tensor]


@dataclass(frozen=True)
class Trained(SelfFitted):
    """A correction that gradients find, step by step: it takes far longer than all others.

    `all` and `auto` leave it out. While it is fitted, a Progress now and then carries as its
    `partial` the Repair that is the best so far.
    """

    is_experimental: ClassVar[bool] = True


@dataclass(frozen=True)
class Schedule:
    """AdamW, its learning rate along half a cosine from `first` to `last`; clip: the largest norm
    of a gradient. looks: how often the held windows are tried."""

    n_steps: int
    first: float
    last: float
    decay: float
    clip: float = math.inf
    n_looks: int = N_LOOKS

    def rate(self, step: int) -> float:
        """Of step 0, 1, ... n_steps - 1; `last` is that of the last one."""
        share = step / max(1, self.n_steps - 1)
        return self.last + (self.first - self.last) * (1 + math.cos(math.pi * share)) / 2

    @property
    def looks(self) -> frozenset[int]:
        """After how many steps."""
        last = max(1, self.n_looks - 1)
        return frozenset(round(self.n_steps * i / last) for i in range(last + 1))


@dataclass
class Best:
    """What is to be kept so far: of the step with the least held loss, or without one the last."""

    tensors: Tensors
    n_steps: int
    step: int = 0
    held: float | None = None
    fault: str = ""

    @property
    def said(self) -> str:
        """Which step it is of, and how well that did."""
        by = "" if self.held is None else f", the least loss on held-out text: {self.held:.4g}"
        return f"kept step {self.step} of {self.n_steps}{by}{self.fault}"


def train(
    leaves: Tensors,
    how: Schedule,
    backward: Callable[[int], float],
    *,
    held: Callable[[], float] | None = None,
    stage: str,
    so_far: Callable[[Best], Any],
) -> Generator[Progress, None, Best]:
    """The best tensors of the leaves; a Progress a step, with `so_far` of them when they improve.

    backward: the loss of a step, after adding its gradient to the leaves; held: the loss on text
    that is not trained on. A step whose loss is no number ends the training.
    """
    optimizer = torch.optim.AdamW(leaves.values(), lr=how.first, weight_decay=how.decay)
    best = Best(_copied(leaves), how.n_steps)
    mean, looks = math.nan, how.looks
    for step in range(how.n_steps + 1):
        if step in looks:
            is_better = _look(best, leaves, step, None if held is None else held())
            yield Progress(
                stage, step, how.n_steps, _note(mean, best), so_far(best) if is_better else None
            )
        if step == how.n_steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = how.rate(step)
        optimizer.zero_grad(set_to_none=True)
        loss = backward(step)
        norm = torch.nn.utils.clip_grad_norm_(leaves.values(), how.clip)
        if not math.isfinite(loss + norm.item()):
            best.fault = f"; training ended at step {step + 1}, whose loss was no number"
            break
        optimizer.step()
        mean = loss if math.isnan(mean) else 0.9 * mean + 0.1 * loss
        yield Progress(stage, step + 1, how.n_steps, _note(mean, best))
    return best


def _look(best: Best, leaves: Tensors, step: int, held: float | None) -> bool:
    """Whether the leaves are better than the best so far, which they are then."""
    if held is not None and not (math.isfinite(held) and (best.held is None or held < best.held)):
        return False
    best.tensors, best.step, best.held = _copied(leaves), step, held
    return True


def _copied(leaves: Tensors) -> Tensors:
    return {name: leaf.detach().clone() for name, leaf in leaves.items()}


def _note(loss: float, best: Best) -> str:
    """`loss 0.412, held out 0.53 at best`."""
    parts = [] if math.isnan(loss) else [f"loss {loss:.4g}"]
    parts += [] if best.held is None else [f"held out {best.held:.4g} at best"]
    return ", ".join(parts)


def shuffled(n_items: int, n_epochs: int, seed: int) -> Sequence[int]:
    """All items in another order each time, so many times over."""
    generator = torch.Generator().manual_seed(seed)
    return [int(i) for _ in range(n_epochs) for i in torch.randperm(n_items, generator=generator)]
