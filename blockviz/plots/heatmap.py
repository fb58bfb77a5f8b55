"""The heat map of metrics x blocks: attention left, MLP right, one row per metric."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, provenance_note, table_of
from blockviz.plots.labels import label, visible
from blockviz.plots.matrix import MetricMatrix, Shade
from blockviz.plots.palette import GREY, TRANSPARENT, colorscale
from blockviz.plots.table import score_rows
from blockviz.types import BlockId, ModelInfo, ScoreTable

PARTS = (("attn", "attention"), ("mlp", "MLP"))
FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
GAP = 1.5
ROW_HEIGHT, LOW_ROW_HEIGHT, MANY_ROWS = 34, 24, 8
SHADE_NOTES = {
    "rank": "Coloured by rank: each row runs from its most removable block to its most needed one.",
    "value": "Coloured by value, clipped at each row's 5th and 95th percentile.",
}


def importance_heatmap(
    matrix: MetricMatrix, *, shade: Shade, removed: tuple[BlockId, ...] = ()
) -> go.Figure:
    """A figure with one heat map per part and a cross over each removed block."""
    tones, n_layers = matrix.tones(shade), 1 + max(b.layer for b in matrix.blocks)
    figure = go.Figure()
    for place, (part, title) in enumerate(PARTS):
        columns = [i for i, b in enumerate(matrix.blocks) if b.part == part]
        start = place * (n_layers + GAP)
        x = [start + matrix.blocks[i].layer for i in columns]
        figure.add_trace(_layer_strip(matrix, columns, x, tones))
        figure.add_annotation(
            text=title, x=start - 0.5, y=1, yref="paper", xanchor="left", yanchor="bottom",
            showarrow=False, font={"size": 12, "color": GREY},
        )  # fmt: skip
    for colour, width in (("#1c2024", 5), ("#ffffff", 2)):
        figure.add_trace(_crosses(matrix, removed, n_layers, colour=colour, width=width))
    return _laid_out(figure, matrix, n_layers)


def heatmap_card(
    table: ScoreTable,
    info: ModelInfo,
    *,
    shade: Shade,
    removed: tuple[BlockId, ...] = (),
    intervals: Mapping[str, Mapping[BlockId, tuple[int, int]]] | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Every metric and every block in one picture, a cross over each removed block.

    intervals: metric -> the ranks that each block could have, for the table.
    """
    matrix = MetricMatrix.of(table, info)
    headers, rows = score_rows(matrix, info, intervals)
    crosses = "; a cross is over what is removed" if removed else ""
    return FigureCard(
        key=f"every-metric-every-block-{shade}",
        title=f"Every metric, every block, by {shade}",
        reading="Dark = removable in every row, and rows agree where columns share a tone"
        f"{crosses}.",
        citation=cite,
        figure=importance_heatmap(matrix, shade=shade, removed=removed),
        headers=tuple(visible(name, 120) for name in headers),
        rows=table_of(rows),
        provenance_note=provenance_note(table.provenance),
    )


def _layer_strip(
    matrix: MetricMatrix, columns: list[int], x: list[float], tones: np.ndarray
) -> go.Heatmap:
    text = [[_hover(matrix, row, i) for i in columns] for row in range(len(matrix.metrics))]
    names = [[str(matrix.blocks[i]) for i in columns] for _ in matrix.metrics]
    return go.Heatmap(
        x=x, y=list(range(len(matrix.metrics))), z=tones[:, columns], customdata=names,
        text=text, hovertemplate="%{text}<extra></extra>", hoverongaps=False,
        zmin=0, zmax=1, colorscale=colorscale(), showscale=False, xgap=1.5, ygap=3,
    )  # fmt: skip


def _hover(matrix: MetricMatrix, row: int, column: int) -> str:
    if not np.isfinite(matrix.values[row, column]):
        return ""
    of = int(np.nanmax(matrix.ranks[row]))
    unit = f" {label(matrix.units[row])}" if matrix.units[row] else ""
    return (
        f"<b>{matrix.blocks[column]}</b><br>{label(matrix.titles[row])} "
        f"{matrix.raw[row, column]:.4g}{unit}<br>rank {int(matrix.ranks[row, column])} of {of}, "
        "1 = first to remove"
    )


def _crosses(
    matrix: MetricMatrix, removed: tuple[BlockId, ...], n_layers: int, *, colour: str, width: float
) -> go.Scatter:
    starts = {part: i * (n_layers + GAP) for i, (part, _) in enumerate(PARTS)}
    gone = [b for b in matrix.blocks if b in removed]
    rows = range(len(matrix.metrics))
    return go.Scatter(
        x=[starts[b.part] + b.layer for b in gone for _ in rows],
        y=[row for _ in gone for row in rows],
        mode="markers", hoverinfo="skip", showlegend=False,
        marker={"symbol": "x-thin", "size": 8, "line": {"width": width, "color": colour}},
    )  # fmt: skip


def _laid_out(figure: go.Figure, matrix: MetricMatrix, n_layers: int) -> go.Figure:
    step = 5 if n_layers <= 40 else 10
    ticks = [i for i in range(n_layers) if i % step == 0]
    second = n_layers + GAP
    row_height = ROW_HEIGHT if len(matrix.metrics) <= MANY_ROWS else LOW_ROW_HEIGHT
    figure.update_xaxes(
        tickvals=[*ticks, *(second + i for i in ticks)], ticktext=[str(i) for i in ticks] * 2,
        showgrid=False, zeroline=False, fixedrange=True, ticks="", title=None,
        range=[-0.6, second + n_layers - 0.4],
    )  # fmt: skip
    names = [label(title) for title in matrix.titles]
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, showgrid=False,
        autorange="reversed", zeroline=False, fixedrange=True, ticks="", automargin=True,
    )  # fmt: skip
    return figure.update_layout(
        height=54 + row_height * len(matrix.metrics), dragmode=False,
        margin={"l": 8, "r": 4, "t": 24, "b": 26},
        font={"color": GREY, "size": 12.5, "family": FONT},
        paper_bgcolor=TRANSPARENT, plot_bgcolor=TRANSPARENT,
        hoverlabel={"bgcolor": "#1c2024", "bordercolor": "#1c2024", "font": {"color": "#f4f2ec"}},
    )  # fmt: skip
