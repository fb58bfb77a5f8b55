"""How much of one token set is also in another: what was fitted to a text is not judged on it."""

from __future__ import annotations

from collections.abc import Iterator

from blockviz.types import CalibrationSet

_WARN_FROM = 0.01


def overlap(a: CalibrationSet, b: CalibrationSet, n: int = 13) -> float:
    """The fraction of b's runs of n tokens that occur in a; 0 when b has no such run.

    Runs do not cross windows, and padding is left out. Where all rows of either set are shorter
    than n, whole rows of that length are compared.
    """
    n = min(n, _longest(a), _longest(b))
    known = set(_runs(a, n))
    found = [run in known for run in _runs(b, n)]
    return sum(found) / len(found) if found else 0.0


def overlap_warning(calibration: CalibrationSet, evaluation: CalibrationSet) -> str:
    """A sentence to show when the two sets share text, empty when they do not."""
    fraction = overlap(calibration, evaluation)
    if fraction < _WARN_FROM:
        return ""
    return (
        f"{fraction:.0%} of the evaluation text ({evaluation.origin.dataset}) is also in the "
        f"calibration text ({calibration.origin.dataset}), so its perplexity flatters whatever was "
        "chosen or fitted there; use another text for one of the two."
    )


def _longest(tokens: CalibrationSet) -> int:
    return max(1, int(tokens.attention_mask.sum(dim=-1).max())) if len(tokens) else 1


def _runs(tokens: CalibrationSet, n: int) -> Iterator[tuple[int, ...]]:
    for row, mask in zip(tokens.input_ids, tokens.attention_mask, strict=True):
        ids = row[mask].tolist()
        for start in range(len(ids) - n + 1):
            yield tuple(ids[start : start + n])
