"""Several processes at one search: each measures its share of the windows, and all see all values.

`accelerate launch --multi_gpu --num_processes 2 -m blockviz ...` starts them, on CPUs too; what one
has to know of the others goes through accelerate. Every process takes every decision by itself,
from the same numbers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from blockviz.types import RemovedSet

if TYPE_CHECKING:
    from blockviz.session.objectives import Objective

log = logging.getLogger(__name__)

T = TypeVar("T")

# Steps in between; at the end (set, window) float64.
Values = Generator[None, None, np.ndarray]


class Shares:
    """Which of what is asked this process measures: every `count`-th, from number `rank` on."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def mine(self, asked: Sequence[T]) -> Sequence[T]:
        """The share of this process; empty where there are more processes than things asked."""
        return asked[self.rank :: self.count] if self.count > 1 else asked

    def gathered(self, values: np.ndarray, axis: int = 1) -> np.ndarray:
        """(set, window) of everything that was asked, of each process's share along `axis`."""
        if self.count == 1:
            return values
        from accelerate.utils import gather_object

        parts = [np.moveaxis(part, axis, 0) for part in gather_object([values])]
        found = np.empty((sum(map(len, parts)), *parts[0].shape[1:]))
        for rank, part in enumerate(parts):
            found[rank :: self.count] = part
        return np.moveaxis(found, 0, axis)

    def of_first(self, value: T) -> T:
        """What the first process has here: for all that hangs on the clock or on a file."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        (found,) = broadcast_object_list([value])
        return found


ALONE = Shares()


def open_shares(device: str = "auto") -> Shares:
    """The shares of the processes that were started together; ALONE if this is the only one.

    To be called before a model is put on a GPU: it gives each process one of its own.
    """
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        _warn_if_alone_by_mistake()
        return ALONE
    from accelerate import PartialState

    is_on_gpu = device.startswith(("auto", "cuda")) and torch.cuda.is_available()
    state = PartialState(cpu=not is_on_gpu)
    return Shares(state.process_index, state.num_processes)


def _warn_if_alone_by_mistake() -> None:
    """`accelerate launch --cpu` names a meeting point, and then starts one process of several."""
    is_by_accelerate = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1")
    if is_by_accelerate and "MASTER_PORT" in os.environ and "WORLD_SIZE" not in os.environ:
        log.warning(
            "accelerate launch --cpu has started one process only. Several processes on CPUs are "
            "started by accelerate launch --multi_gpu --num_processes N, without --cpu."
        )


def close_shares() -> None:
    """Take leave of the other processes, where there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class SharedObjective:
    """An objective that is measured by several processes, each window by one of them.

    Where it runs one set after another over all windows, each set goes to one of them instead.
    """

    def __init__(self, own: Objective, shares: Shares) -> None:
        self.label, self.unit_label, self.is_exact = own.label, own.unit_label, own.is_exact
        self.names, self._own, self._shares = own.names, own, shares

    def __len__(self) -> int:
        return len(self._own)

    def values(self, sets: Sequence[RemovedSet], windows: Sequence[int]) -> Values:
        """(set, window) of all the windows that are named."""
        shares = self._shares
        if self.is_exact:
            found = yield from self._own.values(shares.mine(list(sets)), windows)
            return shares.gathered(found, axis=0)
        found = yield from self._own.values(sets, shares.mine(list(windows)))
        return shares.gathered(found)

    def number(self, mean: float) -> float:
        return self._own.number(mean)


def shared(own: Objective, shares: Shares) -> Objective:
    """The objective itself where there is one process; else each measures its share of it."""
    return own if shares.count == 1 else SharedObjective(own, shares)
