"""What removal costs: a line per search or metric, and the set that is chosen now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from blockviz.plots.card import Cell, Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import SYMBOLS, Stroke, framed, framed_with_lines
from blockviz.plots.hover import in_lines
from blockviz.plots.labels import label, visible
from blockviz.plots.palette import GREY
from blockviz.types import BlockId, Provenance

BLOCKPRUNER: Citation = (
    "Zhong et al. 2025, BlockPruner, Figure 1",
    "https://arxiv.org/abs/2406.10594",
)
HEIGHT = 430
# More names than that in the picture would hide the lines; the legend has them all.
MOST_NAMED = 6
NAME_ROOM, LETTER, LONGEST_NAME = 15, 6.5, 18  # pixels, pixels, characters
SIGNS = dict(zip(SYMBOLS, "●■◆▲✚✖★⬢", strict=True))
# Of many lines those that reach the most may leave the figure, where the others would be one.
MANY_LINES, STAYING, FAR = 8, 75, 10  # lines, percentile of their ends, times that end
# Reads on white and on black paper, and is the hue of no line.
OWN = "#8b5cd6"


@dataclass(frozen=True)
class CurvePoint:
    """One removed set: its share of all parameters in [0, 1], its objective, its block ids.

    number: None where it was not measured; is_measured: False for a prediction, whose number may
    have its error around it, `low` to `high`.
    """

    share: float
    number: float | None
    removed: tuple[str, ...]
    is_measured: bool = True
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"a share must be in [0, 1], not {self.share!r}")
        for name in self.removed:
            BlockId.parse(name)

    @property
    def sent(self) -> str:
        """The ids as a click on the point sends them: `18.attn,7.mlp`, empty for none."""
        return ",".join(self.removed)


@dataclass(frozen=True)
class CurveLine:
    """The points of one search or metric in the order in which they are joined."""

    label: str
    points: tuple[CurvePoint, ...]


def removal_curves(
    lines: Sequence[CurveLine],
    *,
    baseline: float | None = None,
    unit_label: str = "perplexity",
    is_log: bool = True,
    current: CurvePoint | None = None,
    provenance: Provenance | None = None,
    cite: tuple[Citation, ...] = (),
) -> FigureCard:
    """The objective against the removed share of parameters, one line a search or metric.

    Only measured points are drawn, and a line is broken where one is missing; the whole model
    begins each. `current` is a mark of its own, hollow while it is a prediction. customdata of
    every mark is `CurvePoint.sent`.
    """
    whole = () if baseline is None else (CurvePoint(0.0, baseline, ()),)
    figure = go.Figure()
    drawn = [_from_whole(line, whole) for line in lines]
    for i, line in enumerate(drawn):
        figure.add_trace(_trace(line, Stroke.of(i), unit_label, is_log=is_log))
    if baseline is not None:
        _add_baseline(figure, baseline, drawn, is_log=is_log)
    if current is not None and _known(current.number, is_log=is_log) is not None:
        figure.add_trace(_own_mark(current, unit_label))
        figure.add_annotation(
            text="your set", x=current.share, y=_on(current.number, is_log=is_log), yshift=16,
            showarrow=False, font_size=11,
        )  # fmt: skip
    _lay_out(figure, drawn, current, is_log=is_log)
    figure.update_yaxes(title_text=label(unit_label))
    rows = [_row(line.label, p) for line in drawn for p in line.points]
    if current is not None:
        rows.append(_row("your set" if current.is_measured else "your set, foretold", current))
    return FigureCard(
        key="removal-curves",
        title="What removal costs",
        reading="Low and far right = much removed for little harm, and a hollow diamond is a "
        "prediction until it is measured.",
        citation=cite or (BLOCKPRUNER,),
        figure=figure,
        headers=("line", "removed share", visible(unit_label), "low", "high", "removed"),
        rows=table_of(rows),
        provenance_note=provenance_note(provenance),
    )


def _from_whole(line: CurveLine, whole: tuple[CurvePoint, ...]) -> CurveLine:
    begins = bool(line.points) and not line.points[0].removed
    return line if begins else CurveLine(line.label, (*whole, *line.points))


def _trace(line: CurveLine, stroke: Stroke, unit_label: str, *, is_log: bool) -> go.Scatter:
    points = line.points
    return go.Scatter(
        x=[p.share for p in points],
        y=[_known(p.number, is_log=is_log) if p.is_measured else None for p in points],
        name=label(line.label, 28), mode="lines+markers", connectgaps=False,
        customdata=[p.sent for p in points], text=[in_lines(p.removed) for p in points],
        hovertemplate=f"%{{text}}<br>{label(unit_label)} %{{y:.4g}}, %{{x:.1%}} removed",
        **stroke.drawn(size=7),
    )  # fmt: skip


def _own_mark(current: CurvePoint, unit_label: str) -> go.Scatter:
    state = "measured" if current.is_measured else "foretold"
    shape = "diamond" if current.is_measured else "diamond-open"
    error, around = {}, ""
    if current.low is not None and current.high is not None:
        up, down = current.high - current.number, current.number - current.low
        error = {"array": [up], "arrayminus": [down], "symmetric": False, "color": OWN,
                 "thickness": 1.4, "width": 5}  # fmt: skip
        around = f" ({current.low:.4g} to {current.high:.4g})"
    return go.Scatter(
        x=[current.share], y=[current.number], mode="markers", name=f"your set, {state}",
        customdata=[current.sent], text=[in_lines(current.removed)], error_y=error,
        cliponaxis=False,
        marker={"symbol": shape, "size": 14, "color": OWN, "line": {"width": 2, "color": OWN}},
        hovertemplate=f"%{{text}}<br>{label(unit_label)} %{{y:.4g}}{around}, %{{x:.1%}} removed"
        f"<extra>your set, {state}</extra>",
    )  # fmt: skip


def _add_baseline(
    figure: go.Figure, baseline: float, lines: Sequence[CurveLine], *, is_log: bool
) -> None:
    """The whole model's line, named at its far end on the side where no curve ends."""
    if _known(baseline, is_log=is_log) is None:
        return
    is_under = all(end >= baseline for end in _numbers(lines, is_log=is_log, is_last=True))
    figure.add_hline(y=baseline, line={"dash": "dash", "width": 1.2, "color": GREY})
    figure.add_annotation(
        text="nothing removed", x=1, xref="paper", xanchor="right", xshift=-4,
        yanchor="top" if is_under else "bottom", y=_on(baseline, is_log=is_log),
        showarrow=False, font_size=11,
    )  # fmt: skip


