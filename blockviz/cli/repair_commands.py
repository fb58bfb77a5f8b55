"""The command that repairs what a plan cut: fits, compares, chooses, and saves what was fitted."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from blockviz.cli.console import Stopped, complain, drain, say, table
from blockviz.cli.out_file import check_out, write_json
from blockviz.cli.requests import names_of, read_plan, repair_request_of, request_of
from blockviz.errors import BadInput
from blockviz.session.opening import open_model
from blockviz.session.repair_space import check_repair
from blockviz.session.repair_state import check_state, keep_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import UNFINISHED, repair_request
from blockviz.types import PlaceFit, PruningPlan, RepairRow, RepairTable
from blockviz.types.numbers import plain, rise

NONE = "-"


def correct(args: argparse.Namespace) -> int:
    """Fits corrections of a plan, shows what each buys, saves the single or the best one."""
    check_out(args.out)
    request = _request(args)
    labels = tuple(check_repair(request))
    if args.state is not None:
        check_state(args.state)
        _check_one_can_be_kept(request)
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    # The repair of the row to keep so far: only one is held at a time.
    kept: list[Any] = []

    def keep(repair: Any) -> None:
        kept[:] = [repair]

    try:
        found: RepairTable = drain(repair_request(model, request, keep), seen=RowLines())
    except Stopped as stop:
        if stop.partial is not None:
            n = max(0, len(stop.partial.rows) - 2)
            complain(f"blockviz: stopped; what is written has {n} of {len(labels)} corrections.")
            try:
                if args.state is not None and kept:
                    keep_repair(args.state, model, kept[0], stop.partial.provenance)
                    complain(f"blockviz: the best repair so far is in {args.state}.")
            finally:
                write_json(args.out, replace(stop.partial, is_partial=True).to_json())
        raise
    chosen = found.best or (labels[0] if len(labels) == 1 else "")
    show_corrections(found, n_held=request.n_held, is_single=len(labels) == 1)
    show_places(next((row for row in found.rows if row.correction == chosen), None))
    try:
        if args.state is not None and kept:
            keep_repair(args.state, model, kept[0], found.provenance)
            say(f"Saved: {chosen} in {args.state}")
        elif args.state is not None:
            complain("blockviz: nothing is saved in --state, since no correction was chosen.")
    finally:
        write_json(args.out, found.to_json())
    return 0


def _request(args: argparse.Namespace) -> RepairRequest:
    names = ("auto",) if args.auto else names_of(args.correction)
    plan = read_plan(args) or PruningPlan()
    return repair_request_of(args, plan, names, request_of(args, args.data))


def _check_one_can_be_kept(request: RepairRequest) -> None:
    """BadInput where several corrections are asked for and none of them could be chosen."""
    asked = check_repair(request)
    is_custom = request.export_mode == "custom"
    if len(asked) == 1 or (request.n_held and any(is_custom or c.folds for c in asked.values())):
        return
    found = "None of them goes into an export without storing more."
    raise BadInput(
        f"The best of {', '.join(asked)} was to be saved.",
        found if request.n_held else "No window is held back to choose by.",
        "Name a single correction." if request.n_held else "Raise --fit-held, or name just one.",
    )


class RowLines:
    """A line on stderr for every row that was not there the last time, once it is finished."""

    def __init__(self) -> None:
        self._n_told = 0

    def __call__(self, found: RepairTable) -> None:
        rows = [row for row in found.rows if UNFINISHED not in row.notes]
        for row in rows[self._n_told :]:
            said = row.refused or f"perplexity {_perplexity(row.nll)}, {row.seconds:.1f} s"
            complain(f"{row.correction}: {said}")
        self._n_told = len(rows)


def show_corrections(found: RepairTable, *, n_held: int, is_single: bool) -> None:
    """A line a row, then what was chosen, by what, and on which texts."""
    head = ["correction", "perplexity", "rise", "gap closed", "held-out"]
    head += ["added parameters", "seconds", "exports as"]
    table(head, [_cells(found, row) for row in found.rows if not row.refused])
    say()
    for row in found.rows:
        for text in filter(None, (row.refused, *row.notes)):
            say(f"{row.correction}: {text}")
    say(_choice(found, n_held=n_held, is_single=is_single))
    fit, measured = found.provenance.data, found.evaluation.data
    on = f"fitted on {fit.describe()}" if fit else "fitted"
    by = f"; perplexity of {measured.describe()}" if measured else ""
    say(f"{on}{by}, {found.n_predicted} predicted; {found.provenance.dtype}")
    if found.warning:
        say(found.warning)


def _cells(found: RepairTable, row: RepairRow) -> list[str]:
    closed = found.closed(row)
    is_first, is_plan = row is found.original, row.correction == "none"
    value = f"{_perplexity(row.nll)} ± {row.perplexity * row.stderr:.4f}"
    return [
        row.correction,
        value,
        NONE if is_first else plain(rise(row.rise, row.rise_stderr)),
        NONE if is_first or is_plan or closed is None else f"{100 * closed:.1f} %",
        NONE if row.selection is None else _perplexity(row.selection),
        NONE if is_first or is_plan else f"{row.n_added:,}",
        NONE if is_first or is_plan else f"{row.seconds:.1f}",
        NONE if is_first or is_plan else row.folds or "modules of its own",
    ]


def _choice(found: RepairTable, *, n_held: int, is_single: bool) -> str:
    if not found.best and (is_single or not n_held):
        return "Nothing was chosen: see the held-out column, and what it exports as."
    mode = found.export_mode
    n_able = sum(row.selection is not None and row.goes_into(mode) for row in found.rows[2:])
    carried = "a custom export carries" if mode == "custom" else "an export can carry without "
    carried += "" if mode == "custom" else "storing more"
    head = (
        f"By {n_held} windows that nothing was fitted on, of the {n_able} of "
        f"{len(found.rows) - 2} that {carried}"
    )
    if not found.best:
        return f"{head}: none, since none is better there than the bare plan"
    closed = found.closed(next(row for row in found.rows if row.correction == found.best))
    share = "" if closed is None else f"; it closes {100 * closed:.1f} % of the gap"
    return f"{head}: {found.best}{share}"


def show_places(row: RepairRow | None) -> None:
    """How well a correction meets the whole model's stream at every place."""
    if row is None or not row.fits:
        return
    say()
    say(f"{row.correction}, place by place (0 = the whole model's stream, 1 = no better than its "
        "mean)")  # fmt: skip
    head = ["behind", "gap", "error before", "after", "held-out before", "after"]
    table(head, [_place(fit) for fit in row.fits])
    worse = [str(fit.block) for fit in row.fits if fit.is_worse]
    if worse:
        where = "text that it has not seen" if row.fits[0].held_after is not None else "its text"
        say(f"Warning: worse than doing nothing behind {', '.join(worse)}, on {where}.")


def _place(fit: PlaceFit) -> list[str]:
    shares = (fit.before, fit.after, fit.held_before, fit.held_after)
    numbers = [NONE if share is None else f"{share:.4f}" for share in shares]
    return [str(fit.block), _gap(fit.gap), *numbers]


def _gap(blocks: Sequence[object]) -> str:
    """`7.attn`, or the first and the last of a longer one."""
    ends = [
        str(block) for block in (blocks[:1] if len(blocks) == 1 else (*blocks[:1], *blocks[-1:]))
    ]
    return " to ".join(ends) if ends else NONE


def _perplexity(nll: float) -> str:
    value = math.exp(min(nll, 700.0))
    return f"{value:.4f}" if value < 1e4 else f"{value:.3e}"
