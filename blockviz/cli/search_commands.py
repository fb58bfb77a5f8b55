"""Commands that choose blocks: search, and what two blocks cost together."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace

from blockviz.cli.console import Stopped, complain, drain, say, table
from blockviz.cli.out_file import check_out, write_json
from blockviz.cli.requests import request_of, search_fields
from blockviz.errors import BadInput
from blockviz.session.ledger import ledger_on_disk
from blockviz.session.opening import open_model
from blockviz.session.pairing import check_pairs, pairs_request, road_of
from blockviz.session.processes import close_shares, open_shares
from blockviz.session.recipes import departures, filled_request
from blockviz.session.search_space import check_search
from blockviz.session.search_target import asked, n_units
from blockviz.session.search_views import PairsRequest
from blockviz.session.searching import search_request
from blockviz.types import Events, Interactions, ModelInfo, SearchRun, SearchStep
from blockviz.types.numbers import plain, rise_between

NONE = "-"
GOES_ON = "blockviz: the same command goes on from here."


def search(args: argparse.Namespace) -> int:
    """Chooses the blocks to remove and writes the plan."""
    check_out(args.out)
    own, recipe = search_fields(args), args.preset or ""
    check_search(filled_request(own, recipe=recipe))
    shares = open_shares(args.device)
    try:
        model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
        request = filled_request(own, recipe=recipe, n_layers=model.info.n_layers)
        check_search(request, model.info)
        for name, theirs, ours in departures(own, recipe) if recipe else ():
            complain(f"{recipe} has {name} {theirs}; {ours} was asked for.")
        ledger = None
        if not args.no_resume:
            name, engine = request.objective, request.engine
            ledger = ledger_on_disk(model, name, engine=engine, shares=shares)
        events = search_request(model, request, ledger, shares)
        run = _searched(args, events, can_go_on=ledger is not None)
    finally:
        close_shares()
    show_search(run, model.info, target=asked(request), can_redo=ledger is not None)
    write_json(args.out, run.to_json())
    _say_what_is_there(args, run)
    return 0


def _searched(args: argparse.Namespace, events: Events, *, can_go_on: bool) -> SearchRun:
    """The whole search, a line for every decision; Stopped once what is there was written."""
    try:
        return drain(events, seen=StepLines())
    except Stopped as stop:
        run: SearchRun | None = stop.partial
        if can_go_on:
            complain(GOES_ON)
        if run is not None:
            complain(f"blockviz: stopped; the plan so far has {_count(run)}.")
            write_json(args.out, replace(run, is_partial=True).to_json())
        raise


class StepLines:
    """A line on stderr for every decision that was not there the last time."""

    def __init__(self) -> None:
        self._n_told = 0

    def __call__(self, run: SearchRun) -> None:
        rows = step_rows(run)
        for row in rows[self._n_told :]:
            number, change, value, asked, sure, seconds = row
            complain(
                f"{number:>3}  {change}: {run.unit_label or run.objective} {value}; "
                f"{asked} evaluations, confidence {sure}, {seconds} s"
            )
        self._n_told = len(rows)


def step_rows(run: SearchRun) -> list[list[str]]:
    """Number, change, objective, evaluations, confidence and seconds of every decision."""
    rows, before = [], ()
    for number, step in enumerate(run.steps, 1):
        rows.append(
            [
                str(number),
                _change(before, step),
                NONE if step.number is None else _number(step.number),
                f"{step.evaluated:.4g} of {step.of}" if step.of else NONE,
                f"{100 * step.sureness:.4g} %",
                f"{step.seconds:.1f}",
            ]
        )
        before = step.removed
    return rows


def _change(before: Sequence[object], step: SearchStep) -> str:
    """`18.attn`, or `18.attn, 7.mlp (back: 3.mlp)` where a decision took others back."""
    new = ", ".join(str(b) for b in step.removed if b not in before)
    back = ", ".join(str(b) for b in before if b not in step.removed)
    if not back:
        return new or "nothing more"
    return f"{new or 'nothing new'} (back: {back})"


def show_search(run: SearchRun, info: ModelInfo, *, target: str, can_redo: bool) -> None:
    """The decisions as a table, then what they come to beside the target, and what they took."""
    head = ["removal", "block", run.unit_label or run.objective]
    head += ["evaluations", "confidence", "seconds"]
    rows = [["0", "whole model", _number(run.baseline), NONE, NONE, NONE], *step_rows(run)]
    table(head, rows)
    say()
    cut = info.parameters_of(run.best.removed if run.best else ()) / info.n_parameters
    wanted = f" (asked for: {target})" if target else ""
    say(f"{_count(run)} removed, {100 * cut:.2f} % of the parameters{wanted}; {_rise(run)}")
    spent = f"{run.n_evaluated:.4g} of {run.n_of} evaluations" if run.n_of else "no evaluations"
    data = run.provenance.data
    where = f"; {data.describe()}" if data else ""
    say(f"{run.strategy} by {run.objective}: {spent}{where}; {run.provenance.dtype}")
    if run.n_reused and can_redo:
        say(f"{run.n_reused} evaluations known from other runs; --no-resume redoes them")
    if run.warning:
        say(run.warning)


def _rise(run: SearchRun) -> str:
    label, last = run.unit_label or run.objective, run.best
    if last is None or last.number is None:
        return f"{label} of the result was not measured"
    text = f"{label} {_number(run.baseline)} -> {_number(last.number)}"
    if label == "perplexity" and run.baseline > 0:
        text += f" ({plain(rise_between(run.baseline, last.number))})"
    return text


def _count(run: SearchRun) -> str:
    return n_units(len(run.best.removed) if run.best else 0, run.unit)


def _say_what_is_there(args: argparse.Namespace, run: SearchRun) -> None:
    if run.best is not None and run.best.repair:
        plan = args.out or "PLAN"
        say(
            f"Measured with a repair: blockviz correct --plan {plan} --correction {run.best.repair}"
        )
    if args.out is not None and run.best is not None and run.best.removed:
        say(f"A plan: blockviz evaluate --plan {args.out}, or generate --plan {args.out}")


def pairs(args: argparse.Namespace) -> int:
    """Measures what two blocks cost together beyond what each costs alone."""
    check_out(args.out)
    request = _pairs_request(args)
    check_pairs(request)
    shares = open_shares(args.device)
    try:
        model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
        ledger = None
        if not args.no_resume:
            ledger = ledger_on_disk(model, "ppl", engine=road_of(request), shares=shares)
        found: Interactions = drain(pairs_request(model, request, ledger, shares))
    except Stopped as stop:
        if stop.partial is not None:
            n = len(stop.partial.pairs)
            complain(f"blockviz: stopped; what is written has the {n} pairs done so far.")
            write_json(args.out, replace(stop.partial, is_partial=True).to_json())
        raise
    finally:
        close_shares()
    show_pairs(found, args.top)
    write_json(args.out, found.to_json())
    return 0


def _pairs_request(args: argparse.Namespace) -> PairsRequest:
    text = request_of(args, args.calibration)
    if args.top < 1:
        raise BadInput(
            f"The strongest {args.top} pairs were to be shown.", "That is none.", "Show 1 or more."
        )
    try:
        n_positions = None if args.positions == "all" else int(args.positions)
    except ValueError as error:
        raise BadInput(
            f"{args.positions!r} positions of each window were to be read.",
            "That is no number.",
            "Give a number, or all.",
        ) from error
    return PairsRequest(
        text=text,
        unit=args.unit,
        n_positions=n_positions,
        pool=args.pool,
        seed=args.seed,
        memory_bytes=args.memory_bytes,
    )


def show_pairs(found: Interactions, n_top: int) -> None:
    """The strongest pairs of both signs, with their errors."""
    order = sorted(found.pairs, key=lambda pair: -abs(found.pairs[pair]))
    rows = [
        [
            f"{a} + {b}",
            f"{found.pairs[a, b]:+.4f} ± {found.stderr[a, b]:.4f}",
            f"{found.singles[a]:+.4f}",
            f"{found.singles[b]:+.4f}",
            "stand in for each other" if found.pairs[a, b] > 0 else "need each other",
        ]
        for a, b in order[:n_top]
    ]
    table(["pair", "together beyond alone, nats", "first", "second", ""], rows)
    clear = sum(abs(v) > 2 * found.stderr[pair] for pair, v in found.pairs.items())
    data, n = found.provenance.data, len(found.pairs)
    where = f"; {data.describe()}" if data else ""
    read = f"{found.n_positions} positions a window"
    say()
    say(
        f"{clear} of {n} pairs are more than two standard errors from 0; whole model "
        f"{math.exp(found.whole):.4g} perplexity; {read}{where}; {found.provenance.dtype}"
    )


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3e}"
