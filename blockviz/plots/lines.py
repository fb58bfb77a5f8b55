"""Importance over depth: one metric in full, or every metric as one small panel."""

from __future__ import annotations

import math

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from blockviz.plots.card import (
    Cell,
    Citation,
    FigureCard,
    number,
    provenance_note,
    table_of,
)
from blockviz.plots.frame import PART_NAMES, PARTS, depth_ticks, framed, is_wide_ranging
from blockviz.plots.labels import label, slug, visible
from blockviz.plots.palette import GREY
from blockviz.types import BlockId, ModelInfo, Provenance, Scores, ScoreTable

BLOCKPRUNER: Citation = (
    "Zhong et al. 2025, BlockPruner, Figure 1",
    "https://arxiv.org/abs/2406.10594",
)
PANEL, BETWEEN = 150, 44  # pixels: a panel with the room for its title and ticks


def importance_lines(
    scores: Scores,
    info: ModelInfo,
    *,
    provenance: Provenance | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """One metric over depth: attention and MLP as two lines, whole layers as bars."""
    _check(scores, info)
    figure = go.Figure()
    for part in _parts(scores):
        figure.add_trace(_trace(scores, info, part, is_small=False))
    if scores.baseline is not None:
        figure.add_hline(y=scores.baseline, line={"dash": "dash", "width": 1.2, "color": GREY})
        is_log = _scale(scores).get("type") == "log"
        figure.add_annotation(
            text="nothing removed", x=1, xref="paper", xanchor="right", yanchor="bottom",
            y=math.log10(scores.baseline) if is_log else scores.baseline, showarrow=False,
            font_size=11,
        )  # fmt: skip
    framed(figure, height=340, showlegend=True)
    unit = f", {scores.unit_label}" if scores.unit_label else ""
    figure.update_yaxes(_scale(scores), title_text=label(f"{scores.title}{unit}"))
    figure.update_xaxes(_depth(info), title_text="layer")
    error = ", with one standard error" if scores.stderr else ""
    return FigureCard(
        key=f"importance-{slug(scores.metric)}",
        title=f"{visible(scores.title)} over depth",
        reading=f"Low = removable{_way(scores)}: each mark is one block{error}.",
        citation=cite or (BLOCKPRUNER,),
        figure=figure,
        headers=("block", "raw number", "standard error"),
        rows=table_of(
            (str(b), number(raw), number((scores.stderr or {}).get(b)))
            for b, raw in sorted(scores.raw.items())
        ),
        provenance_note=provenance_note(provenance),
    )


def small_multiples(
    table: ScoreTable, info: ModelInfo, *, columns: int = 3, cite: tuple[Citation, ...] = ()
) -> FigureCard:
    """Every metric as one panel over the same layers, `columns` panels side by side."""
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    metrics = tuple(table.metrics.values())
    for scores in metrics:
        _check(scores, info)
    n_rows = max(1, -(-len(metrics) // columns))
    height = 40 + n_rows * PANEL
    figure = make_subplots(
        rows=n_rows, cols=columns, shared_xaxes="all", horizontal_spacing=0.16 / columns,
        vertical_spacing=BETWEEN / (n_rows * PANEL) if n_rows > 1 else 0,
    )  # fmt: skip
    named: set[str] = set()
    for i, scores in enumerate(metrics):
        place = {"row": i // columns + 1, "col": i % columns + 1}
        for part in _parts(scores):
            trace = _trace(scores, info, part, is_small=True)
            figure.add_trace(trace.update(showlegend=part not in named), **place)
            named.add(part)
        if scores.baseline is not None:
            line = {"dash": "dash", "width": 1, "color": GREY}
            figure.add_hline(y=scores.baseline, line=line, exclude_empty_subplots=False, **place)
        figure.update_yaxes({**_scale(scores), "nticks": 4}, **place)
        _entitled(figure, scores, i)
    figure.update_xaxes(_depth(info), showticklabels=True, tickfont_size=10)
    figure.update_yaxes(tickfont_size=10)
    framed(figure, height=height, margin={"l": 8, "r": 8, "t": 46, "b": 22}, showlegend=True)
    figure.update_layout(legend={"y": 1, "yref": "container", "yanchor": "top"})
    for place in range(len(metrics), n_rows * columns):
        figure.update_xaxes(visible=False, row=place // columns + 1, col=place % columns + 1)
        figure.update_yaxes(visible=False, row=place // columns + 1, col=place % columns + 1)
    return FigureCard(
        key="metrics-over-depth",
        title="Every metric over depth",
        reading="Low = removable in every panel: dips at the same layer are blocks that the "
        "metrics agree on, and a panel marked with an arrow has its axis turned round for that.",
        citation=(BLOCKPRUNER, *cite),
        figure=figure,
        headers=("block", *(visible(_titled(s)) for s in metrics)),
        rows=_rows(metrics),
        provenance_note=provenance_note(table.provenance),
    )


def raw_rises(scores: Scores) -> bool:
    """Whether a higher raw number says keep; some papers' numbers measure redundancy instead."""
    known = [b for b in scores.values if b in scores.raw]
    if not known:
        return True
    low, high = min(known, key=scores.values.get), max(known, key=scores.values.get)
    return scores.raw[low] <= scores.raw[high]


def _rows(metrics: tuple[Scores, ...]) -> tuple[tuple[Cell, ...], ...]:
    blocks = sorted({b for s in metrics for b in s.raw})
    return table_of((str(b), *(number(s.raw.get(b)) for s in metrics)) for b in blocks)


def _titled(scores: Scores) -> str:
    return f"{scores.title} ({scores.unit_label})" if scores.unit_label else scores.title


def _entitled(figure: go.Figure, scores: Scores, index: int) -> None:
    axis = "" if index == 0 else str(index + 1)
    turned = "" if raw_rises(scores) else "  ↓"
    figure.add_annotation(
        text=label(scores.title, 34) + turned, x=0, y=1, xref=f"x{axis} domain",
        yref=f"y{axis} domain", xanchor="left", yanchor="bottom", showarrow=False,
        font={"size": 12}, hovertext=label(_titled(scores)),
    )  # fmt: skip


def _trace(scores: Scores, info: ModelInfo, part: str, *, is_small: bool) -> go.Scatter | go.Bar:
    blocks = [BlockId(i, part) for i in range(info.n_layers)]
    stderr = scores.stderr or {}
    errors = [stderr.get(b) for b in blocks]
    style = PARTS[part]
    shared = {
        "x": [b.layer for b in blocks],
        "y": [scores.raw.get(b) for b in blocks],
        "name": PART_NAMES[part], "legendgroup": part,
        "customdata": [f"{e:.2g}" if e is not None else "unknown" for e in errors],
        "hovertemplate": f"%{{x}}.{part}<br>%{{y:.5g}} ± %{{customdata}}<extra></extra>",
    }  # fmt: skip
    if any(errors) and not is_small:
        shared["error_y"] = {
            "array": errors, "color": style.hue, "thickness": 1, "width": 0,
        }  # fmt: skip
    if part == "layer":
        return go.Bar(marker_color=style.hue, opacity=0.85, **shared)
    # One lonely point has no line; a panel of 80 layers has no room for markers.
    mode = "lines" if is_small and info.n_layers > 4 else "lines+markers"
    return go.Scatter(mode=mode, connectgaps=False, **style.drawn(size=5, width=1.6), **shared)


def _parts(scores: Scores) -> list[str]:
    return [part for part in PARTS if any(b.part == part for b in scores.raw)]


def _scale(scores: Scores) -> dict[str, object]:
    numbers = [*scores.raw.values()]
    if scores.baseline is not None:
        numbers.append(scores.baseline)
    if not is_wide_ranging(numbers):
        return {"autorange": True if raw_rises(scores) else "reversed", "tickformat": "~g"}
    ends = [math.log10(min(numbers)), math.log10(max(numbers))]
    margin = 0.05 * (ends[1] - ends[0])
    ends = [ends[0] - margin, ends[1] + margin]
    return {"type": "log", "tickformat": "~g", "dtick": max(1, round((ends[1] - ends[0]) / 4)),
            "range": ends if raw_rises(scores) else ends[::-1]}  # fmt: skip


def _depth(info: ModelInfo) -> dict[str, object]:
    return {"tickvals": depth_ticks(info.n_layers), "range": [-0.6, info.n_layers - 0.4]}


def _way(scores: Scores) -> str:
    return "" if raw_rises(scores) else " (the axis is turned round, since a high number says so)"


def _check(scores: Scores, info: ModelInfo) -> None:
    beyond = [str(b) for b in scores.raw if b.layer >= info.n_layers]
    if beyond:
        raise ValueError(f"{scores.metric} scores {', '.join(beyond)} of {info.n_layers} layers")
