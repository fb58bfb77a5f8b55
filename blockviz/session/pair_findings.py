"""What measured pairs say: which blocks stand in for which, and what larger sets would cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blockviz.rankings import StandIn, Surrogate, clustered, stand_ins
from blockviz.types import BlockId, Interactions, Provenance, RemovedSet, SearchRun, parts_of

MOST_STAND_INS = 15


@dataclass(frozen=True)
class PairFindings:
    """clustered: the blocks so ordered that stand-ins are neighbours; measured: the mean loss in
    nats of sets known on the same text, which `surrogate` is fitted to."""

    interactions: Interactions
    clustered: tuple[BlockId, ...]
    stand_ins: tuple[StandIn, ...]
    surrogate: Surrogate
    measured: Mapping[RemovedSet, float]

    @property
    def n_foretold(self) -> int:
        """How many of the measured sets the pairs say something of."""
        return sum(self.surrogate.predict(removed) is not None for removed in self.measured)


def pair_findings(interactions: Interactions, runs: Sequence[SearchRun] = ()) -> PairFindings:
    """`runs`: searches; those by perplexity on the text of the pairs check what is foretold."""
    measured = {
        parts_of(removed): math.log(number)
        for run in runs
        if run.objective == "ppl" and _is_same_text(run.provenance, interactions.provenance)
        for removed, number in run.measured
        if number > 0
    }
    return PairFindings(
        interactions,
        clustered(interactions),
        stand_ins(interactions, MOST_STAND_INS),
        Surrogate(interactions).fitted(measured),
        measured,
    )


def _is_same_text(a: Provenance, b: Provenance) -> bool:
    return (
        a.data is not None
        and b.data is not None
        and a.data.token_hash == b.data.token_hash
        and (a.model, a.revision, a.dtype) == (b.model, b.revision, b.dtype)
    )
