"""A report as one HTML file: sections with figures, a table of contents, the look of the app."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import plotly.graph_objects as go

from blockviz import __version__
from blockviz.plots import FigureCard
from blockviz.plots.downloads import SAME_NUMBERS, figure_box, numbers, page_around, sources
from blockviz.plots.markup import Markup, h, joined
from blockviz.ui.parts import stylesheet

FIGURE_HEIGHT = 400


@dataclass(frozen=True)
class Drawn:
    """A figure of a section. is_wide: on a narrow screen it scrolls in its own box."""

    card: FigureCard
    is_wide: bool = True


@dataclass(frozen=True)
class Section:
    """One part of a report; lead and note are text, every other text in it is markup already.

    key: its anchor; note: what to bear in mind, such as that it is partial.
    """

    key: str
    title: str
    lead: str = ""
    note: str = ""
    body: tuple[Markup | Drawn, ...] = ()


def report_around(title: str, lead: str, sections: Sequence[Section]) -> tuple[str, str]:
    """The file before and after the text of plotly.js."""
    figures: dict[str, go.Figure] = {}
    parts = [_section(section, figures) for section in sections]
    main = joined((
        h("a", {"class": "skip", "href": "#main"}, "Skip to the report"),
        h("header", None, _brand(), h("h1", {"dir": "auto"}, title),
          h("p", {"class": "lead", "dir": "auto"}, lead)),
        _contents(sections),
        h("main", {"id": "main"}, *parts),
        h("footer", None, h("p", None, f"Made by blockviz {__version__}. Everything is in this "
          "file; it asks no other host for anything.")),
    ))  # fmt: skip
    return page_around(f"blockviz report: {title}", main, figures, style=_style(), has_tools=False)


def _brand() -> Markup:
    marks = (h("i"), h("i", {"class": "gone"}), h("i"))
    mark = h("span", {"class": "mark", "aria-hidden": "true"}, *marks)
    return h("p", {"class": "brand"}, mark, "blockviz report")


def _contents(sections: Sequence[Section]) -> Markup:
    links = (h("li", None, h("a", {"href": f"#{s.key}"}, s.title)) for s in sections)
    return h("nav", {"aria-label": "Contents"}, h("h2", None, "Contents"), h("ul", None, *links))


def _section(section: Section, figures: dict[str, go.Figure]) -> Markup:
    heading = f"{section.key}-title"
    body = (_figure(p, figures) if isinstance(p, Drawn) else p for p in section.body)
    return h(
        "section", {"id": section.key, "aria-labelledby": heading},
        h("h2", {"id": heading}, section.title),
        h("p", {"class": "lead", "dir": "auto"}, section.lead) if section.lead else None,
        h("p", {"class": "note", "dir": "auto"}, section.note) if section.note else None,
        *body,
    )  # fmt: skip


def _figure(drawn: Drawn, figures: dict[str, go.Figure]) -> Markup:
    card, figure_id = drawn.card, f"figure-{len(figures) + 1}"
    figures[figure_id] = card.figure
    kind, height = "figure wide" if drawn.is_wide else "figure", card.figure.layout.height
    box = figure_box(figure_id, card.title, kind=kind, height=int(height or FIGURE_HEIGHT))
    scroll = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": card.title}
    return h(
        "article", {"class": "panel"},
        h("h3", {"dir": "auto"}, card.title),
        h("p", {"class": "lead", "dir": "auto"}, card.reading),
        h("div", scroll, box) if drawn.is_wide else box,
        h("details", None, h("summary", None, SAME_NUMBERS), numbers(card)),
        h("div", {"class": "sources"}, *_foot(card)),
    )  # fmt: skip


def _foot(card: FigureCard) -> Iterator[Markup | None]:
    yield sources(card)
    yield h("p", {"dir": "auto"}, card.provenance_note) if card.provenance_note else None


def _style() -> str:
    """The app's own colours, by day and by night, and the report's rules."""
    light, dark = re.findall(r"^(?::root|\.dark) \{(.*?)\}", stylesheet(), re.DOTALL | re.MULTILINE)
    night = f"@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}"
    rules = resources.files("blockviz.ui").joinpath("report.css").read_text("utf-8")
    return f":root{{{light}}}{night}{rules}"
