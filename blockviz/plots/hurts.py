"""Where a cut hurts: how much more each kind of word costs a variant than the original."""

from __future__ import annotations

import math
from collections.abc import Iterator

import plotly.graph_objects as go

from blockviz.plots.card import FigureCard, number, table_of
from blockviz.plots.comparison import SIDES, column_name, measured_note
from blockviz.plots.frame import HUES, SYMBOLS, framed_with_lines
from blockviz.plots.labels import label
from blockviz.plots.palette import GREY
from blockviz.plots.word_classes import WORD_CLASSES, Classes, word_classes
from blockviz.types import Comparison, ComparisonColumn

ALL = "every token"
PITCH = 54  # pixels a kind of word


def can_draw_hurts(comparison: Comparison) -> bool:
    """Whether a variant's losses are known token by token, and the original's."""
    return any(comparison.token_rises(c) for c in _variants(comparison))


def hurts_card(comparison: Comparison) -> FigureCard:
    """A dot and its 95 % interval for each kind of word and variant."""
    if not can_draw_hurts(comparison):
        raise ValueError("a comparison needs the losses of tokens to show where it hurts")
    classes, names = word_classes(comparison.pieces), (ALL, *WORD_CLASSES)
    drawn = [c for c in _variants(comparison) if comparison.token_rises(c)]
    rows, figure = [], go.Figure()
    figure.add_vline(x=0, line={"dash": "dash", "width": 1.2, "color": GREY})
    for i, column in enumerate(drawn):
        found = [
            (place, name, *rise)
            for place, name in enumerate(names)
            if (rise := mean_rise(comparison.token_rises(column), classes, name)) is not None
        ]
        rows += [_row(column_name(column), *f[1:]) for f in found]
        # Variants of one kind stand above each other, the first on top.
        shift = 0.16 * (i - (len(drawn) - 1) / 2)
        figure.add_trace(go.Scatter(
            x=[mean for _, _, _, mean, _ in found], y=[f[0] + shift for f in found],
            mode="markers", name=label(column_name(column), 40),
            marker={"color": HUES[i % len(HUES)], "size": 9, "symbol": SYMBOLS[i % len(SYMBOLS)]},
            error_x={"array": [SIDES * error for *_, error in found], "color": GREY,
                     "thickness": 1.6, "width": 4},
            customdata=[[name, f"{n:,}", f"{mean:+.3f}", f"{SIDES * error:.3f}"]
                        for _, name, n, mean, error in found],
            hovertemplate="<b>%{customdata[0]}</b>, %{customdata[1]} tokens<br>%{customdata[2]} "
            "± %{customdata[3]} nats a token<extra>%{fullData.name}</extra>",
        ))  # fmt: skip
    framed_with_lines(figure, height=90 + PITCH * len(names), n_lines=len(drawn))
    figure.update_xaxes(title_text="nats a token above the original")
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=list(names), range=[len(names) - 0.5, -0.5]
    )
    so_far = " so far" if comparison.is_partial else ""
    return FigureCard(
        key="hurts",
        title=f"Which words the model lost{so_far}",
        reading="Far to the right = these words cost the variant much more than the original; its "
        "line spans 1.96 standard errors to either side, windows taken as the sample.",
        citation=(),
        figure=figure,
        headers=("variant", "kind of word", "tokens", "rise in nats", "its standard error"),
        rows=table_of(rows),
        provenance_note=measured_note(comparison),
    )  # fmt: skip


def mean_rise(
    rises: tuple[tuple[float, ...], ...], classes: Classes, name: str
) -> tuple[int, float, float] | None:
    """(tokens, mean rise, its standard error over windows) of a class; None without a token.

    The first token of a window is not predicted, so `classes` has one entry more a window. The
    error is that of a ratio of sums over windows, 0 for one window.
    """
    sums = []
    for row, of_window in zip(rises, classes, strict=True):
        told = zip(row, of_window[1:], strict=True)
        wanted = [rise for rise, found in told if name == ALL or name in found]
        sums.append((len(wanted), math.fsum(wanted)))
    n = sum(count for count, _ in sums)
    if not n:
        return None
    mean = math.fsum(total for _, total in sums) / n
    spread = math.fsum((total - mean * count) ** 2 for count, total in sums)
    k = len(sums)
    return n, mean, math.sqrt(spread * k / (k - 1)) / n if k > 1 else 0.0


def _variants(comparison: Comparison) -> Iterator[ComparisonColumn]:
    return (c for c in comparison.columns if c.label != "original" and c.window_nll)


def _row(
    variant: str, kind: str, n: int, mean: float, error: float
) -> tuple[str | int | float, ...]:
    return variant, kind, n, number(mean), number(error)
