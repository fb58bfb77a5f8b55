"""Who is right: rankings of metrics against the loss that was measured when blocks went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import (
    PART_NAMES,
    PARTS,
    Stroke,
    framed,
    framed_with_lines,
    is_wide_ranging,
)
from blockviz.plots.labels import label, slug, visible
from blockviz.plots.palette import GREY
from blockviz.types import BlockId, Judgement, Provenance, Scores, ScoreTable

if TYPE_CHECKING:
    from blockviz.rankings.verdict import MetricVerdict

KENDALL: Citation = ("Kendall 1945, tau-b", "https://doi.org/10.1093/biomet/33.3.239")
BLOCKPRUNER: Citation = ("Zhong et al. 2025, BlockPruner", "https://arxiv.org/abs/2406.10594")
N_NAMED = 3
# A rise so many times the usual ones is named at the edge of the view, not shown to scale.
GIANT = 5


def verdict_card(
    verdicts: Sequence[MetricVerdict],
    *,
    provenance: Provenance | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Tau of each metric with the measured damage of single cuts, its interval, best on top."""
    judged = sorted((v for v in verdicts if v.tau is not None), key=lambda v: -v.tau)
    unjudged = [v for v in verdicts if v.tau is None]
    places, tau = list(range(len(judged))), [v.tau for v in judged]
    lows = [v.tau - v.low if v.low is not None else None for v in judged]
    highs = [v.high - v.tau if v.high is not None else None for v in judged]
    spoken = [
        f"{label(v.title)}: tau {v.tau:.3f}"
        + (f" ({v.low:.3f} to {v.high:.3f})" if v.low is not None and v.high is not None else "")
        + f"<br>over {v.n_blocks} single cuts"
        for v in judged
    ]
    figure = go.Figure(
        go.Scatter(
            x=tau, y=places, mode="markers+text", text=[f"  {t:.2f}" for t in tau],
            textposition="top center", textfont={"size": 11}, customdata=spoken,
            marker={"size": 9, "color": PARTS["layer"].hue},
            error_x={"type": "data", "symmetric": False, "array": highs, "arrayminus": lows,
                     "color": PARTS["layer"].hue, "thickness": 2, "width": 4},
            hovertemplate="%{customdata}<extra></extra>",
        )
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "width": 1, "dash": "dash"})
    framed(figure, height=70 + max(60, 32 * len(judged)), showlegend=False)
    figure.update_layout(margin={"t": 8, "b": 46})
    figure.update_xaxes(title_text="Kendall tau-b with the measured rise of single cuts")
    figure.update_yaxes(
        tickvals=places, ticktext=[label(v.title, 28) for v in judged],
        range=[len(judged) - 0.4, -0.7],
    )  # fmt: skip
    return FigureCard(
        key="who-is-right",
        title="Who is right?",
        reading="Far right = the metric foretold which blocks could go, and metrics whose bars "
        "overlap cannot be told apart on this much text.",
        citation=(KENDALL, *cite),
        figure=figure,
        headers=("metric", "tau-b", "5 %", "95 %", "single cuts"),
        rows=table_of(
            (v.title, number(v.tau), number(v.low), number(v.high), v.n_blocks)
            for v in (*judged, *unjudged)
        ),
        provenance_note=provenance_note(provenance),
    )


def singles_card(
    table: ScoreTable, judgement: Judgement, metric: str, *, cite: tuple[Citation, ...] = ()
) -> FigureCard:
    """One metric's importance against the measured rise of every single cut."""
    if metric not in table.metrics:
        raise ValueError(f"the table has no metric {metric!r}")
    scores = table.metrics[metric]
    rises = {
        b: judgement.singles[b].rise_over(judgement.whole)
        for b in sorted(scores.values)
        if b in judgement.singles
    }
    if not rises:
        raise ValueError(f"no block of {metric} was cut alone")
    figure = go.Figure()
    for part in dict.fromkeys(b.part for b in rises):
        mine, style = [b for b in rises if b.part == part], PARTS[part]
        figure.add_trace(
            go.Scatter(
                x=[scores.values[b] for b in mine], y=[rises[b][0] for b in mine], mode="markers",
                name=PART_NAMES[part], text=[str(b) for b in mine],
                marker={**style.drawn(size=8)["marker"], "opacity": 0.85},
                error_y={"array": [rises[b][1] for b in mine], "color": style.hue,
                         "thickness": 1, "width": 0},
                hovertemplate="%{text}<br>importance %{x:.4g}<br>rise %{y:.4f} nats<extra></extra>",
            )
        )  # fmt: skip
    framed(figure, height=400, showlegend=True)
    across = _axis([scores.values[b] for b in rises])
    up = _axis([rise for rise, _ in rises.values()], is_clipped=True)
    figure.update_xaxes(across, title_text=f"importance by {label(scores.title)}")
    figure.update_yaxes(up, title_text="measured rise of the loss (nats)")
    _name_extremes(figure, scores, rises)
    return FigureCard(
        key=f"single-cuts-{slug(metric)}",
        title=f"{visible(scores.title)} and what single cuts cost",
        reading="Points that climb from lower left to upper right = the metric is right, and low "
        "ones on the right are blocks that it would keep for nothing.",
        citation=(BLOCKPRUNER, *cite),
        figure=figure,
        headers=("block", "importance", "rise (nats)", "standard error"),
        rows=table_of(
            (str(b), number(scores.values[b]), number(rise), number(error))
            for b, (rise, error) in rises.items()
        ),
        provenance_note=provenance_note(judgement.provenance),
    )


