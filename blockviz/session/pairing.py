"""Pairwise interactions: what two blocks cost together beyond what each costs alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from blockviz.engine import SetMeter
from blockviz.errors import BadInput
from blockviz.memory import SHARE, free_bytes
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.session.ledger import Ledger, window_names
from blockviz.session.opening import open_windows, provenance_of
from blockviz.session.pools import parse_pool, pooled
from blockviz.session.processes import ALONE, Shares
from blockviz.session.search_views import PairsRequest
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Done,
    Events,
    Interactions,
    Progress,
    Provenance,
    RemovedSet,
    passing,
)


def pairs_request(
    model: BlockModel,
    request: PairsRequest,
    ledger: Ledger | None = None,
    shares: Shares = ALONE,
) -> Events:
    """Done(Interactions) of a request; a partial one after every block."""
    check_pairs(request)
    windows = yield from passing(open_windows(model, request.text))
    yield from pairs_windows(model, windows, request, ledger, shares)


def road_of(request: PairsRequest) -> str:
    """The name of how a request reads its losses: a ledger holds those of one such way."""
    if request.n_positions is None:
        return "fast"
    return f"fast, {request.n_positions} positions by seed {request.seed}"


def check_pairs(request: PairsRequest) -> None:
    """BadInput where a request cannot be run."""
    if request.n_positions is not None and request.n_positions < 1:
        raise BadInput(
            f"{request.n_positions} positions of each window were to be read.",
            "That is none.",
            "Read 1 or more, or all of them.",
        )
    if metric := parse_pool(request.pool)[0]:
        parse_metric(metric)
    if request.text.seq_len < 2:
        raise BadInput(
            f"Windows of {request.text.seq_len} tokens were asked for.",
            "A next-token loss needs at least 2.",
            "Ask for longer windows.",
        )


def pairs_windows(
    model: BlockModel,
    windows: CalibrationSet,
    request: PairsRequest,
    ledger: Ledger | None = None,
    shares: Shares = ALONE,
) -> Events:
    """Done(Interactions) on given windows.

    First the whole model and every single cut, then for each block all pairs with a later one: they
    share everything up to the later one. The head reads a seeded sample of positions, the same of
    all sets; the ledger must be that of this sample, see road_of.
    """
    units = yield from passing(
        pooled(model, windows, request.text, model.info.candidates(request.unit), request.unit,
               request.pool)
    )  # fmt: skip
    memory = request.memory_bytes or int(SHARE * free_bytes() / shares.count)
    longest = windows.input_ids.shape[1] - 1
    is_sampled = request.n_positions is not None and request.n_positions < longest
    meter = SetMeter(
        model,
        windows,
        parse_metric("ppl"),
        memory_bytes=memory,
        n_positions=request.n_positions if is_sampled else None,
        seed=request.seed,
    )
    table = _Pairs(
        provenance_of(model, windows.origin),
        units,
        n_positions=request.n_positions if is_sampled else longest,
    )
    total = 1 + len(units) + math.comb(len(units), 2)
    asks = [[frozenset(), *(frozenset(u.parts) for u in units)]]
    asks += [[_both(u, v) for v in units[i + 1 :]] for i, u in enumerate(units[:-1])]
    done, names = 0, window_names(windows)
    mine = shares.mine(list(range(len(windows))))
    for number, sets in enumerate(asks):
        note = "single cuts" if number == 0 else f"pairs with {units[number - 1]}"
        known = None if ledger is None else _known(ledger, sets, names)
        if known is None:
            measuring = meter.values(sets, mine)
            while known is None:
                try:
                    next(measuring)
                    yield Progress("measuring pairs", done, total, note)
                except StopIteration as end:
                    known = shares.gathered(end.value.numpy())
            if ledger is not None:
                for removed, row in zip(sets, known, strict=True):
                    ledger.put(removed, names, row)
        table.losses |= zip(sets, known, strict=True)
        done += len(sets)
        partial = table.found(is_partial=done < total)
        yield Progress("measuring pairs", done, total, note, partial=partial)
    yield Done(table.found(is_partial=False))


def _known(ledger: Ledger, sets: Sequence[RemovedSet], names: Sequence[str]) -> np.ndarray | None:
    found = np.stack([ledger.get(s, names) for s in sets])
    return None if np.isnan(found).any() else found


@dataclass
class _Pairs:
    """Window losses of the sets that were measured so far."""

    provenance: Provenance
    units: tuple[BlockId, ...]
    n_positions: int
    losses: dict[RemovedSet, np.ndarray] = field(default_factory=dict)

    def found(self, *, is_partial: bool) -> Interactions:
        whole = self.losses[frozenset()]
        alone = {u: self.losses[frozenset(u.parts)] for u in self.units}
        rows = {
            (u, v): self.losses[_both(u, v)] - alone[u] - alone[v] + whole
            for u, v in combinations(self.units, 2)
            if _both(u, v) in self.losses
        }
        n = len(whole)
        return Interactions(
            provenance=self.provenance,
            whole=float(whole.mean()),
            singles={u: float((row - whole).mean()) for u, row in alone.items()},
            pairs={pair: float(row.mean()) for pair, row in rows.items()},
            stderr={
                pair: float(row.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0
                for pair, row in rows.items()
            },
            n_positions=self.n_positions,
            is_partial=is_partial,
        )


def _both(u: BlockId, v: BlockId) -> RemovedSet:
    return frozenset((*u.parts, *v.parts))
