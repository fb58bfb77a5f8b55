"""Numbers as people read them: true minus signs, grouped thousands, short units."""

from __future__ import annotations

import math

THIN = "\u202f"  # narrow no-break space
MINUS = "\u2212"
TIMES = "\u00d7"
UNKNOWN = "\u2013"


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


def with_error(value: float, error: float) -> str:
    """`33.1 ± 0.6`, the error with two significant digits, which is all that it is known to."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{short(value)} ± {_rounded(error)}" if error else short(value)


def rise(nats: float, error: float) -> str:
    """A difference of mean losses as a change of perplexity: `+64.9 ± 3.3 %`."""
    share = math.expm1(min(nats, 700.0))
    if not math.isfinite(share):
        return UNKNOWN
    text = percent(share)
    spread = f" ± {_rounded(100 * (1 + share) * error)}{THIN}%"
    return text.replace(f"{THIN}%", spread) if error else text


def _rounded(error: float) -> str:
    return short(float(f"{error:.2g}")).rstrip("0").rstrip(".") if error < 10 else short(error)


def count(number: float) -> str:
    """Parameters: `134.5 M`, `1.24 B`."""
    for size, unit, digits in ((1e9, "B", 2), (1e6, "M", 1), (1e3, "k", 0)):
        if number >= size:
            return f"{number / size:.{digits}f}{THIN}{unit}"
    return grouped(number)


def size(n_bytes: float) -> str:
    """Bytes: `256 MiB`, `1.3 GiB`."""
    for power, unit, digits in ((30, "GiB", 1), (20, "MiB", 0), (10, "KiB", 0)):
        if n_bytes >= 1 << power:
            return f"{n_bytes / (1 << power):.{digits}f}{THIN}{unit}"
    return f"{round(n_bytes)}{THIN}B"


def duration(seconds: float) -> str:
    """`8 s`, `3 min 10 s`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}{THIN}s"
    return f"{whole // 60}{THIN}min {whole % 60}{THIN}s"


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def short_dtype(dtype: str) -> str:
    """`bf16` for `torch.bfloat16` and its kin."""
    name = dtype.removeprefix("torch.")
    return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(name, name)