def _numbers(lines: Sequence[CurveLine], *, is_log: bool, is_last: bool = False) -> list[float]:
    """The highest measured number of each line, or its last one; none of a line without any."""
    found = []
    for line in lines:
        seen = [p.number for p in line.points if p.is_measured]
        drawn = [n for n in seen if n is not None and _known(n, is_log=is_log) is not None]
        found += [drawn[-1] if is_last else max(drawn)] if drawn else []
    return found


def _top(lines: Sequence[CurveLine], high: float, own: float | None, *, is_log: bool) -> float:
    """Where the figure ends: `high`, or lower where a few of many lines would flatten the rest."""
    highest = _numbers(lines, is_log=is_log)
    if len(highest) < MANY_LINES:
        return high
    staying = max(float(np.percentile(highest, STAYING, method="lower")), own or 0.0)
    return staying if high > FAR * staying > 0 else high


def _lay_out(
    figure: go.Figure, lines: Sequence[CurveLine], current: CurvePoint | None, *, is_log: bool
) -> None:
    """Axes that hold all points, but see `_top`; few short names stand at the lines, others in a
    legend."""
    points = [p for line in lines for p in line.points] + ([] if current is None else [current])
    drawn = [p.number for p in points if _known(p.number, is_log=is_log) is not None]
    own = _known(current.number, is_log=is_log) if current is not None else None
    top = _top(lines, max(drawn, default=1.0), own, is_log=is_log)
    low, high = _on(min(drawn, default=1.0), is_log=is_log), _on(top, is_log=is_log)
    margin = 0.06 * (high - low) or 0.1
    names = [line.label for line in lines]
    if len(names) <= MOST_NAMED and all(len(name) <= LONGEST_NAME for name in names):
        framed(figure, height=HEIGHT, showlegend=False)
        longest = max((len(row) for name in names for row in _in_rows(name)), default=0)
        room = 26 + LETTER * longest if longest else 8
        figure.update_layout(margin={"t": 24, "b": 46, "r": room})
        _name_ends(figure, lines, (high - low + 2 * margin) / (HEIGHT - 60), is_log=is_log)
    else:
        framed_with_lines(figure, height=HEIGHT, n_lines=len(figure.data))
        figure.update_layout(legend={"x": 0, "xref": "container", "font_size": 11})
    _tell_what_leaves(figure, sum(n > top for n in _numbers(lines, is_log=is_log)))
    log = {"type": "log", "nticks": 6} if is_log else {}
    figure.update_yaxes({**log, "tickformat": "~g", "range": [low - margin, high + margin]})
    far = max((p.share for p in points), default=0.0) or 0.1
    figure.update_xaxes(
        title_text="removed parameters",
        tickformat="~%",
        range=[-0.02 * far, 1.03 * far],
        nticks=6,
        tickangle=0,
    )


