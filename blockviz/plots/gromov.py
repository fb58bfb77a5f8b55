"""Runs of layers: for each start and length, the number of the run, the best start marked."""

from __future__ import annotations

import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import BAR_ROOM, colour_bar, depth_ticks, framed
from blockviz.plots.labels import label, slug, visible
from blockviz.plots.lines import raw_rises
from blockviz.types import Provenance, Scores

GROMOV: Citation = ("Gromov et al. 2024, Figure 4", "https://arxiv.org/abs/2403.17887")


def gromov_card(
    scores: Scores, *, provenance: Provenance | None = None, cite: tuple[Citation, ...] = ()
) -> FigureCard:
    """Rows: length n of a run of layers; columns: its first layer l; blank where l + n > L."""
    if not scores.windows:
        raise ValueError(f"{scores.metric} has no numbers of runs of layers")
    if any(first < 0 or n < 1 for first, n in scores.windows):
        raise ValueError("a run begins at layer 0 or later and is at least one layer long")
    n_layers = max(first + n for first, n in scores.windows)
    lengths = sorted({n for _, n in scores.windows})
    grid = [[scores.windows.get((first, n)) for first in range(n_layers)] for n in lengths]
    low_is_removable = raw_rises(scores)
    unit = label(scores.unit_label or scores.title, 30)
    hover = "layers %{x} to %{customdata}: " + f"%{{z:.4g}} {unit}<extra>%{{y}} layers</extra>"
    figure = go.Figure(
        go.Heatmap(
            x=list(range(n_layers)), y=lengths, z=grid,
            customdata=[[first + n - 1 for first in range(n_layers)] for n in lengths],
            hovertemplate=hover, hoverongaps=False, reversescale=not low_is_removable,
            **colour_bar(unit),
        )
    )  # fmt: skip
    choose = min if low_is_removable else max
    best = {
        n: choose((f for f, m in scores.windows if m == n), key=lambda f: scores.windows[f, n])
        for n in lengths
    }
    for n, first in best.items():
        for colour, width in (("#1c2024", 3.5), ("#ffffff", 1.6)):
            figure.add_shape(
                type="rect", x0=first - 0.5, x1=first + 0.5, y0=n - 0.5, y1=n + 0.5,
                line={"color": colour, "width": width}, name=f"best of {n}",
            )  # fmt: skip
    cell = max(7, min(22, 560 // len(lengths)))
    framed(
        figure, height=122 + max(90, cell * len(lengths)), showlegend=False, margin={"t": BAR_ROOM}
    )
    figure.update_xaxes(showgrid=False, title_text="first layer", tickvals=depth_ticks(n_layers))
    figure.update_yaxes(
        showgrid=False, title_text="layers removed", tickvals=_length_ticks(lengths),
        range=[lengths[0] - 0.6, lengths[-1] + 0.6],
    )  # fmt: skip
    return FigureCard(
        key=f"runs-{slug(scores.metric)}",
        title=f"{visible(scores.title)}: every run of layers",
        reading="Dark = removable: the outlined cell of each row is where a run of that many "
        "layers would be cut first.",
        citation=cite or (GROMOV,),
        figure=figure,
        headers=("layers removed", *(f"from {i}" for i in range(n_layers)), "best from"),
        rows=table_of(
            (n, *map(number, row), best[n]) for n, row in zip(lengths, grid, strict=True)
        ),
        provenance_note=provenance_note(provenance),
    )


def _length_ticks(lengths: list[int]) -> list[int]:
    step = 1 if len(lengths) <= 12 else 5 if len(lengths) <= 40 else 10
    return [n for n in lengths if n % step == 0 or n == lengths[0]]
