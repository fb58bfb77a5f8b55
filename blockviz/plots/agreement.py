"""Which metrics order the blocks alike: Kendall's tau-b of every pair, alike ones side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import BAR_ROOM, framed, slim_bar
from blockviz.plots.labels import label
from blockviz.types import Provenance

if TYPE_CHECKING:
    from blockviz.rankings import Agreement

KENDALL: Citation = ("Kendall 1945, tau-b", "https://doi.org/10.1093/biomet/33.3.239")
# Orange against blue tells apart for every common kind of colour blindness; 0 is pale.
DIVERGING = [
    [0, "#b35806"], [0.25, "#fdb863"], [0.5, "#f4f2ec"], [0.75, "#9ecae1"], [1, "#08519c"],
]  # fmt: skip
MOST_WITH_NUMBERS = 12


def agreement_card(
    agreement: Agreement,
    *,
    provenance: Provenance | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Metrics x metrics in clustered order; blank where two metrics share too few blocks."""
    order = [int(i) for i in agreement.order]
    if sorted(order) != list(range(len(agreement.titles))):
        raise ValueError("the order of an agreement must name every metric once")
    if len(agreement.tau) != len(order) or any(len(row) != len(order) for row in agreement.tau):
        raise ValueError(f"tau must be {len(order)} x {len(order)}")
    titles = [agreement.titles[i] for i in order]
    tau = [[_known(agreement.tau[i][j]) for j in order] for i in order]
    shared = [[int(agreement.n_common[i][j]) for j in order] for i in order]
    shown, places = [label(t, 24) for t in titles], list(range(len(order)))
    words = {"texttemplate": "%{z:.2f}"} if len(order) <= MOST_WITH_NUMBERS else {}
    hover = [
        [f"{a} and {b}<br>{n} blocks in common" for b, n in zip(shown, row, strict=True)]
        for a, row in zip(shown, shared, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            x=places, y=places, z=tau, zmin=-1, zmax=1, colorscale=DIVERGING, xgap=2, ygap=2,
            customdata=hover, hovertemplate="%{customdata}<br>tau %{z:.3f}<extra></extra>",
            hoverongaps=False, **words,
            colorbar=slim_bar("", tickvals=[-1, 0, 1], ticktext=["opposite", "unrelated", "same"]),
        )
    )  # fmt: skip
    framed(figure, height=190 + max(90, 30 * len(order)), showlegend=False)
    figure.update_layout(margin={"t": BAR_ROOM - 14})
    axis = {"showgrid": False, "tickvals": places, "ticktext": shown}
    figure.update_xaxes(axis, tickangle=-45)
    figure.update_yaxes(axis, autorange="reversed")
    return FigureCard(
        key="agreement",
        title="Which metrics agree",
        reading="Blue = the two metrics would remove blocks in nearly the same order, blank = "
        "they rank nothing in common, and a blue square on the diagonal is a family of metrics "
        "that say the same.",
        citation=(KENDALL, *cite),
        figure=figure,
        headers=("metric", *(row[0] for row in table_of([t] for t in titles))),
        rows=table_of((t, *map(number, row)) for t, row in zip(titles, tau, strict=True)),
        provenance_note=provenance_note(provenance),
    )


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
