"""The early-exit lens: how sure the model would be after each block, and of which token."""

from __future__ import annotations

import math

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import BAR_ROOM, PARTS, colour_bar, framed
from blockviz.plots.labels import label, visible
from blockviz.plots.palette import colorscale
from blockviz.types.lens import Lens

TABP: Citation = (
    "Jo et al. 2026, TaBP, Findings of EACL",
    "https://aclanthology.org/2026.findings-eacl.320",
)
LOGIT_LENS: Citation = (
    "nostalgebraist 2020, logit lens",
    "https://www.lesswrong.com/posts/AcKRB8wDpdaN6v6ru/interpreting-gpt-the-logit-lens",
)
LONGEST_TOKEN = 20
MOST_ROWS = 70


def lens_card(lens: Lens, *, cite: tuple[Citation, ...] = ()) -> FigureCard:
    """Entropy after each block as a line over a strip of tones, distance to the end as a second."""
    x, names = list(range(len(lens.depths))), [label(d, 20) for d in lens.depths]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.86, 0.14],
                           vertical_spacing=0.03)  # fmt: skip
    lines = (("entropy", lens.entropy, PARTS["attn"]), ("KL from the end", lens.kl, PARTS["mlp"]))
    for title, numbers, style in lines:
        figure.add_trace(
            go.Scatter(
                x=x, y=list(numbers), name=title, customdata=names,
                mode="lines+markers" if len(x) <= MOST_ROWS else "lines",
                hovertemplate=f"after %{{customdata}}<br>{title} %{{y:.3f}} nats<extra></extra>",
                **style.drawn(size=4, width=1.6),
            ), row=1, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Heatmap(
            x=x, y=[0], z=[list(lens.entropy)], customdata=[names], showscale=False,
            colorscale=colorscale(), xgap=0.5,
            hovertemplate="after %{customdata}: %{z:.3f} nats<extra></extra>",
        ), row=2, col=1,
    )  # fmt: skip
    framed(figure, height=330, showlegend=True)
    ticks = _ticks(lens)
    figure.update_xaxes(
        tickvals=ticks, ticktext=[names[i] for i in ticks], range=[-0.6, len(x) - 0.4], tickangle=0
    )
    figure.update_xaxes(showgrid=False, row=2, col=1)
    figure.update_yaxes(title_text="nats", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(showticklabels=False, showgrid=False, row=2, col=1)
    return FigureCard(
        key="lens-entropy",
        title=_title("How sure the model would be", lens),
        reading="A flat stretch = blocks that change what the model would write next only little, "
        "and a fall is where it makes up its mind.",
        citation=(TABP, LOGIT_LENS, *cite),
        figure=figure,
        headers=("after", "entropy (nats)", "KL from the end (nats)", "rank of the final token"),
        rows=table_of(
            (depth, number(e), number(k), rank)
            for depth, e, k, rank in zip(
                lens.depths, lens.entropy, lens.kl, lens.rank_of_final, strict=True
            )
        ),
        provenance_note=provenance_note(lens.provenance),
    )


def lens_tokens_card(lens: Lens, *, cite: tuple[Citation, ...] = ()) -> FigureCard:
    """The likeliest tokens after each block as a table of cells; deep models one row a layer."""
    rows = _shown_rows(lens)
    k, last = len(lens.tokens[0]), lens.tokens[-1][0]
    words = [[label(t, LONGEST_TOKEN) for t in lens.tokens[i]] for i in rows]
    chances = [list(lens.probabilities[i]) for i in rows]
    names = [label(lens.depths[i], 20) for i in rows]
    figure = go.Figure(
        go.Heatmap(
            x=list(range(k)), y=list(range(len(rows))), z=chances, text=words,
            texttemplate="%{text}", zmin=0, zmax=1, xgap=2, ygap=1.5, hoverongaps=False,
            customdata=[[name] * k for name in names],
            hovertemplate="after %{customdata}<br>%{text}<br>probability %{z:.3f}<extra></extra>",
            **colour_bar("probability"),
        )
    )  # fmt: skip
    figure.add_trace(_ends(lens, rows, last))
    framed(figure, height=104 + max(80, 20 * len(rows)), showlegend=False)
    figure.update_layout(margin={"l": 8, "r": 8, "t": BAR_ROOM + 36, "b": 10})
    figure.update_xaxes(
        tickvals=list(range(k)), ticktext=[str(i + 1) for i in range(k)], side="top",
        showgrid=False, title_text="likeliest next token", range=[-0.5, k - 0.5],
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=names, showgrid=False,
        range=[len(rows) - 0.5, -0.5], tickfont_size=10,
    )  # fmt: skip
    heads = [f"{n} {i + 1}" for i in range(k) for n in ("token", "probability")]
    return FigureCard(
        key="lens-tokens",
        title=_title("What it would write", lens),
        reading="Each row is the model stopped after that block: rows that repeat the row above "
        "had nothing to add, and a dot marks the token that the whole model chooses.",
        citation=(TABP, LOGIT_LENS, *cite),
        figure=figure,
        headers=("after", *heads),
        rows=table_of(
            (
                lens.depths[i],
                *(
                    cell
                    for token, p in zip(lens.tokens[i], lens.probabilities[i], strict=True)
                    for cell in (visible(token, LONGEST_TOKEN), number(p))
                ),
            )
            for i in rows
        ),
        provenance_note=provenance_note(lens.provenance),
    )


def _ends(lens: Lens, rows: list[int], last: str) -> go.Scatter:
    """A dot at the left edge of every cell that already holds the final token."""
    found = [
        (column - 0.44, place)
        for place, i in enumerate(rows)
        for column, token in enumerate(lens.tokens[i])
        if token == last
    ]
    return go.Scatter(
        x=[x for x, _ in found], y=[y for _, y in found], mode="markers", hoverinfo="skip",
        marker={"symbol": "circle", "size": 7, "color": "#ffffff",
                "line": {"color": "#1c2024", "width": 1.5}},
    )  # fmt: skip


def _shown_rows(lens: Lens) -> list[int]:
    every = range(len(lens.depths))
    if len(lens.depths) <= MOST_ROWS:
        return list(every)
    return [i for i in every if i == 0 or not lens.depths[i].endswith(".attn")]


def _ticks(lens: Lens) -> list[int]:
    """About ten depths, each the attention block of a round layer."""
    n_layers = math.ceil((len(lens.depths) - 1) / 2)
    step = 1 if n_layers <= 8 else 5 if n_layers <= 40 else 10
    firsts = {d: i for i, d in reversed(list(enumerate(lens.depths)))}
    wanted = (f"{layer}.attn" for layer in range(0, n_layers, step))
    return [firsts[w] for w in wanted if w in firsts] or [0, len(lens.depths) - 1]


def _title(head: str, lens: Lens) -> str:
    return f"{head} after “{visible(lens.context[-1], LONGEST_TOKEN)}” (position {lens.position})"
