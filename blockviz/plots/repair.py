"""Corrections of a plan side by side, and how well one of them fits along the depth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import HUES, Stroke, framed, framed_with_lines, is_wide_ranging
from blockviz.plots.labels import label, visible
from blockviz.plots.palette import GREY
from blockviz.types import BlockId, PlaceFit, RepairRow, RepairTable
from blockviz.types.numbers import relative

LINEARPATCH: Citation = (
    "Chen et al. 2025, LinearPatch, Figure 1",
    "https://arxiv.org/abs/2505.24680",
)
BETTER, WORSE = HUES[0], HUES[1]
PITCH, BAR = 40, 0.34  # pixels a correction, and the share of them that its bar takes
CUT = "; an arrow stands where a bar goes on beyond the figure"
MOST_TICKED = 12  # places that get their own name on the axis
BEFORE = Stroke(GREY, "solid", "circle-open")
HELD_BEFORE = Stroke(GREY, "dash", "square-open")
AFTER = Stroke(HUES[0], "solid", "circle")
HELD_AFTER = Stroke(HUES[1], "dash", "square")


def row_name(row: RepairRow) -> str:
    """`Ridge map (ridge=0.01)`."""
    name, _, settings = row.correction.partition(":")
    return f"{row.title or name} ({settings})" if settings else row.title or name


def place_name(fit: PlaceFit) -> str:
    """`7.attn`, `12.attn to 13.mlp`; of a place that is not the gap itself, both."""
    if not fit.gap:
        return str(fit.block)
    first, last = fit.gap[0], fit.gap[-1]
    gap = str(first) if first == last else f"{first} to {last}"
    return gap if fit.block in fit.gap else f"{gap}, in {fit.block}"


def notes_of(table: RepairTable) -> str:
    """Where a table's numbers come from: the fitted text, and the text of its perplexities."""
    fitted = provenance_note(table.provenance)
    text = table.evaluation.data
    if text is None:
        return fitted
    measured = f"perplexity on {visible(text.describe(), 120)}, seed {text.seed}"
    return " · ".join(filter(None, (fitted, measured)))


def repairs_card(table: RepairTable, *, cite: tuple[Citation, ...] = ()) -> FigureCard:
    """A bar for each correction from the perplexity of the bare plan to its own, log scale."""
    if len(table.rows) < 3 or not all(math.isfinite(row.nll) for row in table.rows[:2]):
        raise ValueError("a table needs an original, a bare plan and a correction to be drawn")
    whole, bare = table.rows[0].nll, table.rows[1].nll
    rows = [row for row in table.rows[2:] if not row.refused and math.isfinite(row.nll)]
    span = max(abs(bare - whole), 0.05)
    low, high = min(whole, bare) - 0.6 * span, max(whole, bare) + 0.6 * span
    ends = [min(max(row.nll, low), high) for row in rows]
    figure = go.Figure(
        go.Bar(
            x=[end - bare for end in ends], y=list(range(len(rows))), base=[bare] * len(rows),
            orientation="h", width=BAR,
            marker={
                "color": [WORSE if row.nll > bare else BETTER for row in rows],
                "pattern": {"shape": ["/" if row.nll > bare else "" for row in rows],
                            "fgcolor": "rgba(255, 255, 255, 0.7)", "size": 6, "solidity": 0.3},
            },
            error_x={"array": [row.rise_stderr if low < row.nll < high else 0 for row in rows],
                     "color": GREY, "thickness": 1.2, "width": 3},
            text=[label(row_name(row)) for row in rows], textposition="none",
            customdata=[[f"{row.perplexity:.5g}", _closed(table, row)] for row in rows],
            hovertemplate="<b>%{text}</b><br>perplexity %{customdata[0]}<br>%{customdata[1]}"
            "<extra></extra>",
        )
    )  # fmt: skip
    cut = [not low <= row.nll <= high for row in rows]
    _name_bars(figure, table, rows, cut)
    # One over the other, so that they do not meet on a narrow screen.
    for at, said, up in ((whole, "original", 14), (bare, "nothing repaired", 0)):
        figure.add_vline(x=at, line={"dash": "dash", "width": 1.2, "color": GREY})
        is_left = at == min(whole, bare)
        figure.add_annotation(
            x=at, y=1, yref="paper", yanchor="bottom", xanchor="left" if is_left else "right",
            text=f"{said} {math.exp(min(at, 700)):.4g}", showarrow=False, font_size=11,
            yshift=up,
        )  # fmt: skip
    framed(figure, height=98 + PITCH * max(len(rows), 1), showlegend=False)
    figure.update_layout(margin={"t": 38, "b": 42}, bargap=0)
    shown = [min([whole, bare, *ends]) - 0.06 * span, max([whole, bare, *ends]) + 0.06 * span]
    ticks = nice_ticks(*shown)
    figure.update_xaxes(
        range=shown, tickvals=[math.log(t) for t in ticks], ticktext=[f"{t:.6g}" for t in ticks],
        title_text="perplexity, logarithmic",
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[len(rows) - 0.5, -0.75])
    so_far = " so far" if table.is_partial else ""
    return FigureCard(
        key="repairs",
        title=f"What each correction brings back{so_far}",
        reading="Far to the left = close to the original: a bar starts where nothing is repaired, "
        "a hatched one to the right is worse than doing nothing, and a whisker is one standard "
        f"error of the difference to the original{CUT if any(cut) else ''}.",
        citation=cite or (LINEARPATCH,),
        figure=figure,
        headers=("correction", "perplexity", "mean nats", "standard error", "change to original",
                 "its standard error", "share of the gap closed", "added parameters", "exports as",
                 "refused"),
        rows=table_of(
            (row_name(row), number(row.perplexity), number(row.nll), number(row.stderr),
             *map(number, relative(row.rise, row.rise_stderr)),
             number(table.closed(row)), row.n_added, row.folds, row.refused)
            for row in table.rows
        ),
        provenance_note=notes_of(table),
    )  # fmt: skip


