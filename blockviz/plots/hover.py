"""Text of a hover box, which has no width of its own: long lists of blocks in short lines."""

from __future__ import annotations

from collections.abc import Sequence

from blockviz.plots.labels import label

IDS_A_LINE = 6
MOST_LINES = 8


def in_lines(ids: Sequence[str]) -> str:
    """Ids of blocks, six a line; `nothing` where there are none."""
    shown = [label(text, 20) for text in ids[: IDS_A_LINE * MOST_LINES]]
    lines = [
        ", ".join(shown[i : i + IDS_A_LINE]) for i in range(0, len(shown), IDS_A_LINE)
    ]  # fmt: skip
    more = len(ids) - len(shown)
    return ",<br>".join(lines) + (f"<br>and {more} more" if more else "") if lines else "nothing"
