"""HTML put together so that no text becomes markup: what is not `Markup` already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from blockviz.plots.labels import prose

VOID = frozenset({"meta", "br"})


class Markup(str):
    """Text that `h` or one of our own constants has made; anything else is foreign to a page."""

    __slots__ = ()


def h(tag: str, attributes: Mapping[str, object] | None = None, *children: object) -> Markup:
    """An element. An attribute that is None or False is left out, one that is True stands bare."""
    found = (attributes or {}).items()
    said = "".join(_attribute(k, v) for k, v in found if v is not None and v is not False)
    if tag in VOID:
        return Markup(f"<{tag}{said}>")
    return Markup(f"<{tag}{said}>{joined(children)}</{tag}>")


def joined(children: Iterable[object]) -> Markup:
    """One after the other, None left out."""
    return Markup("".join(escaped(child) for child in children if child is not None))


def escaped(value: object) -> Markup:
    """The text of a value, as itself between tags and in quoted attributes, and turning nothing."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(prose(str(value))))


def table(headers: Iterable[object], rows: Iterable[Iterable[object]], *, label: str) -> Markup:
    """A table in a box of its own, which scrolls by keyboard too; a row's first cell names it."""
    head = h("tr", None, *(h("th", {"scope": "col", "dir": "auto"}, name) for name in headers))
    body = (h("tr", None, *map(_cell, enumerate(row))) for row in rows)
    grid = h("table", None, h("thead", None, head), h("tbody", None, *body))
    box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label}
    return h("div", box, grid)


def _cell(numbered: tuple[int, object]) -> Markup:
    place, value = numbered
    if place == 0:
        return h("th", {"scope": "row", "dir": "auto"}, value)
    return h("td", {"dir": "auto"}, value)


def _attribute(name: str, value: object) -> str:
    return f" {name}" if value is True else f' {name}="{escaped(value)}"'
