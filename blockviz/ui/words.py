"""Numbers as people read them: true minus signs, grouped thousands, short units."""

from __future__ import annotations

import math

from blockviz.types.numbers import MINUS as MINUS
from blockviz.types.numbers import THIN, UNKNOWN, grouped, short
from blockviz.types.numbers import TIMES as TIMES
from blockviz.types.numbers import percent as percent
from blockviz.types.numbers import rise as rise
from blockviz.types.numbers import rise_between as rise_between


def with_error(value: float, error: float) -> str:
    """`33.1 ± 0.6`, the error with two significant digits, which is all that it is known to."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{short(value)} ± {_rounded(error)}" if error else short(value)


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
