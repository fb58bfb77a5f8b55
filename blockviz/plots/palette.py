"""Colours of the figures: Cividis for importance, mid-greys that read on paper and on ink."""

from __future__ import annotations

import math
from collections.abc import Sequence

# Eleven equally spaced stops of Cividis (Nunez, Anderton and Renslow 2018,
# doi 10.1371/journal.pone.0199239): lightness rises evenly, also for colour-blind eyes.
CIVIDIS: tuple[str, ...] = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#f2d94a",
    "#fee838",
)
GREY = "#7d868f"
GRID = "rgba(125, 134, 143, 0.25)"
TRANSPARENT = "rgba(0, 0, 0, 0)"


def cividis(tone: float) -> str:
    """`#rrggbb` of a tone in [0, 1], 0 dark = removable, 1 bright = keep; outside is clipped."""
    if not math.isfinite(tone):
        raise ValueError(f"a tone must be a finite number, not {tone!r}")
    place = min(max(tone, 0.0), 1.0) * (len(CIVIDIS) - 1)
    low = min(int(place), len(CIVIDIS) - 2)
    pair = zip(_rgb(CIVIDIS[low]), _rgb(CIVIDIS[low + 1]), strict=True)
    mixed = (round(a + (b - a) * (place - low)) for a, b in pair)
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def colorscale() -> list[list[object]]:
    """The same stops in the form plotly wants."""
    return [[i / (len(CIVIDIS) - 1), stop] for i, stop in enumerate(CIVIDIS)]


def ramp() -> str:
    """The same stops as a CSS gradient, for legends."""
    return f"linear-gradient(90deg, {', '.join(CIVIDIS)})"


def _rgb(stop: str) -> Sequence[int]:
    return tuple(int(stop[i : i + 2], 16) for i in (1, 3, 5))