def cumulative_card(
    judgement: Judgement,
    titles: Mapping[str, str],
    *,
    log_y: bool = True,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """Perplexity on held-out text against the number of removed blocks, one line a metric."""
    if not judgement.curves:
        raise ValueError("no metric's cuts were measured one after another")
    whole = judgement.whole
    figure, rows = go.Figure(), []
    for i, (metric, curve) in enumerate(judgement.curves.items()):
        points = [whole, *curve]
        gone = [sum(len(b.parts) for b in p.removed) for p in points]
        errors = [p.perplexity * p.rise_over(whole)[1] for p in points]
        last = [
            "nothing",
            *(_added(a.removed, b.removed) for a, b in zip(points, curve, strict=False)),
        ]
        title = titles.get(metric, metric)
        stroke = Stroke.of(i)
        figure.add_trace(
            go.Scatter(
                x=gone, y=[p.perplexity for p in points], name=label(title, 28), customdata=last,
                mode="lines+markers", **stroke.drawn(),
                error_y={"array": errors, "color": stroke.hue, "thickness": 1, "width": 0},
                hovertemplate="%{x} removed, last %{customdata}<br>perplexity %{y:.4g}",
            )
        )  # fmt: skip
        rows += [
            (title, n, cut, number(p.perplexity), number(e))
            for p, n, e, cut in zip(points, gone, errors, last, strict=True)
        ]
    figure.add_hline(y=whole.perplexity, line={"dash": "dash", "width": 1.2, "color": GREY})
    framed_with_lines(figure, height=400, n_lines=len(judgement.curves))
    figure.update_xaxes(title_text="blocks removed", rangemode="tozero")
    scale = {"type": "log", "tickformat": "~g", "nticks": 6} if log_y else {"tickformat": "~g"}
    figure.update_yaxes(scale, title_text="perplexity on held-out text")
    return FigureCard(
        key="cumulative-cuts",
        title="One block after another",
        reading="Low and long = removable: the metric whose line stays near the dashed one for "
        "longest finds the blocks that are least needed together.",
        citation=(BLOCKPRUNER, *cite),
        figure=figure,
        headers=("metric", "blocks removed", "last removed", "perplexity", "standard error"),
        rows=table_of(rows),
        provenance_note=provenance_note(judgement.provenance),
    )


def _added(before: tuple[BlockId, ...], after: tuple[BlockId, ...]) -> str:
    return ", ".join(str(b) for b in after if b not in before) or "nothing"


def _name_extremes(
    figure: go.Figure, scores: Scores, rises: Mapping[BlockId, tuple[float, float]]
) -> None:
    """Ids beside the cheapest and the dearest cuts; at the edge, with its number, if beyond it."""
    up, across = figure.layout.yaxis, figure.layout.xaxis
    top = up.range[1] if up.range and up.type != "log" else math.inf
    ordered = sorted(rises, key=lambda b: rises[b][0])
    beyond = [b for b in ordered if rises[b][0] > top]
    inside = [b for b in ordered if rises[b][0] <= top]
    cheap = inside[:N_NAMED]
    dear = [] if beyond else inside[len(cheap) :][-N_NAMED:]
    for i, b in enumerate([*beyond, *cheap, *dear]):
        rise, is_out = rises[b][0], b in beyond
        figure.add_annotation(
            x=_on(scores.values[b], across), y=top if is_out else _on(rise, up),
            text=f"{b}: {rise:.3g} ↑" if is_out else str(b), showarrow=False, font={"size": 11},
            yshift=-8 - 14 * i if is_out else (11, -11)[i % 2],
        )  # fmt: skip


def _axis(numbers: list[float], *, is_clipped: bool = False) -> dict[str, object]:
    """Log where the numbers call for it; else, if clipped, a view that one giant cannot flatten."""
    if is_wide_ranging(numbers):
        return {"type": "log", "tickformat": "~g", "dtick": 1}
    axis: dict[str, object] = {"type": "linear", "tickformat": "~g"}
    ordered = sorted(numbers)
    usual = ordered[int(0.9 * (len(ordered) - 1))]
    if is_clipped and usual > 0 and ordered[-1] > GIANT * usual:
        low = min(ordered[0], 0)
        axis["range"] = [low - 0.12 * (usual - low), usual + 0.6 * (usual - low)]
    return axis


def _on(value: float, axis: go.layout.XAxis | go.layout.YAxis) -> float:
    """Where an annotation stands: on a log axis plotly wants the exponent."""
    return math.log10(value) if axis.type == "log" else value
