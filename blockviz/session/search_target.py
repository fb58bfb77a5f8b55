"""What a search was asked to reach, in words, and whether it did."""

from __future__ import annotations

from collections.abc import Sequence

from blockviz.metrics.parsing import parse_metric
from blockviz.search import Space
from blockviz.session.search_views import SearchRequest
from blockviz.types import SearchStep, Unit

# Fewer windows or tokens tell blocks apart by chance.
ENOUGH_WINDOWS, ENOUGH_TOKENS = 8, 1024


def n_units(n: int, unit: Unit) -> str:
    """`3 layers`, `1 block`."""
    return f"{n} {'layer' if unit == 'layer' else 'block'}{'' if n == 1 else 's'}"


def asked(request: SearchRequest) -> str:
    """`8 blocks, at most 20 % of the parameters`; empty where the strategy sets its own end."""
    parts = []
    if request.blocks is not None:
        parts.append(n_units(request.blocks, request.unit))
    if request.ratio is not None:
        parts.append(f"at most {100 * request.ratio:.4g} % of the parameters")
    if request.max_ppl_rise is not None:
        parts.append(f"at most {request.max_ppl_rise:.4g} % more perplexity")
    if request.speedup is not None:
        parts.append(f"{request.speedup:.4g} times as fast")
    return ", ".join(parts)


def unreached(request: SearchRequest, steps: Sequence[SearchStep], space: Space) -> str:
    """A sentence where fewer units went than were asked for and nothing else was; else empty."""
    others = (request.ratio, request.max_ppl_rise, request.speedup)
    removed = steps[-1].removed if steps else ()
    is_short = request.blocks is not None and len(removed) < request.blocks
    if not is_short or any(target is not None for target in others):
        return ""
    wanted, found = n_units(request.blocks, request.unit), len(removed)
    why = "" if space.next_units(removed) else ": one block always stays"
    verb = "is" if found == 1 else "are"
    return f"{wanted} were asked for, and {found} {verb} removed{why}."


def too_few(request: SearchRequest) -> str:
    """A caution where the text is too short to choose by; empty where it is not read at all."""
    n, length = request.text.n_samples, request.text.seq_len
    is_enough = n >= ENOUGH_WINDOWS and n * length >= ENOUGH_TOKENS
    if is_enough or parse_metric(request.objective).name == "acc":
        return ""
    return (
        f"Chosen on {n} {'window' if n == 1 else 'windows'} of {length} tokens: with fewer than "
        f"{ENOUGH_WINDOWS} windows or {ENOUGH_TOKENS} tokens, which blocks go and what that costs "
        "is mostly chance. Read more text."
    )
