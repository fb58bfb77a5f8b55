"""A search while it runs and after: its objective step by step, and which block went when."""

from __future__ import annotations

import math
from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from blockviz.plots.card import Citation, FigureCard, number, provenance_note, table_of
from blockviz.plots.frame import Stroke, framed, is_wide_ranging
from blockviz.plots.hover import in_lines
from blockviz.plots.labels import label, visible
from blockviz.plots.palette import GREY, colorscale
from blockviz.types import BlockId, SearchRun, SearchStep

BLOCKPRUNER: Citation = (
    "Zhong et al. 2025, BlockPruner, Algorithm 1",
    "https://arxiv.org/abs/2406.10594",
)
MOST_NAMED = 16
A_STRIP = 16  # layers, so that the number of a step has room on a narrow screen
EVERY = 12  # layers of a strip of which each gets its number
STRIP, BETWEEN = 58, 30  # pixels
EMPTY = "rgba(125, 134, 143, 0.14)"
# White reads on Cividis below this share of it, black above: at least 4.5 to 1 either way.
DARK_BELOW = 0.45


def search_progress(run: SearchRun, *, cite: tuple[Citation, ...] = ()) -> FigureCard:
    """The objective after each decision, from the whole model on; customdata are removed ids."""
    steps = run.steps
    numbers = [run.baseline, *(step.number for step in steps)]
    drawable = [n for n in numbers if n is not None and math.isfinite(n)]
    changes = ["", *_changes(steps)]
    stroke = Stroke.of(0)
    figure = go.Figure(
        go.Scatter(
            x=list(range(len(numbers))), y=[n if n in drawable else None for n in numbers],
            mode="lines+markers", **stroke.drawn(size=8), connectgaps=False,
            customdata=["", *(",".join(map(str, s.removed)) for s in steps)],
            text=["nothing removed", *map(_told, steps, changes[1:])],
            hovertemplate=f"%{{text}}<br>{label(run.unit_label)} %{{y:.5g}}<extra></extra>",
        )
    )  # fmt: skip
    figure.add_hline(y=run.baseline, line={"dash": "dash", "width": 1.2, "color": GREY})
    framed(figure, height=320, showlegend=False)
    figure.update_layout(margin={"t": 18, "b": 46})
    figure.update_xaxes(
        title_text="decision", range=_ends(len(steps)), dtick=-(-len(steps) // 10) or 1
    )
    if steps and len(steps) <= MOST_NAMED:
        named = [f"{i} · {label(change, 16)}" for i, change in enumerate(changes[1:], 1)]
        figure.update_xaxes(
            tickvals=list(range(len(numbers))), ticktext=["0", *named], tickangle=-60,
            tickfont_size=11,
        )  # fmt: skip
    log = {"type": "log", "nticks": 6} if is_wide_ranging(drawable) else {}
    figure.update_yaxes({**log, "tickformat": "~g"}, title_text=label(run.unit_label))
    so_far = " so far" if run.is_partial else ""
    asked = f"{visible(run.strategy)} on {visible(run.objective)}"
    return FigureCard(
        key="search-progress",
        title=f"What each decision cost{so_far}: {asked}",
        reading="Flat = what went was hardly missed: each mark is the best that was found by "
        "then, and the dashed line is the whole model.",
        citation=cite or (BLOCKPRUNER,),
        figure=figure,
        headers=("decision", "change", visible(run.unit_label), "evaluations", "of", "confidence",
                 "seconds"),
        rows=table_of(
            (i, change, number(s.number), number(s.evaluated), s.of, number(s.sureness),
             number(s.seconds))
            for i, (s, change) in enumerate(zip(steps, changes[1:], strict=True), 1)
        ),
        provenance_note=provenance_note(run.provenance),
    )  # fmt: skip


def search_grid(
    run: SearchRun, *, n_layers: int | None = None, cite: tuple[Citation, ...] = ()
) -> FigureCard:
    """Which block went at which decision: layers in strips, attention over MLP in each.

    n_layers: of the model; without it, up to the deepest layer that the run names.
    """
    went = _went(run.steps)
    named = {b.layer for blocks, _ in run.measured for b in blocks} | {b.layer for b in went}
    n = n_layers or 1 + max(named, default=0)
    if any(b.layer >= n for b in went):
        raise ValueError(f"the search removed a block beyond {n} layers")
    n_strips = -(-n // A_STRIP)
    width = -(-n // n_strips)
    figure = make_subplots(
        rows=n_strips, cols=1,
        vertical_spacing=BETWEEN / (n_strips * (STRIP + BETWEEN)) if n_strips > 1 else 0,
    )  # fmt: skip
    for strip in range(n_strips):
        layers = range(strip * width, min(n, (strip + 1) * width))
        for trace in _strip(layers, went, len(run.steps)):
            figure.add_trace(trace, row=strip + 1, col=1)
        start = strip * width
        figure.update_xaxes(
            tickvals=_ticks(layers, width), range=[start - 0.5, start + width - 0.5],
            row=strip + 1, col=1,
        )  # fmt: skip
    framed(figure, height=28 + n_strips * (STRIP + BETWEEN), showlegend=False)
    figure.update_layout(margin={"t": 6, "b": 40})
    figure.update_xaxes(showgrid=False).update_yaxes(
        showgrid=False, tickvals=[0, 1], ticktext=["attention", "MLP"], range=[1.5, -0.5]
    )
    figure.update_xaxes(title_text="layer", row=n_strips, col=1)
    return FigureCard(
        key="search-grid",
        title="Which block went when",
        reading="The number is the decision that removed the block for good, dark = early: early "
        "ones are those that the model misses least.",
        citation=cite or (BLOCKPRUNER,),
        figure=figure,
        headers=("block", "decision"),
        rows=table_of((str(b), step) for b, step in sorted(went.items(), key=_by_step)),
        provenance_note=provenance_note(run.provenance),
    )


def _by_step(item: tuple[BlockId, int]) -> tuple[int, BlockId]:
    return item[1], item[0]


def _changes(steps: tuple[SearchStep, ...]) -> list[str]:
    """What each decision removed, and after a minus what it put back."""
    before: tuple[BlockId, ...] = ()
    told = []
    for step in steps:
        gone = [str(b) for b in step.removed if b not in before]
        back = [f"−{b}" for b in before if b not in step.removed]
        told.append(", ".join([*gone, *back]) or "no change")
        before = step.removed
    return told


def _ends(n_steps: int) -> list[float]:
    """An axis of so many decisions, or of 4 while there are fewer."""
    last = max(n_steps, 4)
    return [-0.02 * last - 0.2, 1.02 * last + 0.2]


def _told(step: SearchStep, change: str) -> str:
    removed = in_lines([str(b) for b in step.removed])
    return (
        f"<b>{change}</b><br>removed: {removed}<br>{step.evaluated:.3g} of {step.of} evaluations, "
        f"sure to {100 * step.sureness:.4g} &#37;"
    )


def _went(steps: tuple[SearchStep, ...]) -> dict[BlockId, int]:
    """Attention or MLP block -> the decision since which it is gone, of those gone at the end."""
    went: dict[BlockId, int] = {}
    for i, step in enumerate(steps, 1):
        gone = [part for b in step.removed for part in b.parts]
        went = {part: went.get(part, i) for part in gone}
    return went


def _strip(layers: range, went: Mapping[BlockId, int], n_steps: int) -> list[go.Heatmap]:
    """The cells of some layers: those that went by their decision, the others faint."""
    rows = ("attn", "mlp")
    steps = [[went.get(BlockId(i, part)) for i in layers] for part in rows]
    names = [[f"{i}.{part}" for i in layers] for part in rows]
    kept = [[0 if step is None else None for step in row] for row in steps]
    shared = {"x": list(layers), "y": [0, 1], "customdata": names, "xgap": 2, "ygap": 2,
              "showscale": False, "hoverongaps": False}  # fmt: skip
    return [
        go.Heatmap(
            z=kept, colorscale=[[0, EMPTY], [1, EMPTY]],
            hovertemplate="%{customdata} is there<extra></extra>", **shared,
        ),
        go.Heatmap(
            z=steps, zmin=1, zmax=max(n_steps, 2), colorscale=colorscale(),
            text=[[_inked(step, n_steps) for step in row] for row in steps],
            texttemplate="%{text}", textfont_size=10,
            hovertemplate="%{customdata} went at decision %{z}<extra></extra>", **shared,
        ),
    ]  # fmt: skip


def _inked(step: int | None, n_steps: int) -> str:
    """The number of a cell in the ink that reads on its colour."""
    if step is None:
        return ""
    is_dark = (step - 1) / (max(n_steps, 2) - 1) < DARK_BELOW
    return f'<span style="color:{"#ffffff" if is_dark else "#000000"}">{step}</span>'


def _ticks(layers: range, width: int) -> list[int]:
    """Every fifth layer and the first one, unless the two would touch."""
    return [i for i in layers if width <= EVERY or i % 5 == 0 or (i == layers.start and i % 5 != 4)]
