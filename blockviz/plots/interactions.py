"""Which blocks stand in for which, and how well pairs foretell larger sets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from blockviz.plots.agreement import KENDALL
from blockviz.plots.card import Cell, Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import (
    BAR_ROOM,
    PARTS,
    depth_ticks,
    framed,
    is_wide_ranging,
    slim_bar,
)
from blockviz.plots.hover import in_lines
from blockviz.plots.palette import GREY, GRID
from blockviz.rankings import Prediction, StandIn, Surrogate, is_clear
from blockviz.types import BlockId, Interactions, Provenance, RemovedSet

SECOND_ORDER: Citation = (
    "Grabisch and Roubens 1999, interaction of players",
    "https://doi.org/10.1007/s001820050125",
)
# Orange against blue, told apart by every common kind of colour blindness. What is near 0 is
# see-through, for a pale middle would be the loudest tone on dark paper.
SCALE = [
    [0, "rgba(213, 94, 0, 1)"], [0.25, "rgba(213, 94, 0, 0.7)"], [0.5, "rgba(213, 94, 0, 0.06)"],
    [0.5, "rgba(0, 114, 178, 0.06)"], [0.75, "rgba(0, 114, 178, 0.7)"], [1, "rgba(0, 114, 178, 1)"],
]  # fmt: skip
# A few early blocks would leave all others pale: colours end at this percentile of the sizes.
ENDS = 95
FADED = 0.15
FEW, MANY = 20, 80  # blocks


def pairs_card(
    interactions: Interactions,
    *,
    order: Sequence[BlockId] | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Every pair as a cell, the blocks in order of depth, or in the `order` of a clustering."""
    blocks = sorted(interactions.singles) if order is None else list(order)
    if sorted(blocks) != sorted(interactions.singles):
        raise ValueError("the order must name every block with a single cut once")
    values = [[interactions.between(a, b) if a != b else None for b in blocks] for a in blocks]
    errors = [[interactions.stderr.get((min(a, b), max(a, b))) for b in blocks] for a in blocks]
    names = [str(b) for b in blocks]
    end = _end([abs(v) for v in interactions.pairs.values()])
    figure = go.Figure()
    for is_wanted in (False, True):
        figure.add_trace(_cells(names, values, errors, end, is_wanted=is_wanted))
    figure.add_trace(_diagonal(names, [interactions.singles[b] for b in blocks]))
    _as_square(figure, blocks, is_by_depth=order is None)
    where = (
        "a block's row names its stand-ins"
        if order is None
        else "a blue square on the diagonal is a group of blocks of which some must stay"
    )
    return FigureCard(
        key="pairs-by-depth" if order is None else "pairs-clustered",
        title="What two blocks do together",
        reading="Blue = the two stand in for each other, orange = without the one the other "
        f"matters less, all but blank = not to be told from 0: {where}.",
        citation=cite or (SECOND_ORDER,),
        figure=figure,
        headers=("block", "and", "rise, of pairs beyond both alone (nats)", "standard error"),
        rows=_rows(interactions),
        provenance_note=provenance_note(interactions.provenance),
    )


