"""The heat map as rows of text, and as CSV that a spreadsheet cannot be made to run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from blockviz.plots.matrix import MetricMatrix
from blockviz.types import BlockId, ModelInfo

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def score_rows(
    matrix: MetricMatrix,
    info: ModelInfo,
    intervals: Mapping[str, Mapping[BlockId, tuple[int, int]]] | None = None,
) -> tuple[list[str], list[list[object]]]:
    """(headers, rows): one row per block with its parameters, each metric's raw number and rank.

    intervals: metric -> the ranks that each block could have, written behind the rank.
    """
    known = intervals or {}
    headers = ["block", "parameters"]
    for name, title, unit in zip(matrix.metrics, matrix.titles, matrix.units, strict=True):
        headers += [f"{title} ({unit})" if unit else title, f"rank by {title}"]
        headers += [f"lowest rank by {title}", f"highest rank by {title}"] if name in known else []
    parameters = {b.id: b.n_parameters for b in info.blocks}
    rows = []
    for column, block in enumerate(matrix.blocks):
        row: list[object] = [str(block), parameters.get(block, 0)]
        for metric, name in enumerate(matrix.metrics):
            raw, rank = matrix.raw[metric, column], matrix.ranks[metric, column]
            is_scored = bool(np.isfinite(rank))
            row += [float(f"{raw:.6g}"), int(rank)] if is_scored else ["", ""]
            if name in known:
                unit = block if block in known[name] else BlockId(block.layer, "layer")
                row += known[name].get(unit, ("", ""))
        rows.append(row)
    return headers, rows


def csv_text(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV text. A text cell that a spreadsheet would take for a formula gets a leading apostrophe.

    Numbers stay numbers: a negative score is not a formula.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_guarded(cell) for cell in headers])
    writer.writerows([_guarded(cell) for cell in row] for row in rows)
    return out.getvalue()


def _guarded(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(FORMULA_STARTS):
        return "'" + cell
    return cell
