"""Numbers as people read them, on the page and in a terminal; a rise of perplexity above all."""

from __future__ import annotations

import math

THIN = "\u202f"  # narrow no-break space
MINUS = "\u2212"
TIMES = "\u00d7"
UNKNOWN = "\u2013"
MOST_NATS = 700.0  # exp of more overflows, so perplexities end there
LARGE, MOST_TOLD = 10.0, 1e100  # a rise is told as a factor from the first on, up to the second


def grouped(number: float) -> str:
    """`4 096`, with narrow no-break spaces."""
    return f"{round(number):,}".replace(",", THIN)


def short(number: float) -> str:
    """Four significant digits at most, and no exponent below a million: `33.1`, `1 204`."""
    size = abs(number)
    if size >= 1e6:
        return f"{number:.2e}".replace("-", MINUS)
    if size >= 1000:
        return grouped(number)
    if 0 < size < 5e-4:
        return f"{number:.1e}".replace("-", MINUS)
    digits = 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{number:.{digits}f}".replace("-", MINUS)


def percent(share: float, *, digits: int = 1) -> str:
    """Signed: minus or plus 11.9 %, `0 %`."""
    if round(abs(share) * 100, digits) == 0:
        return f"0{THIN}%"
    if abs(share) >= 10:
        digits = 0
    text = f"{abs(share) * 100:,.{digits}f}".replace(",", THIN)
    return f"{MINUS if share < 0 else '+'}{text}{THIN}%"


def relative(nats: float, error: float) -> tuple[float, float]:
    """(relative rise, its standard error) of perplexity, 0.1 = 10 %, from a difference of mean
    losses and its standard error in nats: to first order, d exp(x) = exp(x) dx."""
    nats = min(nats, MOST_NATS)
    return math.expm1(nats), math.exp(nats) * error


def rise(nats: float, error: float = 0.0) -> str:
    """A difference of mean losses as a change of perplexity: `+64.9 ± 3.3 %`.

    Ten times and more are a factor, and so is then the error: `× 16 800 (× or ÷ 1.05)`. error:
    standard error in nats; 0 where none is known.
    """
    if not math.isfinite(nats):
        return UNKNOWN
    if nats > math.log(MOST_TOLD):
        return f"over {TIMES}{THIN}{MOST_TOLD:.0e}"
    error = error if math.isfinite(error) else 0.0
    if nats >= math.log(LARGE):
        factor = f"{TIMES}{THIN}{_significant(math.exp(nats))}"
        spread = _significant(math.exp(min(error, MOST_NATS)))
        return f"{factor} ({TIMES} or \u00f7{THIN}{spread})" if error else factor
    share, spread = (100 * x for x in relative(nats, error))
    if not spread:
        return percent(share / 100)
    # Two digits of the error, which is all that it is known to, and the rise to the same place.
    places = max(0, min(2, 1 - math.floor(math.log10(spread))))
    size = f"{abs(share):.{places}f}"
    sign = "" if float(size) == 0 else MINUS if share < 0 else "+"
    return f"{sign}{size} ± {_grouped_to(spread, places)}{THIN}%"


def rise_between(before: float, after: float, error: float = 0.0) -> str:
    """`rise` from one perplexity to another; error: of the log of their ratio."""
    is_known = 0 < before < math.inf and 0 < after < math.inf
    return rise(math.log(after) - math.log(before), error) if is_known else UNKNOWN


def plain(text: str) -> str:
    """The same in the characters of a terminal: spaces that break, and a hyphen for a minus."""
    return text.translate({ord(THIN): " ", ord(MINUS): "-", ord(TIMES): "x", ord(UNKNOWN): "-"})


def _significant(number: float) -> str:
    """Three significant digits: `16 800`, `1.05`."""
    rounded = float(f"{number:.3g}")
    return grouped(rounded) if 100 <= rounded < 1e6 else short(rounded)


def _grouped_to(number: float, places: int) -> str:
    return f"{number:,.{places}f}".replace(",", THIN)