def _tell_what_leaves(figure: go.Figure, n_lines: int) -> None:
    if n_lines:
        figure.update_layout(margin_t=30)
        said = "line goes on" if n_lines == 1 else "lines go on"
        figure.add_annotation(
            text=f"▲ {n_lines} {said} above: numbers in the table", x=1, y=1, xref="paper",
            yref="paper", xanchor="right", yanchor="bottom", yshift=6, showarrow=False,
            font_size=11,
        )  # fmt: skip


def _name_ends(
    figure: go.Figure, lines: Sequence[CurveLine], pixel: float, *, is_log: bool
) -> None:
    """Marker and name of each line at the right, as high as its end, apart from each other.

    pixel: how much of the axis upwards it is.
    """
    ends: list[tuple[float, list[str]]] = []
    for i, line in enumerate(lines):
        seen = [p.number for p in line.points if p.is_measured]
        drawn = [n for n in seen if _known(n, is_log=is_log) is not None]
        if drawn:
            stroke = Stroke.of(i)
            sign = f'<span style="color:{stroke.hue}">{SIGNS[stroke.symbol]}</span>'
            first, *more = map(label, _in_rows(line.label))
            ends.append((_on(drawn[-1], is_log=is_log), [f"{sign} {first}", *more]))
    room, n_before = -math.inf, 0
    for height, rows in sorted(ends, key=lambda end: end[0]):
        room = max(height, room + NAME_ROOM * pixel * (n_before + len(rows)) / 2)
        n_before = len(rows)
        figure.add_annotation(
            text="<br>".join(rows), align="left", x=1, xref="paper", y=height, xshift=6,
            yshift=(room - height) / pixel, xanchor="left", yanchor="middle", showarrow=False,
            font_size=11,
        )  # fmt: skip


def _in_rows(name: str) -> list[str]:
    """A name as it stands at its line: what follows a comma below, for a narrow screen's sake."""
    first, comma, more = name.partition(", ")
    return [first + ",", more] if comma else [name]


def _row(name: str, point: CurvePoint) -> tuple[Cell, ...]:
    between, removed = map(number, (point.low, point.high)), ", ".join(point.removed) or "nothing"
    return (name, number(point.share), number(point.number), *between, removed)


def _known(value: float | None, *, is_log: bool) -> float | None:
    """The number if it can be drawn: finite, and on a log scale positive."""
    if value is None or not math.isfinite(value) or (is_log and value <= 0):
        return None
    return value


def _on(value: Any, *, is_log: bool) -> float:
    """Where an annotation stands: on a log axis plotly wants the exponent."""
    return math.log10(value) if is_log else float(value)