def fit_card(table: RepairTable, row: RepairRow, *, cite: tuple[Citation, ...] = ()) -> FigureCard:
    """The unexplained share at every place of a correction, on fitted and on held-out text."""
    fits = _in_depth(row.fits)
    x = _places(fits)
    lines = [
        ("before, fitted", BEFORE, [f.before for f in fits]),
        ("repaired, fitted", AFTER, [f.after for f in fits]),
    ]
    if any(f.held_after is not None for f in fits):
        lines += [
            ("before, held out", HELD_BEFORE, [f.held_before for f in fits]),
            ("repaired, held out", HELD_AFTER, [f.held_after for f in fits]),
        ]
    figure = go.Figure([_line(name, stroke, x, fits, y) for name, stroke, y in lines])
    worse = [(at, f) for at, f in zip(x, fits, strict=True) if f.is_worse]
    if worse:
        figure.add_trace(go.Scatter(
            x=[at for at, _ in worse],
            y=[f.after if f.held_after is None else f.held_after for _, f in worse],
            mode="markers", name="worse than doing nothing", hoverinfo="skip",
            marker={"symbol": "x-thin", "size": 15, "line": {"width": 2.4, "color": WORSE}},
        ))  # fmt: skip
    framed_with_lines(figure, height=340, n_lines=len(figure.data))
    numbers = [v for _, _, y in lines for v in y if v is not None and math.isfinite(v)]
    is_log = is_wide_ranging(numbers)
    scale = {"type": "log", "nticks": 6} if is_log else {"rangemode": "tozero"}
    figure.update_yaxes({**scale, "tickformat": "~g"}, title_text="unexplained share")
    _depth_axis(figure, fits)
    return FigureCard(
        key="repair-fit",
        title=f"What is left unexplained: {visible(row_name(row))}",
        reading="Low = the stream is the whole model's, 0 is perfect and 1 no better than its "
        "mean: a cross marks a place that is worse than doing nothing, and held-out text "
        "well above fitted text means too little text was fitted on.",
        citation=cite,
        figure=figure,
        headers=("place", "before", "repaired", "before, held-out", "repaired, held-out",
                 "verdict"),
        rows=table_of(
            (place_name(f), number(f.before), number(f.after), number(f.held_before),
             number(f.held_after), "worse than doing nothing" if f.is_worse else "closer")
            for f in fits
        ),
        provenance_note=notes_of(table),
    )  # fmt: skip


