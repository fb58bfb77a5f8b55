"""The command that makes weights of a plan's surviving blocks zero, and shows what that costs."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from typing import Any

from blockviz.cli.console import Stopped, complain, drain, say, table
from blockviz.cli.out_file import check_out, write_json
from blockviz.cli.requests import names_of, read_plan, repair_request_of, request_of
from blockviz.errors import BadInput
from blockviz.session.opening import open_model
from blockviz.session.repair_state import check_state, keep_repair
from blockviz.session.sparsify_space import check_sparsify
from blockviz.session.sparsify_views import SparseRow, SparseTable, SparsifyRequest
from blockviz.session.sparsifying import sparsify_request
from blockviz.types import PruningPlan
from blockviz.types.numbers import plain, rise

NONE = "-"


def sparsify(args: argparse.Namespace) -> int:
    """Makes weights zero by each score asked, shows what each costs, saves the single one."""
    check_out(args.out)
    request = _request(args)
    asked = check_sparsify(request)
    if args.state is not None:
        check_state(args.state)
        _check_is_single(request)
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    # The repair of the last sparse row: only one is held at a time.
    kept: list[Any] = []

    def keep(repair: Any) -> None:
        kept[:] = [repair]

    try:
        found: SparseTable = drain(
            sparsify_request(model, request, None if args.state is None else keep), seen=RowLines()
        )
    except Stopped as stop:
        if stop.partial is not None:
            of = f"{len(stop.partial.sparse)} of {len(asked.sparsities)} sparse rows"
            complain(f"blockviz: stopped; what is written has {of}.")
            write_json(args.out, replace(stop.partial, is_partial=True).to_json())
        raise
    show_sparse(found)
    try:
        if kept:
            keep_repair(args.state, model, kept[0], found.provenance)
            say(f"Saved: {found.sparse[-1].label()} in {args.state}")
        elif args.state is not None:
            complain("blockviz: nothing is saved in --state, since no weights were made sparse.")
    finally:
        write_json(args.out, found.to_json())
    return 0


def _request(args: argparse.Namespace) -> SparsifyRequest:
    plan = read_plan(args) or PruningPlan()
    evaluation = request_of(args, args.data)
    energy = tuple(name for name in names_of(args.energy) if name != "none")
    return SparsifyRequest(
        repair=repair_request_of(args, plan, names_of(args.correction), evaluation),
        scores=names_of(args.score),
        pattern=args.pattern,
        energy=energy,
        clip=_bounds(args.energy_clip),
    )


def _bounds(text: str) -> tuple[float, float]:
    """The two numbers of `0.5,2`; BadInput otherwise."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise BadInput(
            f"The bounds {text!r} of an energy factor were given.",
            "They are not two numbers.",
            "Write --energy-clip 0.5,2, for one.",
        ) from error
    return low, high


def _check_is_single(request: SparsifyRequest) -> None:
    if len({s.score for s in check_sparsify(request).sparsities}) > 1:
        raise BadInput(
            f"The weights by {', '.join(request.scores)} were to be saved.",
            "One state holds those of one score.",
            "Name a single score with --state.",
        )


class RowLines:
    """A line on stderr for every row that was not there the last time."""

    def __init__(self) -> None:
        self._n_told = 0

    def __call__(self, found: SparseTable) -> None:
        for row in found.rows[self._n_told :]:
            complain(f"{row.label()}: {row.refused or f'perplexity {_perplexity(row.nll)}'}")
        self._n_told = len(found.rows)


def show_sparse(found: SparseTable) -> None:
    """A line a row, then on which texts, and what zeros do not do."""
    head = ["variant", "perplexity", "rise", "zeros", "nonzero parameters", "of all", "seconds"]
    table(head, [_cells(found, row) for row in found.rows if not row.refused])
    say()
    for row in found.rows:
        if row.refused:
            say(f"{row.label()}: {row.refused}")
    looked, measured = found.provenance.data, found.evaluation.data
    on = f"inputs of {looked.describe()}; " if looked else ""
    say(f"pattern {found.pattern}; {on}perplexity of {measured.describe()}, {found.n_predicted} "
        f"predicted; {found.provenance.dtype}")  # fmt: skip
    if found.warning:
        say(found.warning)
    say("Zeros are of the matrices of surviving blocks. A plain checkpoint stores them like any "
        "number, so its file gets no smaller, and plain matrix products no faster.")  # fmt: skip


def _cells(found: SparseTable, row: SparseRow) -> list[str]:
    whole = found.rows[0]
    return [
        row.label(),
        f"{_perplexity(row.nll)} ± {row.perplexity * row.stderr:.4f}",
        NONE if row is whole else plain(rise(row.rise, row.rise_stderr)),
        f"{100 * row.sparsity:.2f} %",
        f"{row.n_nonzero:,}",
        f"{100 * row.n_nonzero / whole.n_parameters:.1f} %",
        f"{row.seconds:.1f}" if row.score else NONE,
    ]


def _perplexity(nll: float) -> str:
    value = math.exp(min(nll, 700.0))
    return f"{value:.4f}" if value < 1e4 else f"{value:.3e}"
