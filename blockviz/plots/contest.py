"""Every recipe with its own repair at one size: a row each, a dot for every draw."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import plotly.graph_objects as go

from blockviz.plots.card import FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import HUES, framed
from blockviz.plots.labels import label
from blockviz.plots.palette import GREY
from blockviz.plots.repair import nice_ticks
from blockviz.types import Contest, Entry

PITCH = 44  # pixels a recipe
# A rise so many times the median is told in numbers and not drawn: it would flatten all others.
FAR = 3


def contest_card(contest: Contest) -> FigureCard:
    """Perplexity on a log scale: repaired in every draw, the mean of these, and unrepaired."""
    shown = [(name, contest.of(name)) for name in contest.names if contest.of(name)]
    if not shown:
        raise ValueError("a contest needs a recipe with a number to be drawn")
    whole = contest.entries[0].nll
    n_draws = max(len(entries) for _, entries in shown)
    places = list(range(len(shown)))
    figure = go.Figure()
    repaired = [(p, e) for p, (_, es) in zip(places, shown, strict=True) for e in es if e.repair]
    figure.add_trace(_dots("unrepaired", [(p, e.bare, e) for p, e in repaired], GREY, "x-thin", 7))
    every = [(p, e) for p, (_, es) in zip(places, shown, strict=True) for e in es]
    figure.add_trace(_dots("one draw", [(p, e.nll, e) for p, e in every], HUES[0], "circle", 7))
    figure.add_trace(
        go.Scatter(
            x=[_mean(entries) for _, entries in shown], y=places, mode="markers", name="mean",
            marker={"symbol": "line-ns", "size": 20, "line": {"width": 2.5, "color": HUES[1]}},
            text=[label(es[0].title) for _, es in shown],
            customdata=[f"{math.exp(_mean(es)):.4g}" for _, es in shown],
            hovertemplate="<b>%{text}</b><br>mean of the draws %{customdata}<extra></extra>",
        )
    )  # fmt: skip
    reach = [v for _, es in shown for e in es for v in (e.nll, e.bare)]
    far = whole + FAR * statistics.median(max(_mean(es) - whole, 0.0) for _, es in shown)
    low, high = min(whole, *reach), max(whole, *(v for v in reach if v <= far))
    room = 0.05 * max(high - low, 0.02)
    figure.add_vline(x=whole, line={"dash": "dash", "width": 1.2, "color": GREY})
    for place, (_, entries) in zip(places, shown, strict=True):
        shared = {"y": place - 0.4, "showarrow": False, "font_size": 12, "yanchor": "middle"}
        figure.add_annotation(
            text=label(entries[0].title, 40), x=whole, xshift=6, xanchor="left", **shared
        )
        marks = (" *" if len(entries) < n_draws else "") + (" →" if _mean(entries) > high else "")
        text = f"{math.exp(_mean(entries)):.4g}{marks}"
        figure.add_annotation(text=text, x=1, xref="paper", xanchor="right", **shared)
    framed(figure, height=120 + PITCH * len(shown), showlegend=True)
    figure.update_layout(
        margin={"t": 34, "b": 42}, legend={"y": 1.0, "yanchor": "bottom", "x": 0.0}
    )
    ticks = nice_ticks(low - room, high + room)
    figure.update_xaxes(
        range=[low - room, high + room], tickvals=[math.log(t) for t in ticks],
        ticktext=[f"{t:.6g}" for t in ticks], title_text="perplexity, logarithmic",
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[len(shown) - 0.5, -0.8])
    return FigureCard(
        key="contest",
        title="Every recipe at one size",
        reading="Left is better: each recipe removes as much as "
        f"{contest.settings.get('layers', '?')} layers hold and is repaired in its own way, "
        "the dashed line is the original, → lies beyond the picture, and * met in fewer draws "
        "than others.",
        citation=(),
        figure=figure,
        headers=("recipe", "draw", "repair", "perplexity", "standard error in nats", "unrepaired",
                 "rise in nats", "its standard error", "parameters", "in a stock file",
                 "mean accuracy", "removed"),
        rows=table_of(_row(entry) for entry in contest.entries if not entry.refused),
        provenance_note=_note(contest),
    )  # fmt: skip


def _dots(
    name: str, points: Sequence[tuple[int, float, Entry]], hue: str, symbol: str, size: int
) -> go.Scatter:
    return go.Scatter(
        x=[nll for _, nll, _ in points], y=[place for place, _, _ in points], mode="markers",
        name=name,
        marker={"symbol": symbol, "size": size, "color": hue, "line": {"width": 1.6, "color": hue}},
        text=[label(entry.title) for _, _, entry in points],
        customdata=[[entry.draw, f"{math.exp(min(nll, 700.0)):.4g}"] for _, nll, entry in points],
        hovertemplate="<b>%{text}</b><br>draw %{customdata[0]}, " + name
        + ": %{customdata[1]}<extra></extra>",
    )  # fmt: skip


def _mean(entries: Sequence[Entry]) -> float:
    return statistics.fmean(entry.nll for entry in entries)


def _row(entry: Entry) -> tuple[str | int | float, ...]:
    is_first = entry.draw == 0
    return (
        entry.title, "" if is_first else entry.draw, entry.repair, number(entry.perplexity),
        number(entry.stderr), "" if is_first else number(math.exp(min(entry.bare, 700.0))),
        number(entry.rise), number(entry.rise_stderr), entry.n_parameters,
        "" if entry.n_stock is None else entry.n_stock,
        number(entry.accuracy), " ".join(map(str, entry.removed)),
    )  # fmt: skip


def _note(contest: Contest) -> str:
    asked = contest.settings
    facts = [provenance_note(contest.evaluation)]
    facts += [f"{contest.n_predicted} tokens predicted"] if contest.n_predicted else []
    facts += [
        f"searched on {asked.get('n_samples')} × {asked.get('seq_len')} tokens a draw, fitted on "
        f"{asked.get('fit_samples')} × {asked.get('fit_seq_len')}"
    ]
    return " · ".join(filter(None, facts))
