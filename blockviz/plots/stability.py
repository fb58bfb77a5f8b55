"""How much a ranking owes to its calibration text: fewer windows, and other runs altogether."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import HUES, Stroke, framed_with_lines
from blockviz.plots.labels import label
from blockviz.types import Provenance

if TYPE_CHECKING:
    from blockviz.rankings.stability import Between, Stability

BLOCKPRUNER: Citation = (
    "Zhong et al. 2025, BlockPruner, on calibration data",
    "https://arxiv.org/abs/2406.10594",
)
FEW = 6  # more bands than that would hide each other


def stability_card(
    stabilities: Sequence[Stability],
    *,
    provenance: Provenance | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Tau of some windows with all the others, one line a metric, a band from 5 to 95 %."""
    found = sorted(stabilities, key=lambda s: -s.mean[-1])
    sizes = sorted({n for s in found for n in s.sizes})
    if not sizes:
        raise ValueError("no metric has a stability to draw")
    figure, strokes = go.Figure(), {s.metric: Stroke.of(i) for i, s in enumerate(stabilities)}
    for s in found:
        stroke = strokes[s.metric]
        figure.add_trace(
            go.Scatter(
                x=[*s.sizes, *reversed(s.sizes)], y=[*s.high, *reversed(s.low)], fill="toself",
                fillcolor=stroke.faint(0.16 if len(found) <= FEW else 0.05), line={"width": 0},
                mode="lines", hoverinfo="skip", showlegend=False, legendgroup=s.metric,
            )
        )  # fmt: skip
    for s in found:
        figure.add_trace(
            go.Scatter(
                x=list(s.sizes), y=list(s.mean), mode="lines+markers", name=label(s.title, 28),
                legendgroup=s.metric, customdata=list(zip(s.low, s.high, strict=True)),
                hovertemplate="%{x} windows: tau %{y:.3f}<br>5 to 95 %: %{customdata[0]:.3f} to "
                "%{customdata[1]:.3f}", **strokes[s.metric].drawn(),
            )
        )  # fmt: skip
    framed_with_lines(figure, height=380, n_lines=len(found))
    figure.update_xaxes(
        type="log", tickvals=sizes, ticktext=[str(n) for n in sizes],
        title_text="calibration windows (each step doubles them)",
    )  # fmt: skip
    figure.update_yaxes(title_text="Kendall tau-b with the other windows")
    return FigureCard(
        key="stability",
        title="How many windows a ranking needs",
        reading="High and flat = the ranking hardly depends on which text it was measured on, and "
        "a wide band means that another draw of text would remove other blocks.",
        citation=(BLOCKPRUNER, *cite),
        figure=figure,
        headers=("metric", "windows", "mean tau-b", "5 %", "95 %"),
        rows=table_of(
            (s.title, n, number(m), number(low), number(high))
            for s in found
            for n, m, low, high in zip(s.sizes, s.mean, s.low, s.high, strict=True)
        ),
        provenance_note=provenance_note(provenance),
    )


def between_card(between: Between, *, cite: tuple[Citation, ...] = ()) -> FigureCard:
    """Tau of each metric between every two runs: a dot a pair, a bar at their mean."""
    pairs = list(combinations(range(len(between.labels)), 2))
    by_mean = sorted(range(len(between.metrics)), key=lambda i: -_or_low(between.mean[i]))
    titles = [between.titles[i] for i in by_mean]
    names = [f"{between.labels[a]} and {between.labels[b]}" for a, b in pairs]
    figure = go.Figure()
    for k, (a, b) in enumerate(pairs):
        stroke = Stroke.of(k)
        figure.add_trace(
            go.Scatter(
                x=[_known(between.tau[i][a][b]) for i in by_mean], y=list(range(len(titles))),
                name=label(names[k], 50), mode="markers", marker=stroke.drawn(size=8)["marker"],
                hovertemplate="tau %{x:.3f}",
            )
        )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=[_known(between.mean[i]) for i in by_mean], y=list(range(len(titles))), name="mean",
            mode="markers", hovertemplate="mean tau %{x:.3f}<extra></extra>",
            marker={"symbol": "line-ns", "size": 18, "line": {"width": 3, "color": HUES[-1]}},
        )
    )  # fmt: skip
    framed_with_lines(figure, height=96 + 26 * len(titles), n_lines=len(pairs) + 1)
    figure.update_xaxes(title_text="Kendall tau-b between two runs")
    figure.update_yaxes(
        tickvals=list(range(len(titles))), ticktext=[label(t, 28) for t in titles],
        range=[len(titles) - 0.5, -0.5],
    )  # fmt: skip
    return FigureCard(
        key="stability-between-runs",
        title="The same metric on other text",
        reading="Far right = the metric ranks the blocks alike whatever text, size or seed it is "
        "given.",
        citation=(BLOCKPRUNER, *cite),
        figure=figure,
        headers=("metric", "mean tau-b", *(row[0] for row in table_of([n] for n in names))),
        rows=table_of(
            (
                between.titles[i],
                number(between.mean[i]),
                *(number(between.tau[i][a][b]) for a, b in pairs),
            )
            for i in by_mean
        ),
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _or_low(value: float) -> float:
    return -math.inf if not np.isfinite(value) else float(value)
