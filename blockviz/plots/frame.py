"""The look of all figures: see-through ground, mid-grey text, lines that differ in dash too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from blockviz.plots.palette import GREY, GRID, TRANSPARENT, colorscale

FONT = "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"
# Hues of Okabe and Ito (2008), less the two that vanish on white or on black paper.
HUES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", GREY)
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon")
BAR_ROOM = 58  # pixels over a figure with a colour bar
PART_NAMES = {"attn": "attention", "mlp": "MLP", "layer": "layer"}


@dataclass(frozen=True)
class Stroke:
    """How one line is drawn; no two of the first 28 share both hue and dash."""

    hue: str
    dash: str
    symbol: str

    @classmethod
    def of(cls, index: int) -> Stroke:
        return cls(
            HUES[index % len(HUES)], DASHES[index % len(DASHES)], SYMBOLS[index % len(SYMBOLS)]
        )

    def faint(self, opacity: float) -> str:
        """The hue as a see-through fill."""
        red, green, blue = (int(self.hue[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red}, {green}, {blue}, {opacity})"

    def drawn(self, *, size: float = 6, width: float = 1.8) -> dict[str, Any]:
        """`line` and `marker` of a scatter trace."""
        return {
            "line": {"color": self.hue, "dash": self.dash, "width": width},
            "marker": {"color": self.hue, "symbol": self.symbol, "size": size},
        }


PARTS = {"attn": Stroke.of(0), "mlp": Stroke("#d55e00", "dash", "square"), "layer": Stroke.of(2)}


def framed(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    """The figure itself with the common look and a fixed height; its width follows the page."""
    axis = {
        "gridcolor": GRID, "zeroline": False, "ticks": "", "automargin": True, "linecolor": GRID,
        "title_standoff": 6, "title_font_size": 12,
    }  # fmt: skip
    figure.update_xaxes(axis).update_yaxes(axis)
    legend = {
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom",
        "bgcolor": TRANSPARENT, "font": {"size": 12}, "itemwidth": 34,
    }  # fmt: skip
    top = 28 if layout.get("showlegend", True) else 10
    return figure.update_layout(
        height=height, font={"color": GREY, "size": 12, "family": FONT}, legend=legend,
        margin={"l": 8, "r": 8, "t": top, "b": 30}, paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT, dragmode=False, bargap=0.25,
        hoverlabel={"bgcolor": "#1c2024", "bordercolor": "#1c2024", "font": {"color": "#f4f2ec"}},
    ).update_layout(**layout)  # fmt: skip


def framed_with_lines(figure: go.Figure, *, height: int, n_lines: int) -> go.Figure:
    """`framed`, with a legend of so many entries under the plot, in room of its own."""
    room = 21 * -(-n_lines // 2)
    framed(figure, height=height + room, showlegend=True)
    return figure.update_layout(
        margin={"t": 12, "b": 52 + room},
        legend={"y": 0, "yref": "container", "yanchor": "bottom", "entrywidth": 0.5,
                "entrywidthmode": "fraction", "traceorder": "normal"},
    )  # fmt: skip


def depth_ticks(n_layers: int) -> list[int]:
    """The layers that get a number on an axis."""
    step = 1 if n_layers <= 12 else 5 if n_layers <= 40 else 10
    return list(range(0, n_layers, step))


def slim_bar(title: str, **more: Any) -> dict[str, Any]:
    """A colour bar over the figure, where it takes no width; it needs `BAR_ROOM` at the top."""
    return {
        "thickness": 10, "outlinewidth": 0, "orientation": "h", "lenmode": "pixels", "len": 280,
        "x": 0.5, "xanchor": "center", "y": 1, "yref": "container", "yanchor": "top",
        "title": {"text": title, "side": "right", "font": {"size": 12}}, **more,
    }  # fmt: skip


def colour_bar(title: str) -> dict[str, Any]:
    """Cividis with its bar, for a heat map that shows numbers rather than ranks."""
    return {"colorscale": colorscale(), "colorbar": slim_bar(title)}


def is_wide_ranging(numbers: list[float]) -> bool:
    """Whether a log axis is called for: all positive, over more than two decades."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) > 100 * min(numbers)
