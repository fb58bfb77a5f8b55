"""One repaired place channel by channel: means, spreads, and what the two streams share."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, number, table_of
from blockviz.plots.frame import HUES, Stroke, framed, framed_with_lines
from blockviz.plots.labels import visible
from blockviz.plots.palette import GREY
from blockviz.plots.repair import LINEARPATCH, notes_of, place_name, row_name
from blockviz.types import CHANNELS, PlaceFit, RepairRow, RepairTable

MOST_POINTS = 2000
STRETCHED = 30  # times the median: beyond it, a few channels would press all others together
COIN = 0.5  # of rho: below it, matching is further off than the mean alone
Moment = Literal["mean", "std"]
MOMENTS = {
    "mean": ("Channel means", "mean"),
    "std": ("Channel spreads", "standard deviation"),
}


def moment_card(
    table: RepairTable,
    row: RepairRow,
    fit: PlaceFit,
    moment: Moment,
    *,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Each channel's mean or standard deviation, before and after, against the whole model's."""
    whole, before, after = (_channel(fit, f"{moment}_{of}") for of in ("whole", "before", "after"))
    kept = _thinned(whole)
    whole, before, after = whole[kept], before[kept], after[kept]
    every = np.concatenate([whole, before, after])
    stretch = _stretch(every)
    finite = every[np.isfinite(every)]
    ends = [float(finite.min()), float(finite.max())] if len(finite) else [0.0, 0.0]
    figure = go.Figure()
    drawn = [_placed(v, stretch) for v in ends]
    figure.add_trace(go.Scatter(
        x=drawn, y=drawn, mode="lines", name="as in the whole model", hoverinfo="skip",
        line={"dash": "dash", "width": 1.2, "color": GREY},
    ))  # fmt: skip
    marks = (("before", before, "square-open", HUES[1]), ("repaired", after, "circle", HUES[0]))
    for name, values, symbol, hue in marks:
        figure.add_trace(go.Scatter(
            x=[_placed(v, stretch) for v in whole], y=[_placed(v, stretch) for v in values],
            mode="markers", name=name,
            marker={"symbol": symbol, "color": hue, "size": 5, "opacity": 0.7},
            customdata=[[int(c), number(w), number(v)] for c, w, v in
                        zip(kept, whole, values, strict=True)],
            hovertemplate=f"channel %{{customdata[0]}}<br>whole model %{{customdata[1]}}<br>{name} "
            "%{customdata[2]}<extra></extra>",
        ))  # fmt: skip
    framed_with_lines(figure, height=360, n_lines=3)
    title, what = MOMENTS[moment]
    axis = _axis(ends, stretch)
    figure.update_xaxes(axis, title_text=f"{what}, whole model")
    figure.update_yaxes(axis, title_text=what)
    return FigureCard(
        key=f"repair-{moment}",
        title=f"{title} at {visible(place_name(fit))}",
        reading=f"On the dashed line = the channel has the whole model's {what}"
        f"{'; both axes are pressed together away from 0' if stretch else ''}"
        f"{_said_thinned(len(kept), fit)}.",
        citation=cite or (LINEARPATCH,),
        figure=figure,
        headers=("channel", "whole model", "before", "repaired"),
        rows=table_of(
            (int(c), number(w), number(b), number(a))
            for c, w, b, a in zip(kept, whole, before, after, strict=True)
        ),
        provenance_note=f"{visible(row_name(row))} · {notes_of(table)}",
    )


