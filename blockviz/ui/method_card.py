"""One metric or correction explained: its formula, its limits, and what it did on this model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from blockviz.plots import row_name, scores_of, visible
from blockviz.session import MetricCard, Visitor
from blockviz.session.findings import Findings, run_label
from blockviz.session.repair_views import CorrectionCard
from blockviz.types import RepairRow, RepairTable, Scores
from blockviz.ui.drawing import PREFERRED
from blockviz.ui.found import is_of
from blockviz.ui.repair_rows import WORSE, blocks, fitted_tokens
from blockviz.ui.words import MINUS, percent, rise, short, with_error

if TYPE_CHECKING:
    from blockviz.session import Engine

View = dict[str, Any]
N_FIRST, N_LAST = 5, 3
COSTS = {
    "one pass": "One pass: the text goes through the whole model once, for all metrics of this "
    "kind together.",
    "one sweep": "One sweep: the text once more for every block, from that block on; all metrics "
    "of this kind share it.",
    "one backward pass": "One pass forward and back, which takes memory for gradients.",
    "many sets": "Many sets: hundreds of cut models run over a few windows. Slow.",
    "one task a block": "All questions once for every block. Slow.",
    "no data": "Nothing but a look at the weights.",
}
UNITS = {"block": "single blocks", "layer": "whole layers"}
OTHER_MODEL = "Another model has been loaded since this page was opened. Reload it."
UNSCORED = (
    "Not scored on this model yet. Open “Model, text and metrics” at the top, choose it, and press "
    "Score."
)
UNTRIED = (
    "Not tried on this model yet. Switch blocks off on the Map, choose it on the Repair tab, and "
    "fit it there."
)


def offered(engine: Engine) -> list[tuple[str, str]]:
    """(title, what the chooser sends) of every metric and correction."""
    kinds = (("metric", engine.metrics()), ("correction", engine.correction_cards()))
    return [
        (f"{kind.capitalize()}: {card.title}", f"{kind}:{card.name}")
        for kind, cards in kinds
        for card in cards
    ]


def method_view(engine: Engine, visitor: Visitor, method: str) -> View:
    """The card of one of `offered`."""
    kind, _, name = method.partition(":")
    if kind == "metric":
        card = next(card for card in engine.metrics() if card.name == name)
        return {**_explained(card), **_of_metric(card), **_on_this_model(engine, visitor, card)}
    fix = next(card for card in engine.correction_cards() if card.name == name)
    return {**_explained(fix), **_of_correction(fix), **_on_this_model(engine, visitor, fix)}


def _explained(card: MetricCard | CorrectionCard) -> View:
    equation, _, letters = card.formula.partition("\n")
    return {
        "title": card.title,
        "meaning": card.meaning,
        "equation": equation,
        "letters": letters,
        "source": (card.citation or card.title) if card.reference else card.citation,
        "address": card.reference,
    }


def _of_metric(card: MetricCard) -> View:
    units = " and ".join(UNITS[unit] for unit in card.units if unit in UNITS)
    facts = (
        ("Sees", card.sees),
        ("Misses", card.misses),
        ("Costs", COSTS.get(card.cost, card.cost)),
        ("Scores", f"{units}, in {card.unit_label}" if card.unit_label else units),
    )
    return {"kind": "Metric", "facts": [[name, text] for name, text in facts if text]}


def _of_correction(card: CorrectionCard) -> View:
    export = (
        f"A stock checkpoint carries it, in {card.folds}."
        if card.folds
        else "As a rule it needs a module of its own, which stock software does not load."
    )
    facts = (
        ("Sees", card.sees),
        ("Misses", card.misses),
        ("Costs", card.cost),
        ("Exports", export),
        ("Note", "Experimental." if card.is_experimental else ""),
    )
    return {"kind": "Correction", "facts": [[name, text] for name, text in facts if text]}


def _on_this_model(engine: Engine, visitor: Visitor, card: MetricCard | CorrectionCard) -> View:
    view: View = {"model": engine.info.name, "lead": "", "own": [], "empty": "", "colour": ""}
    if visitor.model_key != engine.model_key:
        return {**view, "empty": OTHER_MODEL}
    if isinstance(card, CorrectionCard):
        return {**view, **_repairs(engine, visitor, card.name)}
    table = engine.table(visitor.table_key) if visitor.table_key else None
    if table is None or card.name not in table.metrics:
        return {**view, "empty": UNSCORED}
    found = engine.findings(visitor.table_key, visitor.judgement_key)
    rows = [*_order(table.metrics[card.name])]
    if found is not None:
        rows += [*_agrees(found, card.name), *_foretold(found, card.name)]
    lead = f"Scored on {visible(run_label(table), 200)}."
    return {**view, "lead": lead, "own": rows, "colour": card.name}


def _order(scores: Scores) -> list[list[str]]:
    """What would go first, and what would stay longest."""
    ranks = scores.ranks()
    order = sorted(ranks, key=ranks.__getitem__)

    def said(chosen: list[Any]) -> str:
        found = ((b, scores_of(scores, b)) for b in chosen)
        return ", ".join(f"{b} ({short(f[1])})" if f else str(b) for b, f in found)

    n = min(N_LAST, max(0, len(order) - N_FIRST))
    rows = [["Removes first", said(order[:N_FIRST])]]
    return [*rows, ["Removes last", said(order[::-1][:n])]] if n else rows


def _agrees(found: Findings, name: str) -> list[list[str]]:
    """How like the others it orders: first perplexity, then the nearest and the furthest."""
    like = found.agreement
    if name not in like.metrics:
        return []
    me = like.metrics.index(name)
    tau = {
        i: float(like.tau[me, i])
        for i in range(len(like.metrics))
        if i != me and math.isfinite(like.tau[me, i])
    }
    rows = []
    for i, value in tau.items():
        if like.metrics[i] == PREFERRED:
            rows.append([f"Beside {visible(like.titles[i])}", f"tau {signed(value)}"])
    others = sorted((i for i in tau if like.metrics[i] != PREFERRED), key=tau.__getitem__)
    words = [f"{visible(like.titles[i])}, tau {signed(tau[i])}" for i in others]
    if words:
        rows.append(["Most alike" if len(words) > 1 else "Beside the other", words[-1]])
    return [*rows, ["Least alike", words[0]]] if len(words) > 1 else rows


def _foretold(found: Findings, name: str) -> list[list[str]]:
    """How well it foretold what cuts really cost, where that was measured."""
    judged = [v for v in found.verdicts if v.tau is not None]
    mine = next((v for v in judged if v.metric == name), None)
    if mine is None:
        return [["Foretold", "What cuts of its units cost is not measured; Insights does that."]]
    spread = f" (90 %: {signed(mine.low)} to {signed(mine.high)})" if mine.low is not None else ""
    place = judged.index(mine) + 1
    said = f"tau {signed(mine.tau)}{spread} with {mine.n_blocks} single cuts on other text"
    rows = [["Foretold", f"{said}; place {place} of {len(judged)}"]]
    if mine.rise is None:
        return rows
    return [*rows, ["Its own cuts", _cuts(mine.rise, mine.regret, mine.n_removals)]]


def _cuts(nats: float, regret: float | None, n_removals: int) -> str:
    said = f"{rise(nats, 0.0)} perplexity on average over its first {n_removals}"
    return (
        f"{said}; the best metric: {rise(nats - regret, 0.0)}" if regret else f"{said}: the least"
    )


def _repairs(engine: Engine, visitor: Visitor, name: str) -> View:
    """What it did in the visitor's newest table of this model that has it."""
    tables = (engine.repair_table(key) for key in reversed(visitor.repairs))
    for table in tables:
        if table is None or not is_of(table, engine.info):
            continue
        rows = [r for r in table.rows[2:] if r.correction.partition(":")[0] == name]
        if rows:
            return {"lead": _setting(table), "own": [[row_name(r), _done(table, r)] for r in rows]}
    return {"empty": UNTRIED}


def _setting(table: RepairTable) -> str:
    original, bare = (short(row.perplexity) for row in table.rows[:2])
    data = table.evaluation.data
    on = f" on {visible(data.describe(), 120)}" if data else ""
    return (
        f"Without {blocks(len(table.removed))}, fitted on {fitted_tokens(table)}: "
        f"perplexity{on} {original} whole, {bare} unrepaired."
    )


def _done(table: RepairTable, row: RepairRow) -> str:
    if row.refused:
        return f"Could not be fitted. {visible(row.refused, 400)}"
    if not math.isfinite(row.nll):
        return "Its perplexity is no number."
    said = f"Perplexity {with_error(row.perplexity, row.perplexity * row.stderr)}"
    closed = table.closed(row)
    if closed is not None:
        said += f"; closes {percent(closed).removeprefix('+')} of the gap in log-perplexity"
    if row.nll > table.rows[1].nll:
        return f"{said}; {WORSE}"
    return f"{said}; the best for export" if row.correction == table.best else said


def signed(value: float) -> str:
    """`0.62`, with a true minus sign."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)
