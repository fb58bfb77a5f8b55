"""A figure with what belongs to it: how to read it, its numbers, its source; and its files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from blockviz.plots.downloads import html_around, plotly_js
from blockviz.plots.labels import visible
from blockviz.plots.table import csv_text
from blockviz.types import Provenance, short_revision

Citation = tuple[str, str]
Cell = str | int | float


@dataclass(frozen=True)
class FigureCard:
    """A figure, its one-sentence reading, its sources, and the table of exactly what it shows.

    key: stem of the names of its files; citation: (text, http address) pairs; an empty cell of
    `rows` is the empty string.
    """

    key: str
    title: str
    reading: str
    citation: tuple[Citation, ...]
    figure: go.Figure
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    provenance_note: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.key):
            raise ValueError(f"a key is lower-case letters, digits and hyphens, not {self.key!r}")
        if not self.title.strip():
            raise ValueError("a figure needs a title")
        if not self.reading.endswith(".") or re.search(r"[.!?]\s", self.reading):
            raise ValueError(f"a reading is one sentence, not {self.reading!r}")
        if any(not re.match(r"https?://", address) for _, address in self.citation):
            raise ValueError("a citation needs an http address")
        if any(len(row) != len(self.headers) for row in self.rows):
            raise ValueError(f"every row needs {len(self.headers)} cells, one a header")
        cells = (cell for row in self.rows for cell in row)
        if any(isinstance(c, float) and not math.isfinite(c) for c in cells):
            raise ValueError("a cell without a number is the empty string")

    def csv(self) -> str:
        """The table as CSV text that no spreadsheet takes for formulas."""
        return csv_text(self.headers, self.rows)

    def html(self) -> str:
        """A page of its own with figure, reading, table and sources; it asks no other host."""
        before, after = html_around(self)
        return before + plotly_js() + after


def number(value: float | None) -> Cell:
    """Six significant digits of a number; the empty cell where there is none."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else ""


def table_of(rows: Iterable[Iterable[Cell]]) -> tuple[tuple[Cell, ...], ...]:
    """Rows as a card holds them; what others wrote is made visible."""
    return tuple(tuple(visible(c) if isinstance(c, str) else c for c in row) for row in rows)


def provenance_note(provenance: Provenance | None) -> str:
    """Model, precision and text that the numbers come from, in one line; empty if unknown."""
    if provenance is None:
        return ""
    facts = [provenance.model, short_revision(provenance.revision), provenance.quantisation]
    facts += [provenance.dtype, provenance.device]
    if provenance.data:
        facts += [provenance.data.describe(), f"seed {provenance.data.seed}"]
    version = provenance.versions.get("blockviz", "")
    facts += [f"blockviz {version}" if version else ""]
    return " · ".join(visible(fact, 120) for fact in facts if fact)
