"""Every window value that a search has measured, written down as it goes and read by the next one.

A ledger is one file of JSON lines for one model under one metric. A line holds an entry, with the
sha256 by which json_files.unsealed knows it again:

    {"removed": ["18.attn"], "windows": ["5f0c...", "91ab..."], "values": [3.25, 2.875]}

A line is written whole, by one call, at the end of the file, so that several processes may write at
once and a killed one loses no more than what it was measuring. A line that is torn or damaged is
passed over: what it said is measured anew.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blockviz.errors import BadPlan
from blockviz.json_files import sealed, unsealed
from blockviz.metrics import Metric
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.session.identity import identity_of, identity_of_model
from blockviz.session.processes import ALONE, Shares
from blockviz.sources.cache import cache_dir
from blockviz.store import key
from blockviz.types import BlockId, CalibrationSet, RemovedSet

log = logging.getLogger(__name__)

# Removed set -> name of a window -> value.
Known = dict[RemovedSet, dict[str, float]]


class Ledger:
    """Window values of removed sets under one metric. `path` None: kept in memory only.

    A window goes by a name of what is in it, see window_names: a search on more windows of the same
    text finds the values of the first ones.
    """

    def __init__(self, path: Path | None = None, known: Known | None = None) -> None:
        self._path, self._known = path, {} if known is None else known

    def get(self, removed: RemovedSet, windows: Sequence[str]) -> np.ndarray:
        """(window,) float64, NaN where nothing is known."""
        known = self._known.get(removed, {})
        return np.array([known.get(name, math.nan) for name in windows], dtype=np.float64)

    def put(self, removed: RemovedSet, windows: Sequence[str], values: Sequence[float]) -> None:
        """Keep the values; the file gets the finite ones, memory those too that are infinite.

        A full disk costs what would have been kept, not the run.
        """
        found = {n: float(v) for n, v in zip(windows, values, strict=True) if not math.isnan(v)}
        self._known.setdefault(removed, {}).update(found)
        finite = {name: value for name, value in found.items() if math.isfinite(value)}
        if self._path is None or not finite:
            return
        try:
            _append(self._path, _line(removed, finite))
        except OSError as error:
            self._path = None
            log.warning("Evaluations are not kept for a next run: %s.", error.strerror or error)


def open_ledger(
    model: BlockModel,
    metric: Metric,
    *,
    engine: str = "fast",
    folder: Path | None,
    shares: Shares = ALONE,
) -> Ledger:
    """The ledger of a model under a metric, with all that earlier runs have put in.

    `engine`: the road that the values are measured by. `folder` None, or a metric that cannot be
    told from another: nothing is read or written. Of several processes the first alone reads and
    writes, so that all of them know the same.
    """
    identity = identity_of(metric)
    if folder is None or identity is None:
        return Ledger()
    name = key("ledger", identity_of_model(model, engine=engine), identity)
    path = folder / f"{name}.jsonl"
    known = shares.of_first(_read(path) if shares.is_first else None)
    return Ledger(path if shares.is_first else None, known)


def ledger_on_disk(
    model: BlockModel, objective: str, *, engine: str = "fast", shares: Shares = ALONE
) -> Ledger:
    """The ledger in the cache folder of what an objective's name stands for."""
    folder = cache_dir() / "results"
    return open_ledger(model, parse_metric(objective), engine=engine, folder=folder, shares=shares)


def window_names(windows: CalibrationSet) -> tuple[str, ...]:
    """For every window a short hash of its token ids and of which of them are padding."""
    rows = zip(windows.input_ids.cpu().numpy(), windows.attention_mask.cpu().numpy(), strict=True)
    hashes = (hashlib.sha256(ids.tobytes() + mask.tobytes()) for ids, mask in rows)
    return tuple(found.hexdigest()[:16] for found in hashes)


def _line(removed: RemovedSet, values: Mapping[str, float]) -> bytes:
    """One entry. It begins with a line break too: whatever tore the line before, this one is whole.

    Numbers are written with all their digits: what is read back is what was measured, bit for bit.
    """
    names = [str(b) for b in sorted(removed)]
    entry = {"removed": names, "windows": list(values), "values": list(values.values())}
    return b"\n" + sealed(entry).encode() + b"\n"


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(file, line)
    finally:
        os.close(file)
    if written != len(line):
        raise OSError("the disk took half a line")


def _read(path: Path) -> Known:
    known: Known = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return known
    except OSError as error:
        log.warning("Evaluations of earlier runs are not used: %s.", error.strerror or error)
        return known
    for removed, values in _entries(lines):
        known.setdefault(removed, {}).update(values)
    return known


def _entries(lines: Iterable[bytes]) -> Iterable[tuple[RemovedSet, dict[str, float]]]:
    """What the whole lines say."""
    for line in lines:
        try:
            entry = unsealed(line)
            removed = frozenset(BlockId.parse(name) for name in entry["removed"])
            values = dict(zip(entry["windows"], entry["values"], strict=True))
        except (ValueError, KeyError, TypeError, BadPlan):
            continue
        if all(isinstance(n, str) and _is_number(v) for n, v in values.items()):
            yield removed, values


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)
