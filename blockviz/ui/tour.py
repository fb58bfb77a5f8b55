"""The stops of the tour, worked out of what this visitor has before them. No gradio, no work.

A stop says what to look at and what to press, and how the page shows that it was pressed. The page
presses the real control, or waits for a hand to do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from blockviz.plots import row_name, visible
from blockviz.session import Visitor
from blockviz.types import BlockId, PruningPlan, Scores, ScoreTable
from blockviz.ui.drawing import PREFERRED
from blockviz.ui.found import is_of
from blockviz.ui.method_card import signed
from blockviz.ui.repair_rows import blocks
from blockviz.ui.words import percent, rise_between, short

if TYPE_CHECKING:
    from blockviz.session import Engine

Stop = dict[str, Any]
# Where a tab's content is, by which the page knows that the tab is open.
MARKS = {"Map": "#map-main", "Insights": "#page", "Repair": "#repair-form"}
HARDLY = 0.02
KNOWN = "bi"
MOST_NAMED = 4


def tour_of(engine: Engine, visitor: Visitor, metric: str) -> list[Stop]:
    """The stops for this visitor, whose Map is coloured by `metric`."""
    table = engine.table(visitor.table_key) if visitor.table_key else None
    block = _first_to_go(engine, table)
    stops = [_example(engine, visitor), _reset(engine, visitor), _cut(engine, table, block)]
    other = _another(table, metric, block)
    if table is not None and other:
        stops.append(_ask(table, metric, other, block))
    return [*stops, _judged(engine, visitor, other), _repair(engine, visitor), _pass_on()]


def _stop(title: str, text: str, target: str, tab: str = "Map", **more: Any) -> Stop:
    """target, later: what is shown before it is done and after, the first of them that is there.

    only_with: what very narrow screens leave out, and this stop with it.
    """
    return {
        "title": title,
        "text": text,
        "after": "",
        "tab": tab,
        "mark": MARKS[tab],
        "target": [target],
        "later": [target],
        "act": None,
        "only_with": "",
        **more,
    }


def _example(engine: Engine, visitor: Visitor) -> Stop:
    plan, name = visitor.plan(), visible(engine.info.name)
    n, of, known = len(plan.removed), len(engine.info.blocks), engine.known(plan)
    is_example = set(visitor.removed) == set(engine.example_removed) and bool(n)
    title = "A finished example" if is_example else "Where you are"
    if not n:
        text = f"{name} is whole: all {of} blocks are on, and both texts are the same."
    else:
        text = f"{name} without {n} of its {of} blocks. "
        text += (
            f"At the top, perplexity went from {short(known.baseline)} to "
            f"{short(known.perplexity)}. "
            if known
            else "At the top, its perplexity comes once the model is ready. "
        )
        text += "Here is what it writes, whole and cut; the first different word is marked."
    return _stop(title, text, "#texts")


def _reset(engine: Engine, visitor: Visitor) -> Stop:
    title, whole = "Switch everything on", engine.known(PruningPlan())
    if not visitor.removed:
        text = "Reset brings every block back. It is grey now, as none is missing."
        return _stop(title, text, "#reset")
    return _stop(
        title,
        "Reset brings every block back. Undo and Redo beside it go through your changes one by "
        "one. All three stand above every tab.",
        "#reset",
        act={"kind": "press", "done": "whole"},
        after=f"The whole model: perplexity {short(whole.perplexity)}." if whole else "It is on.",
    )


def _cut(engine: Engine, table: ScoreTable | None, block: BlockId) -> Stop:
    by = _by(table)
    why = f"{by.title} would remove {block} first. " if by else ""
    alone, vital = engine.known(PruningPlan(removed=(block,))), _last_to_go(by)
    after = f"{block} is off; its perplexity comes at the top."
    if alone:
        verdict = "it is hardly missed" if alone.rise < HARDLY else "it is missed"
        by_how_much = rise_between(alone.baseline, alone.perplexity)
        change = f"{short(alone.baseline)} to {short(alone.perplexity)}, {by_how_much}"
        after = (
            f"{block} is off. Without it alone, perplexity on the text at the top goes from "
            f"{change}: {verdict}."
        )
    worst = engine.known(PruningPlan(removed=(vital,))) if vital else None
    if worst:
        after += f" {vital}, the last to go, would take it to {short(worst.perplexity)}."
    return _stop(
        "Switch one block off",
        f"{why}Press it in the grid, and watch perplexity at the top. Press it again and it is "
        "back.",
        f'[data-block="{block}"]',
        act={"kind": "press", "done": "cut", "block": str(block)},
        after=after,
    )


def _ask(table: ScoreTable, metric: str, other: str, block: BlockId) -> Stop:
    now, asked = table.metrics[metric], table.metrics[other]
    return _stop(
        "Did the metrics foretell it?",
        f"The grid is coloured by {visible(now.title)}, which puts {_place(now, block)}. Colour it "
        f"by {visible(asked.title)} instead.",
        "#metric",
        act={"kind": "choose", "done": "metric", "title": asked.title},
        after=f"{visible(asked.title)} puts {_place(asked, block)}. Dark goes first.",
    )


def _judged(engine: Engine, visitor: Visitor, other: str) -> Stop:
    found = engine.findings(visitor.table_key, visitor.judgement_key)
    verdicts = [v for v in found.verdicts if v.tau is not None] if found else []
    after = "For these scores that is not measured yet; the button on this page does it."
    if verdicts:
        asked = next((v for v in verdicts[1:] if v.metric == other), None)
        more = f", {visible(asked.title)} {signed(asked.tau)}" if asked else ""
        after = (
            f"Nearest to the truth: {visible(verdicts[0].title)}, tau {signed(verdicts[0].tau)}"
            f"{more}. 1 would be the very same order, 0 no relation."
        )
    return _stop(
        "Who is right?",
        "One cut proves little. Insights holds the whole order of every metric against what cuts "
        "cost on text that none of them has seen.",
        "Insights",
        "Insights",
        act={"kind": "tab", "done": "tab"},
        later=["#verdict-card", "#page"],
        after=after,
    )


def _repair(engine: Engine, visitor: Visitor) -> Stop:
    return _stop(
        "Cut more, then repair",
        "Where many blocks are gone, the rest reads what it was never trained on. Repair brings "
        "that nearer to what it was, and no block comes back.",
        "Repair",
        "Repair",
        act={"kind": "tab", "done": "tab"},
        later=["#repairs-card", "#repair-form"],
        after=_repaired(engine, visitor),
    )


def _repaired(engine: Engine, visitor: Visitor) -> str:
    """What the best correction of the newest table brought back; how to get one without."""
    for key in reversed(visitor.repairs):
        table = engine.repair_table(key)
        if table is None or not is_of(table, engine.info):
            continue
        shares = [(table.closed(row), row) for row in table.rows[2:]]
        share, row = max(
            ((s, r) for s, r in shares if s is not None), key=lambda x: x[0], default=(0.0, None)
        )
        if row is not None and share > 0:
            closed = percent(share, digits=0).removeprefix("+")
            return (
                f"The table is of the model without {_named(table.removed)}: "
                f"{visible(row_name(row))} takes back {closed} of the rise in log-perplexity."
            )
    return (
        "Choose corrections and start: each is fitted on one text and measured on another, which "
        "it has not seen."
    )


def _named(removed: Sequence[BlockId]) -> str:
    """The set of a result, which need not be the plan by the time that the stop is reached."""
    if len(removed) > MOST_NAMED:
        return blocks(len(removed))
    return ", ".join(PruningPlan(removed=tuple(removed)).shown())


def _pass_on() -> Stop:
    return _stop(
        "Pass it on",
        "Copy link copies an address that opens this view for a whole class: these blocks, these "
        "colours. It starts no download and no job.",
        "#link button",
        act={"kind": "press", "done": "copied"},
        only_with="#link",
        after="The address is ready to be pasted. Undo, at the top, still takes back every step.",
    )


def _first_to_go(engine: Engine, table: ScoreTable | None) -> BlockId:
    by = _by(table)
    if by is None:
        return BlockId(engine.info.n_layers // 2, "attn")
    ranks = by.ranks()
    return next(iter(sorted(ranks, key=ranks.__getitem__)[0].parts))


def _last_to_go(by: Scores | None) -> BlockId | None:
    ranks = by.ranks() if by else {}
    last = max(ranks, key=ranks.__getitem__, default=None)
    return last if last is not None and last.part != "layer" else None


def _by(table: ScoreTable | None) -> Scores | None:
    """The metric that the tour goes by: perplexity where it is there, of single blocks."""
    metrics = list(table.metrics.values()) if table else []
    able = [s for s in metrics if any(b.part != "layer" for b in s.values)]
    named = next((s for s in able if s.metric == PREFERRED), None)
    return named or (able[0] if able else None)


def _another(table: ScoreTable | None, metric: str, block: BlockId) -> str:
    """A metric that places the block elsewhere than `metric` does; none without two.

    That which most have heard of, if it differs, else that which differs most.
    """
    metrics = table.metrics if table else {}
    if metric not in metrics or block not in metrics[metric].values:
        return ""
    here = metrics[metric].ranks()[block]
    apart = {
        name: abs(scores.ranks()[block] - here)
        for name, scores in metrics.items()
        if name != metric and block in scores.values
    }
    if apart.get(KNOWN, 0) >= len(metrics[metric].values) / 10:
        return KNOWN
    return max(apart, key=apart.__getitem__, default="")


def _place(scores: Scores, block: BlockId) -> str:
    return f"{block} at place {scores.ranks()[block]} of {len(scores.values)}"