def stand_ins_card(
    pairs: Sequence[StandIn],
    *,
    provenance: Provenance | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """The pairs as bars with their errors, in the order given; a sentence where there are none."""
    names, style = [f"{p.first} and {p.second}" for p in pairs], PARTS["attn"]
    places = list(range(len(names)))
    figure = go.Figure(
        go.Bar(
            x=[p.value for p in pairs], y=places, orientation="h", marker_color=style.faint(0.55),
            customdata=names, marker_line_width=0,
            error_x={"array": [p.stderr for p in pairs], "color": style.hue, "thickness": 2,
                     "width": 4},
            hovertemplate="%{customdata}<br>%{x:.4g} nats more than both alone<extra></extra>",
        )
    )  # fmt: skip
    framed(figure, height=70 + max(90, 26 * len(names)), showlegend=False)
    figure.update_layout(margin={"t": 8, "b": 46})
    figure.update_xaxes(title_text="nats beyond both alone", rangemode="tozero")
    figure.update_yaxes(
        tickvals=places, ticktext=names, showgrid=False, range=[max(len(names), 1) - 0.4, -0.6]
    )
    if not pairs:
        figure.add_annotation(
            text="no pair can be told from 0", xref="paper", yref="paper", x=0.5, y=0.5,
            showarrow=False,
        )  # fmt: skip
    return FigureCard(
        key="stand-ins",
        title="Which blocks stand in for which",
        reading="Long = remove one of the two and the other must stay, for the loss without both "
        "is so much higher than each cut alone would make it.",
        citation=cite or (SECOND_ORDER,),
        figure=figure,
        headers=("block", "other block", "interaction (nats)", "standard error"),
        rows=table_of(
            (str(p.first), str(p.second), number(p.value), number(p.stderr)) for p in pairs
        ),
        provenance_note=provenance_note(provenance),
    )


def surrogate_card(
    surrogate: Surrogate,
    measured: Mapping[RemovedSet, float],
    *,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Foretold against measured perplexity of sets, with the line where both are the same.

    measured: mean losses in nats; a set that cannot be foretold, or is infinite, is left out.
    """
    found = [
        (removed, foretold, loss)
        for removed, loss in measured.items()
        if math.isfinite(loss) and (foretold := surrogate.predict(removed)) is not None
    ]
    if not found:
        raise ValueError("no measured set can be foretold")
    agreed = surrogate.rank_agreement({removed: loss for removed, _, loss in found})
    x, y = [math.exp(loss) for *_, loss in found], [p.perplexity for _, p, _ in found]
    figure = go.Figure([_identity(x), _foretold(found, x, y)])
    framed(figure, height=420, showlegend=False)
    axis = {"tickformat": "~g", "nticks": 6}
    if is_wide_ranging([*x, *y]):
        axis["type"] = "log"
    figure.update_xaxes(axis, title_text="measured perplexity")
    figure.update_yaxes(axis, title_text="foretold perplexity")
    figure.update_layout(margin={"b": 46})
    tau = "" if agreed.tau is None else f", and both orders agree with a tau-b of {agreed.tau:.2f}"
    return FigureCard(
        key="surrogate-check",
        title="How well pairs foretell larger sets",
        reading=f"On the dashed line = foretold exactly: {agreed.n_sets} sets are shown, each with "
        f"two standard errors{tau}.",
        citation=cite or (SECOND_ORDER, KENDALL),
        figure=figure,
        headers=("removed", "blocks", "measured", "foretold", "low", "high"),
        rows=table_of(
            (
                ", ".join(map(str, sorted(removed))),
                len(removed),
                number(math.exp(loss)),
                number(p.perplexity),
                number(p.perplexity_at(-2)),
                number(p.perplexity_at(2)),
            )
            for removed, p, loss in found
        ),
        provenance_note=provenance_note(surrogate.interactions.provenance),
    )


def _cells(
    names: list[str],
    values: list[list[float | None]],
    errors: list[list[float | None]],
    end: float,
    *,
    is_wanted: bool,
) -> go.Heatmap:
    """The cells that are told from 0, or the others: faded."""
    z = [
        [
            _short(v) if v is not None and is_clear(v, e) is is_wanted else None
            for v, e in zip(row, line, strict=True)
        ]
        for row, line in zip(values, errors, strict=True)
    ]
    gap = 1 if len(names) <= MANY else 0
    ends = {"tickvals": [-end, 0, end], "ticktext": [f"−{end:.2g}", "0", f"{end:.2g}"]}
    return go.Heatmap(
        x=names, y=names, z=z, zmin=-end, zmax=end, colorscale=SCALE, xgap=gap, ygap=gap,
        customdata=[[_short(e) for e in row] for row in errors], hoverongaps=False,
        hovertemplate="%{y} and %{x}<br>%{z:.3g} ± %{customdata:.2g} nats<extra></extra>",
        opacity=1 if is_wanted else FADED, showscale=is_wanted, colorbar=slim_bar("nats ", **ends),
    )  # fmt: skip


def _diagonal(names: list[str], singles: list[float]) -> go.Scatter:
    """A mark on the diagonal: it parts the two halves and tells what the block costs alone."""
    return go.Scatter(
        x=names, y=names, mode="markers", customdata=[_short(v) for v in singles],
        marker={"color": GREY, "symbol": "square", "size": 4 if len(names) <= MANY else 2},
        hovertemplate="%{x} alone: %{customdata:.3g} nats<extra></extra>",
    )  # fmt: skip


def _as_square(figure: go.Figure, blocks: Sequence[BlockId], *, is_by_depth: bool) -> None:
    n = len(blocks)
    height = 400 if n <= FEW else 560 if n <= MANY else 640
    framed(figure, height=height, showlegend=False)
    figure.update_layout(margin={"t": BAR_ROOM, "b": 40})
    axis: dict[str, Any] = {
        "type": "category", "categoryorder": "array", "categoryarray": [str(b) for b in blocks],
        "showgrid": False, "constrain": "domain", "tickfont_size": 10,
    }  # fmt: skip
    if is_by_depth and n > FEW:
        firsts = {b.layer: i for i, b in reversed(list(enumerate(blocks)))}
        layers = [i for i in depth_ticks(max(firsts) + 1) if i in firsts]
        axis |= {"tickvals": [firsts[i] for i in layers], "ticktext": [str(i) for i in layers]}
        axis["title_text"] = "layer"
    figure.update_xaxes(axis, range=[-0.5, n - 0.5])
    figure.update_yaxes(
        axis, range=[n - 0.5, -0.5], scaleanchor="x", constraintoward="top", zerolinecolor=GRID
    )


def _end(sizes: list[float]) -> float:
    """Where the colours end; 1 where every size is 0."""
    return (float(np.percentile(sizes, ENDS)) if sizes else 0.0) or max(sizes, default=0.0) or 1.0


def _identity(measured: list[float]) -> go.Scatter:
    ends = [min(measured), max(measured)]
    return go.Scatter(
        x=ends, y=ends, mode="lines", line={"dash": "dash", "width": 1.2, "color": GREY},
        hoverinfo="skip",
    )  # fmt: skip


def _foretold(
    found: list[tuple[RemovedSet, Prediction, float]], x: list[float], y: list[float]
) -> go.Scatter:
    style = PARTS["attn"]
    high = [p.perplexity_at(2) - p.perplexity for _, p, _ in found]
    low = [p.perplexity - p.perplexity_at(-2) for _, p, _ in found]
    return go.Scatter(
        x=x, y=y, mode="markers", marker={**style.drawn(size=7)["marker"], "opacity": 0.85},
        customdata=[in_lines([str(b) for b in sorted(removed)]) for removed, *_ in found],
        error_y={"type": "data", "symmetric": False, "array": high, "arrayminus": low,
                 "color": style.faint(0.6), "thickness": 1, "width": 0},
        hovertemplate="%{customdata}<br>foretold %{y:.4g}, measured %{x:.4g}<extra></extra>",
    )  # fmt: skip


def _rows(interactions: Interactions) -> tuple[tuple[Cell, ...], ...]:
    """The single cuts in order of depth, then the pairs, the strongest first."""
    alone = [(str(b), "alone", number(v), "") for b, v in sorted(interactions.singles.items())]
    strongest = sorted(interactions.pairs.items(), key=lambda item: -abs(item[1]))
    both = [
        (str(a), str(b), number(v), number(interactions.stderr[a, b])) for (a, b), v in strongest
    ]
    return table_of([*alone, *both])


def _short(value: float | None) -> float | None:
    """Four digits: a map of 160 blocks has 25 600 cells, all of which travel to the page."""
    return float(f"{value:.4g}") if value is not None and math.isfinite(value) else None
