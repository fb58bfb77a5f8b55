"""Repairs of one model that are fitted already, found again by what they were fitted from."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

import torch

from blockviz.corrections import Correction, Repair
from blockviz.memory import free_bytes
from blockviz.models.model import BlockModel
from blockviz.settings import label_of
from blockviz.types import CalibrationSet, PruningPlan

MOST_BYTES = 2**30
# They never take more than this share of the memory that is free.
SHARE = 0.125

Key = tuple[object, ...]


class FittedRepairs:
    """In memory, the least recently used dropped first.

    A trained repair depends on the held-out windows, by which training keeps its best step, so
    they are part of what it is found by. `model` is the only one whose repairs are kept: a job
    that still runs another one neither finds nor leaves any. Methods may be called from any thread.
    """

    def __init__(self, model: BlockModel, *, most_bytes: int | None = None) -> None:
        self._model, self._most_bytes = model, most_bytes
        self._repairs: OrderedDict[Key, Repair] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, model: BlockModel, key: Key) -> Repair | None:
        with self._lock:
            if model is not self._model or key not in self._repairs:
                return None
            self._repairs.move_to_end(key)
            return self._repairs[key]

    def put(self, model: BlockModel, key: Key, repair: Repair) -> None:
        if model is not self._model:
            return
        most = self._most_bytes
        if most is None:
            most = min(MOST_BYTES, int(SHARE * free_bytes()))
        with self._lock:
            self._repairs[key] = repair
            self._repairs.move_to_end(key)
            while self._repairs and sum(map(n_bytes_of, self._repairs.values())) > most:
                self._repairs.popitem(last=False)


def key_of(
    plan: PruningPlan, correction: Correction, windows: CalibrationSet, held: CalibrationSet | None
) -> Key:
    """What a fit depends on beside the model: the set of blocks, every setting, the token ids."""
    return (
        label_of(correction),
        frozenset(plan.removed),
        _tokens(windows),
        None if held is None else _tokens(held),
    )


def _tokens(windows: CalibrationSet) -> tuple[str, tuple[int, ...]]:
    """The hash does not tell 2 windows of 8 tokens from 4 of 4."""
    return windows.origin.token_hash, tuple(windows.input_ids.shape)


def n_bytes_of(repair: Repair) -> int:
    """What its tensors take in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(repair))


def _tensors(repair: Repair) -> Iterator[torch.Tensor]:
    for module in (*repair.maps.values(), *repair.inputs.values()):
        yield from module.buffers()
        yield from module.parameters()
    for writing in repair.writers.values():
        yield writing.weight
        if writing.bias is not None:
            yield writing.bias
    for tensors in repair.weights.values():
        yield from tensors.values()