def rho_card(
    table: RepairTable, row: RepairRow, fit: PlaceFit, *, cite: tuple[Citation, ...] = ()
) -> FigureCard:
    """The channels' correlations with the whole model's, lowest first, before and after."""
    before, after = (_channel(fit, f"rho_{of}") for of in ("before", "after"))
    n_worse, n = worse_when_matched(fit)
    kept = _thinned(before)
    sorted_before, sorted_after = (np.sort(v)[_even(len(v))] for v in (before, after))
    figure = go.Figure()
    lines = (("before", Stroke(HUES[1], "dash", "square")), ("repaired", Stroke.of(0)))
    for (name, stroke), values in zip(lines, (sorted_before, sorted_after), strict=True):
        figure.add_trace(go.Scatter(
            x=_shares(len(values)), y=[float(v) if math.isfinite(v) else None for v in values],
            mode="lines", name=name, line=stroke.drawn()["line"],
            hovertemplate=f"{name}: %{{x:.3g}} &#37; of channels below %{{y:.3f}}<extra></extra>",
        ))  # fmt: skip
    figure.add_hline(y=COIN, line={"dash": "dot", "width": 1.2, "color": GREY})
    framed(figure, height=360, showlegend=True)
    figure.update_xaxes(title_text="share of channels, lowest first", ticksuffix="%")
    figure.update_yaxes(title_text="correlation with the whole model", tickformat="~g")
    both = np.isfinite(before) & np.isfinite(after)
    is_same = bool(both.any()) and bool(np.allclose(before[both], after[both], atol=1e-3))
    same = "; the two lines coincide, since nothing done to single channels moves them"
    return FigureCard(
        key="repair-rho",
        title=f"What the streams share at {visible(place_name(fit))}",
        reading="Low = the pruned stream says little of the whole model's: below the dotted line, "
        "giving a channel the right mean and spread (ASC) is further off than its mean alone, and "
        f"on {n_worse} of {n} channels here it would be worse than doing nothing"
        f"{same if is_same else ''}.",
        citation=cite,
        figure=figure,
        headers=("channel", "before", "repaired"),
        rows=table_of((int(c), number(before[c]), number(after[c])) for c in kept),
        provenance_note=f"{visible(row_name(row))} · {notes_of(table)}",
    )


def worse_when_matched(fit: PlaceFit) -> tuple[int, int]:
    """(channels that matching mean and spread would put further off, of so many).

    Matching leaves 2 s_y² (1 − rho) of a channel; doing nothing leaves the squared difference of
    the means and s_u² + s_y² − 2 rho s_u s_y.
    """
    names = ("std_before", "std_whole", "rho_before", "mean_before", "mean_whole")
    su, sy, rho, mu, my = (_channel(fit, name) for name in names)
    with np.errstate(invalid="ignore", over="ignore"):
        matched = 2 * sy**2 * (1 - rho)
        nothing = su**2 + sy**2 - 2 * rho * su * sy + (mu - my) ** 2
    return int(np.sum(matched > nothing * (1 + 1e-6))), len(rho)


def has_channels(fit: PlaceFit) -> bool:
    """Whether a place brings the numbers of its channels, and of every kind the same count."""
    sizes = {len(fit.channels.get(name, ())) for name in CHANNELS}
    return len(sizes) == 1 and sizes != {0}


def _channel(fit: PlaceFit, name: str) -> np.ndarray:
    if not has_channels(fit):
        raise ValueError(f"the place {place_name(fit)} has no numbers of its channels")
    return np.asarray(fit.channels[name], dtype=float)


def _thinned(values: np.ndarray) -> np.ndarray:
    """The channels to draw: all, or evenly many from the lowest number to the highest."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    return np.sort(np.argsort(values, kind="stable")[_even(len(values))])


def _even(n: int) -> np.ndarray:
    """At most `MOST_POINTS` places of n, first and last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).round().astype(int))


def _shares(n: int) -> list[float]:
    return [100 * (i + 0.5) / n for i in range(n)]


def _said_thinned(n: int, fit: PlaceFit) -> str:
    of = len(next(iter(fit.channels.values())))
    return f"; {n} of {of} channels are drawn, from the lowest to the highest" if n < of else ""


def _stretch(values: np.ndarray) -> float:
    """The size around which an axis turns from even to logarithmic steps; 0 for an even axis."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not len(sizes):
        return 0.0
    middle = float(np.median(sizes))
    return middle if float(sizes.max()) > STRETCHED * middle else 0.0


def _placed(value: float, stretch: float) -> float | None:
    """Where a number stands on an axis."""
    if not math.isfinite(value):
        return None
    return math.asinh(value / stretch) if stretch else float(value)


def _axis(ends: list[float], stretch: float) -> dict[str, object]:
    """Range and ticks, which a stretched axis needs written out."""
    low, high = (_placed(v, stretch) or 0.0 for v in ends)
    room = 0.05 * (high - low) or 0.5
    even = {"range": [low - room, high + room], "nticks": 6, "tickformat": "~g"}
    if not stretch:
        return even
    largest = max(abs(v) for v in ends)
    powers = range(math.ceil(math.log10(stretch)), math.floor(math.log10(largest)) + 1)
    chosen = [10.0**p for p in powers][:: -(-len(powers) // 3) or 1]
    ticks = [t for t in (*(-t for t in reversed(chosen)), 0.0, *chosen) if ends[0] <= t <= ends[1]]
    places = [_placed(t, stretch) for t in ticks]
    return {"range": even["range"], "tickvals": places, "ticktext": [f"{t:g}" for t in ticks]}
