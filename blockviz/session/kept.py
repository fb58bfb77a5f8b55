"""Evaluations of earlier runs, found again by what they were computed from."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import torch

from blockviz.engine import SetRunner
from blockviz.metrics import Metric
from blockviz.models.model import BlockModel
from blockviz.session.identity import identity_of, identity_of_model
from blockviz.sources.cache import cache_dir
from blockviz.store import JsonFolder, key
from blockviz.types import BlockId, CalibrationBatch

log = logging.getLogger(__name__)


class Shelf(Protocol):
    """Where plain values lie under keys; see store.Store and store.JsonFolder."""

    def get(self, key: str) -> Any: ...
    def put(self, key: str, value: Any) -> None: ...


class KeptResults:
    """What was measured of one model on batches of windows: by candidate and metric, and by set.

    Part of every key is what identity_of_model says: a changed formula is computed anew.
    `n_evaluated`, `n_reused`: how many candidates or sets on a batch were run, and were known.
    """

    def __init__(self, shelf: Shelf, model: BlockModel, *, engine: str) -> None:
        self._shelf, self._can_write = shelf, True
        self._model = identity_of_model(model, engine=engine)
        self._identities: dict[Metric, str | None] = {}
        self.n_evaluated = self.n_reused = 0

    def get(
        self, metric: Metric, batch: CalibrationBatch, candidate: BlockId | None
    ) -> torch.Tensor | None:
        """(n_windows,) float64, or None."""
        identity = self._identity(metric)
        if identity is None:
            return None
        return self._read(self._ablation(identity, batch, candidate), batch)

    def put(
        self,
        batch: CalibrationBatch,
        candidate: BlockId | None,
        found: Sequence[tuple[Metric, torch.Tensor]],
    ) -> None:
        for metric, values in found:
            identity = self._identity(metric)
            if identity is not None:
                self._write(self._ablation(identity, batch, candidate), values)

    def losses(self, runner: SetRunner, index: int, removed: Iterable[BlockId]) -> torch.Tensor:
        """(batch,) float64 nats of a runner's batch with a set of blocks removed."""
        batch = runner.batch(index)
        names = sorted(str(p) for p in {p for b in removed for p in b.parts})
        place = key("losses", self._model, _hash(batch), names)
        known = self._read(place, batch)
        if known is not None:
            self.n_reused += 1
            return known
        found = runner.nll_of_batch(index, map(BlockId.parse, names))
        self.n_evaluated += 1
        self._write(place, found)
        return found

    def _identity(self, metric: Metric) -> str | None:
        if metric not in self._identities:
            self._identities[metric] = identity_of(metric)
        return self._identities[metric]

    def _ablation(self, identity: str, batch: CalibrationBatch, candidate: BlockId | None) -> str:
        return key("ablation", self._model, identity, _hash(batch), str(candidate))

    def _read(self, place: str, batch: CalibrationBatch) -> torch.Tensor | None:
        """One number a window; None where there is nothing, or something else."""
        found = self._shelf.get(place)
        if not isinstance(found, list) or len(found) != len(batch.input_ids):
            return None
        if not all(isinstance(value, float) and math.isfinite(value) for value in found):
            return None
        return torch.tensor(found, dtype=torch.float64)

    def _write(self, place: str, values: torch.Tensor) -> None:
        """Keep finite values. A full disk costs what would have been kept, not the run."""
        if not self._can_write or not bool(values.isfinite().all()):
            return
        try:
            self._shelf.put(place, values.tolist())
        except OSError as error:
            self._can_write = False
            log.warning("Results are not kept for a next run: %s.", error.strerror or error)


def kept_on_disk(model: BlockModel, *, engine: str) -> KeptResults:
    """The results kept in the cache folder."""
    return KeptResults(JsonFolder(cache_dir() / "results"), model, engine=engine)


def _hash(batch: CalibrationBatch) -> str:
    shape = list(batch.input_ids.shape)
    digest = hashlib.sha256(batch.input_ids.cpu().numpy().tobytes())
    digest.update(batch.attention_mask.cpu().numpy().tobytes())
    return key(shape, digest.hexdigest())
