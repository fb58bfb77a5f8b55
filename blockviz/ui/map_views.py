"""The map as the plain values our components draw: cells, one block, the ranking, the legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blockviz.plots import Shade, cividis, ramp, scores_of
from blockviz.session import Visitor
from blockviz.types import BlockId, ModelInfo, ScoreTable
from blockviz.ui.words import count, rise_between, short

View = dict[str, Any]
Intervals = Mapping[str, Mapping[BlockId, tuple[int, int]]]


def grid(
    info: ModelInfo,
    visitor: Visitor,
    table: ScoreTable | None,
    *,
    metric: str,
    shade: Shade,
    tones: dict[BlockId, float],
    picked: str = "",
    tied: tuple[BlockId, ...] = (),
) -> View:
    """Cells of the removal grid, with the number of the page's last toggle that they know of.

    tied: what the metric cannot tell from the picked block; a layer stands for both its blocks.
    """
    chosen = table.metrics.get(metric) if table else None
    damage = table.metrics.get("ppl") if table else None

    def cell(block: BlockId) -> View:
        found = scores_of(chosen, block) if chosen else None
        cost = scores_of(damage, block) if damage else None
        return {
            "colour": cividis(tones[block]) if block in tones else None,
            "rank": found[2] if found else None,
            "perplexity": short(cost[1]) if cost else "",
        }

    return {
        "layers": info.n_layers,
        "of": len(chosen.values) if chosen else 0,
        "removed": list(visitor.removed),
        "picked": picked,
        "seq": visitor.seq,
        "changes": visitor.changes,
        "tied": [str(part) for b in tied for part in b.parts],
        "cells": {
            part: [cell(BlockId(i, part)) for i in range(info.n_layers)] for part in ("attn", "mlp")
        },
    }


def legend(table: ScoreTable | None, metric: str, shade: Shade) -> View:
    """The ramp and what it stands for."""
    chosen = table.metrics.get(metric) if table else None
    by = "rank" if shade == "rank" else "value"
    note = f"by {by} of {chosen.title}" if chosen else "no scores yet: press Score above"
    return {"ramp": ramp(), "note": note}


def block_panel(
    info: ModelInfo,
    visitor: Visitor,
    table: ScoreTable | None,
    block: BlockId,
    intervals: Intervals,
) -> View:
    """One block: kept or cut, parameters, damage if cut alone, rank under every metric."""
    n_parameters = info.parameters_of((block,))
    state = "kept" if visitor.plan().keeps(block) else "cut"
    lead = f"{state} · {count(n_parameters)} parameters"
    damage = table.metrics.get("ppl") if table else None
    cost = scores_of(damage, block) if damage else None
    if cost and damage and damage.baseline:
        rise = rise_between(damage.baseline, cost[1])
        lead += f" · if cut alone: perplexity {short(cost[1])} ({rise}) where scored"
    rows = []
    for name, scores in table.metrics.items() if table else ():
        found = scores_of(scores, block)
        if found:
            of = len(scores.values)
            rows.append(
                {
                    "title": scores.title,
                    "rank": f"rank {found[2]} of {of}",
                    "range": could_be(intervals.get(name), block),
                    "share": found[2] / of,
                    "raw": short(found[1]),
                }
            )
    return {
        "title": str(block),
        "lead": lead,
        "rows": rows,
        "empty": "No scores of this model yet. Choose metrics above and press Score.",
    }


def could_be(intervals: Mapping[BlockId, tuple[int, int]] | None, block: BlockId) -> str:
    """`1\u201317`: the ranks a block could have; empty where no error is known or it is certain."""
    for unit in (block, BlockId(block.layer, "layer")):
        if intervals and unit in intervals:
            low, high = intervals[unit]
            return f"{low}\u2013{high}" if low < high else ""
    return ""


def ranking(visitor: Visitor, table: ScoreTable | None, metric: str, intervals: Intervals) -> View:
    """All scored units of one metric, most removable first."""
    chosen = table.metrics.get(metric) if table else None
    is_dropped = table is None and visitor.table_key not in ("", "example")
    found = "Your scores are not kept any more" if is_dropped else "No scores of this model yet"
    empty = f"{found}. Choose metrics above and press Score."
    if chosen is None:
        return {"lead": "", "rows": [], "empty": empty}
    plan, ranks = visitor.plan(), chosen.ranks()
    rows = [
        {
            "rank": rank,
            "range": could_be(intervals.get(metric), block),
            "block": str(block),
            "share": rank / len(ranks),
            "raw": short(chosen.raw.get(block, chosen.values[block])),
            "is_cut": not plan.keeps(block),
        }
        for block, rank in ranks.items()
    ]
    lead = f"By {chosen.title}, most removable first."
    if any(row["range"] for row in rows):
        lead += " Small: the ranks that chance in the text leaves open, 95 %."
    return {"lead": lead, "rows": rows, "empty": empty}


def readings(cards: tuple[Any, ...], shown: tuple[str, ...]) -> View:
    """What each metric on the map says, which way to read it, and its paper."""
    return {
        "metrics": [
            {
                "title": card.title,
                "meaning": card.meaning,
                "direction": "Low = removable.",
                "reference": card.reference,
            }
            for card in cards
            if card.name in shown
        ]
    }
