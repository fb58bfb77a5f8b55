"""What the Stand-ins page says of pairs and of the plan on the Map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from blockviz.session import Visitor
from blockviz.session.pair_findings import PairFindings, pair_findings
from blockviz.ui.words import grouped, short

if TYPE_CHECKING:
    from blockviz.session import Engine

# With fewer, a picture of foretold against measured says nothing.
FEWEST_SETS = 3


def pairs_for(engine: Engine, visitor: Visitor) -> PairFindings | None:
    """What this visitor's pairs say; None where none are kept, or too few to say anything."""
    found = engine.interactions(visitor.pairs_key)
    if found is None or not found.pairs:
        return None
    runs = (engine.search_run(key) for key in visitor.searches)
    return pair_findings(found, [run for run in runs if run is not None])


def pairs_state(engine: Engine, visitor: Visitor, found: PairFindings) -> str:
    """Partial or stale, in words; nothing where the pairs are whole."""
    if visitor.model_key != engine.model_key:
        return "Another model has been loaded since. Reload the page to measure its pairs."
    if found.interactions.is_partial:
        n = len(found.interactions.pairs)
        return f"Partial: {grouped(n)} pairs so far. What is measured is kept."
    return ""


def foretold(visitor: Visitor, found: PairFindings | None) -> str:
    """The foretold perplexity of the plan on the Map, called what it is."""
    plan = visitor.plan()
    if found is None or not plan.removed:
        return ""
    guess = found.surrogate.predict(plan.removed)
    n = len(plan.removed)
    if guess is None:
        return f"The plan on the Map ({n} removed) holds a block whose pairs were not measured."
    low, high = (short(guess.perplexity_at(e)) for e in (-1, 1))
    data = found.interactions.provenance.data
    whole = math.exp(min(found.interactions.whole, 700.0))
    text = f" on {data.describe()}" if data else ""
    return (
        f"Predicted, not measured: perplexity {short(guess.perplexity)} ({low} to {high}, one "
        f"standard error) for the plan on the Map ({n} removed), {short(whole)} with nothing "
        f"removed{text}."
    )
