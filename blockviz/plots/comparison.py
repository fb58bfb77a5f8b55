"""How far the perplexity of each variant of a plan lies above the original's, with intervals."""

from __future__ import annotations

import math

import plotly.graph_objects as go

from blockviz.plots.card import FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import HUES, framed
from blockviz.plots.labels import label
from blockviz.plots.palette import GREY
from blockviz.plots.repair import nice_ticks
from blockviz.types import Comparison, ComparisonColumn

# Standard errors to each side that a normal spread leaves 1 in 20 beyond.
SIDES = 1.96
PITCH = 46  # pixels a variant
MOST = 700.0  # nats whose exponential is still a number


def column_name(column: ComparisonColumn) -> str:
    """`Pruned + Ridge map (ridge=0.01)`."""
    if column.label in ("original", "none"):
        return column.title or column.label
    name, _, settings = column.label.partition(":")
    title = column.title or name
    return f"Pruned + {title} ({settings})" if settings else f"Pruned + {title}"


def can_draw(comparison: Comparison) -> bool:
    """Whether the original and at least one variant are measured."""
    return any(comparison.rise(c) is not None for c in _variants(comparison))


def comparison_card(comparison: Comparison) -> FigureCard:
    """A dot and its 95 % interval for each variant, on a log scale of times the original's."""
    if not can_draw(comparison):
        raise ValueError("a comparison needs an original and a variant to be drawn")
    drawn = [(c, *comparison.rise(c)) for c in _variants(comparison) if c.window_nll]
    places = list(range(len(drawn)))
    repaired = [c.label != "none" for c, _, _ in drawn]
    figure = go.Figure(
        go.Scatter(
            x=[rise for _, rise, _ in drawn], y=places, mode="markers",
            marker={"color": [HUES[0] if r else HUES[1] for r in repaired], "size": 9,
                    "symbol": ["circle" if r else "square" for r in repaired]},
            error_x={"array": [SIDES * error for _, _, error in drawn], "color": GREY,
                     "thickness": 2, "width": 6},
            text=[label(column_name(c)) for c, _, _ in drawn],
            customdata=[[_times(rise), *_ends(rise, error)] for _, rise, error in drawn],
            hovertemplate="<b>%{text}</b><br>%{customdata[0]} times the original, "
            "%{customdata[1]} to %{customdata[2]}<extra></extra>",
        )
    )  # fmt: skip
    reach = [v for _, rise, e in drawn for v in (rise - SIDES * e, rise + SIDES * e)]
    low, high = min(0.0, *reach), max(0.0, *reach)
    room = 0.08 * max(high - low, 0.02)
    figure.add_vline(x=0, line={"dash": "dash", "width": 1.2, "color": GREY})
    for place, (column, rise, _) in zip(places, drawn, strict=True):
        shared = {"y": place - 0.36, "showarrow": False, "font_size": 12, "yanchor": "middle"}
        figure.add_annotation(
            text=label(column_name(column), 38), x=0, xshift=6, xanchor="left", **shared
        )
        figure.add_annotation(text=f"{_times(rise)}×", x=1, xref="paper", xanchor="right", **shared)
    figure.add_annotation(
        x=0, y=1, yref="paper", yanchor="bottom", xanchor="left", text="original", showarrow=False,
        font_size=11,
    )  # fmt: skip
    framed(figure, height=90 + PITCH * len(drawn), showlegend=False)
    figure.update_layout(margin={"t": 24, "b": 42})
    ticks = nice_ticks(low - room, high + room)
    figure.update_xaxes(
        range=[low - room, high + room], tickvals=[math.log(t) for t in ticks],
        ticktext=[f"{t:.6g}×" for t in ticks], title_text="times the original, logarithmic",
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[len(drawn) - 0.6, -0.75])
    so_far = " so far" if comparison.is_partial else ""
    return FigureCard(
        key="comparison",
        title=f"How far perplexity rises{so_far}",
        reading="Near the dashed line = near the original: each dot is a perplexity over the "
        "original's on the same windows, and its line spans 1.96 standard errors of that paired "
        "difference to either side.",
        citation=(),
        figure=figure,
        headers=("variant", "perplexity", "mean nats", "standard error", "times the original",
                 "from", "to", "rise in nats", "its standard error", "share of the gap closed"),
        rows=table_of(_row(comparison, column) for column in comparison.columns),
        provenance_note=measured_note(comparison),
    )  # fmt: skip


def measured_note(comparison: Comparison) -> str:
    """Model, precision and evaluation text, and the tokens predicted."""
    facts = [provenance_note(comparison.evaluation)]
    facts += [f"{comparison.n_predicted} tokens predicted"] if comparison.n_predicted else []
    return " · ".join(filter(None, facts))


def _variants(comparison: Comparison) -> tuple[ComparisonColumn, ...]:
    return tuple(column for column in comparison.columns if column.label != "original")


def _row(comparison: Comparison, column: ComparisonColumn) -> tuple[str | int | float, ...]:
    name, rise = column_name(column), comparison.rise(column)
    if rise is None:
        return name, *[""] * 9
    ends = [number(math.exp(min(v, MOST))) for v in (rise[0], *_span(*rise))]
    return (
        name, number(column.perplexity), number(column.measured.mean_nll), number(column.stderr),
        *ends, *map(number, rise), number(comparison.closed(column)),
    )  # fmt: skip


def _span(rise: float, error: float) -> tuple[float, float]:
    return rise - SIDES * error, rise + SIDES * error


def _ends(rise: float, error: float) -> list[str]:
    return [_times(end) for end in _span(rise, error)]


def _times(rise: float) -> str:
    return f"{math.exp(min(rise, MOST)):.4g}"