def size_card(table: RepairTable, row: RepairRow, *, cite: tuple[Citation, ...] = ()) -> FigureCard:
    """The stream's root mean square along depth: whole model, without and with the correction."""
    fits, bare = _in_depth(row.fits), _in_depth(table.rows[1].fits if len(table.rows) > 1 else ())
    x = _places(fits)
    lines = [
        _line("whole model", Stroke(GREY, "dash", "diamond"), x, fits, [f.size_whole for f in fits])
    ]
    if bare:
        sizes = [f.size_after for f in bare]
        lines.append(_line("nothing repaired", HELD_AFTER, _places(bare), bare, sizes))
    else:
        sizes = [f.size_before for f in fits]
        lines.append(_line("before its repair", HELD_AFTER, x, fits, sizes))
    lines.append(_line("repaired", AFTER, x, fits, [f.size_after for f in fits]))
    figure = go.Figure(lines)
    framed_with_lines(figure, height=320, n_lines=len(lines))
    numbers = [v for line in lines for v in line.y if v is not None]
    scale = {"type": "log", "nticks": 6} if is_wide_ranging(numbers) else {"rangemode": "tozero"}
    figure.update_yaxes({**scale, "tickformat": "~g"}, title_text="root mean square")
    _depth_axis(figure, [*fits, *bare])
    return FigureCard(
        key="repair-size",
        title=f"How large the stream is: {visible(row_name(row))}",
        reading="The nearer the repaired line runs to the whole model's, the better the blocks "
        "behind a gap find the size of stream that they were trained on.",
        citation=cite or (LINEARPATCH,),
        figure=figure,
        headers=("place", "whole model", "before this place is repaired", "repaired"),
        rows=table_of(
            (place_name(f), number(f.size_whole), number(f.size_before), number(f.size_after))
            for f in fits
        ),
        provenance_note=notes_of(table),
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """A few round perplexities between two mean losses in nats."""
    ends = [math.exp(min(max(v, -700.0), 700.0)) for v in (low, high)]
    decades = range(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [s * 10.0**d for d in decades for s in steps if ends[0] <= s * 10.0**d <= ends[1]]
        if len(found) >= 4:
            return [float(f"{t:.3g}") for t in found[:: -(-len(found) // 7)]]
    # Less than a decade: at equal distances, the widest that leave four of them.
    width = max(ends[1] - ends[0], 1e-9 * ends[1])
    exponent = math.floor(math.log10(width))
    for step in (s * 10.0 ** (exponent - d) for d in (0, 1) for s in (5, 2, 1)):
        first, last = math.ceil(ends[0] / step), math.floor(ends[1] / step)
        if last - first >= 3:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    return ends


def _name_bars(
    figure: go.Figure, table: RepairTable, rows: Sequence[RepairRow], cut: Sequence[bool]
) -> None:
    """Name and number over each bar, where they have room on a narrow screen too."""
    for i, row in enumerate(rows):
        is_best = bool(table.best) and row.correction == table.best
        name = f"<b>{label(row_name(row), 38)} · best</b>" if is_best else label(row_name(row), 38)
        # Right of the left dashed line, which would cross a name that began at the edge.
        start = {"x": min(row.nll for row in table.rows[:2]), "xshift": 6, "xanchor": "left"}
        shared = {"y": i - 0.36, "showarrow": False, "font_size": 12, "yanchor": "middle"}
        figure.add_annotation(text=name, **start, **shared)
        figure.add_annotation(
            text=f"{row.perplexity:.4g}{' →' if cut[i] else ''}",
            x=1,
            xref="paper",
            xanchor="right",
            **shared,
        )


def _closed(table: RepairTable, row: RepairRow) -> str:
    share = table.closed(row)
    if share is None:
        return "no gap to close"
    return f"{100 * share:.3g} &#37; of the gap closed"


def _in_depth(fits: Sequence[PlaceFit]) -> list[PlaceFit]:
    return sorted(fits, key=lambda f: _depth(f.block))


def _depth(block: BlockId) -> float:
    """A block's place on an axis of layers: the MLP half a layer behind the attention."""
    return block.layer + (0.5 if block.part == "mlp" else 0.0)


def _places(fits: Sequence[PlaceFit]) -> list[float]:
    return [_depth(f.block) for f in fits]


def _line(
    name: str,
    stroke: Stroke,
    x: Sequence[float],
    fits: Sequence[PlaceFit],
    y: Sequence[float | None],
) -> go.Scatter:
    return go.Scatter(
        x=list(x), y=[v if v is not None and math.isfinite(v) else None for v in y], name=name,
        mode="lines+markers", connectgaps=False, text=[label(place_name(f)) for f in fits],
        hovertemplate=f"%{{text}}<br>{name} %{{y:.4g}}<extra></extra>", **stroke.drawn(size=7),
    )  # fmt: skip


def _depth_axis(figure: go.Figure, fits: Sequence[PlaceFit]) -> None:
    ends = _places(fits) or [0.0]
    room = max(0.6, 0.03 * (max(ends) - min(ends)))
    figure.update_xaxes(title_text="layer", range=[min(ends) - room, max(ends) + room])
    if max(ends) - min(ends) < MOST_TICKED:
        figure.update_xaxes(dtick=1)
