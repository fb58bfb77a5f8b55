"""How alike the streams of two depths are, as a square map."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import BAR_ROOM, colour_bar, depth_ticks, framed
from blockviz.plots.labels import label, slug, visible
from blockviz.types import Provenance, Scores

KORNBLITH: Citation = ("Kornblith et al. 2019", "https://arxiv.org/abs/1905.00414")


def cka_card(
    scores: Scores, *, provenance: Provenance | None = None, cite: tuple[Citation, ...] = ()
) -> FigureCard:
    """The matrix of a metric that compares depths with each other, both axes in order of depth."""
    if scores.matrix is None:
        raise ValueError(f"{scores.metric} has no matrix of depths")
    labels, values = scores.matrix.labels, scores.matrix.values
    shown = [label(name, 20) for name in labels]
    places = list(range(len(labels)))
    figure = go.Figure(
        go.Heatmap(
            x=places, y=places, z=[[_known(v) for v in row] for row in values], hoverongaps=False,
            customdata=[[f"{a} and {b}" for b in shown] for a in shown],
            hovertemplate="%{customdata}: %{z:.4f}<extra></extra>", **colour_bar(""),
        )
    )  # fmt: skip
    ticks = depth_ticks(len(labels))
    framed(figure, height=500, showlegend=False, margin={"t": BAR_ROOM})
    figure.update_xaxes(
        showgrid=False, constrain="domain", tickvals=ticks, ticktext=[shown[i] for i in ticks],
        title_text="depth", range=[-0.5, len(labels) - 0.5],
    )  # fmt: skip
    figure.update_yaxes(
        showgrid=False, constrain="domain", tickvals=ticks, ticktext=[shown[i] for i in ticks],
        title_text="depth", range=[len(labels) - 0.5, -0.5], scaleanchor="x",
        constraintoward="top",
    )  # fmt: skip
    return FigureCard(
        key=f"map-{slug(scores.metric)}",
        title=f"{visible(scores.title)} between all depths",
        reading="Bright = alike: a bright square on the diagonal is a run of depths that changes "
        "little and so may hold removable layers.",
        citation=cite or (KORNBLITH,),
        figure=figure,
        headers=("depth", *map(visible, labels)),
        rows=table_of((name, *map(number, row)) for name, row in zip(labels, values, strict=True)),
        provenance_note=provenance_note(provenance),
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
