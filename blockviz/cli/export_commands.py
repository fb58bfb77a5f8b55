"""The commands that write a pruned model and check the files of one."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from blockviz.cli.console import complain, drain, say
from blockviz.cli.out_file import check_out, write_json
from blockviz.cli.recipes import cut_as_before, read_recipe
from blockviz.cli.requests import names_of, read_plan, repair_request_of, request_of
from blockviz.errors import BadInput
from blockviz.session.export_folder import check_target
from blockviz.session.export_views import ExportRequest
from blockviz.session.exporting import (
    check_export,
    export_request,
    verify_folder,
)
from blockviz.session.opening import open_model
from blockviz.session.repair_space import NO_CORRECTION
from blockviz.types import CheckRow, ExportReport, PruningPlan
from blockviz.types.numbers import plain, rise_between

FAILED = 1


def export(args: argparse.Namespace) -> int:
    """Writes a folder that loads elsewhere, and shows every check that it passed."""
    request = _request(args)
    check_export(request)
    check_target(request.folder)
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    found: ExportReport = drain(export_request(model, request), seen=CheckLines())
    say()
    show_checks(found.rows)
    say()
    show_export(found)
    say(f"Written: {request.folder}")
    return 0


def _request(args: argparse.Namespace) -> ExportRequest:
    scoring = {}
    if args.recipe is not None:
        found = read_recipe(args)
        args, scoring = cut_as_before(args, found), found.scoring_to_json()
    plan = read_plan(args)
    if plan is None and args.state is None:
        raise BadInput(
            "A pruned model was to be written.",
            "No plan was given.",
            "Give --plan, --remove, or --state with a fitted correction.",
        )
    plan, names = plan or PruningPlan(), names_of(args.correction)
    is_repaired = args.state is None and bool(set(names) - {NO_CORRECTION})
    return ExportRequest(
        plan=plan,
        folder=args.out.resolve(),
        mode=args.mode,
        repair=repair_request_of(args, plan, names) if is_repaired else None,
        state=args.state,
        as_llama=args.as_llama,
        evaluation=request_of(args, args.data),
        scoring=scoring,
    )


class CheckLines:
    """A line on stderr for every check that was not there the last time."""

    def __init__(self) -> None:
        self._n_told = 0

    def __call__(self, found: ExportReport) -> None:
        for row in found.rows[self._n_told :]:
            complain(f"{row.name}: {row.shown}")
        self._n_told = len(found.rows)


def show_checks(rows: Iterable[CheckRow]) -> None:
    """A line a check."""
    for row in rows:
        say(f"{row.shown:8} {row.name:11} {row.title}: {row.detail}")


def show_export(found: ExportReport) -> None:
    """What was written, how large it is, and how well it does."""
    mib = 2**20
    before, after = found.perplexities["original"], found.perplexities["exported"]
    say(
        f"{found.mode}: layers {found.layers}; {found.n_parameters:,} of "
        f"{found.n_parameters_before:,} parameters; {found.n_bytes / mib:.1f} MiB of weights, the "
        f"original {found.n_bytes_before / mib:.1f} MiB"
    )
    say(
        f"blocks removed hold {100 * found.effective_ratio:.2f} % of the parameters; the file does "
        f"without {100 * found.stored_ratio:.2f} %"
    )
    say(
        f"perplexity {before:.4f} -> {after:.4f} ({plain(rise_between(before, after))}) "
        f"on {found.data}"
    )
    for note in found.notes:
        say(note)


def verify(args: argparse.Namespace) -> int:
    """Runs every check that needs no more than the files; 1 where one fails."""
    check_out(args.out)
    rows: tuple[CheckRow, ...] = drain(verify_folder(args.folder))
    show_checks(rows)
    is_passed = all(row.passed for row in rows)
    say("Every check passed." if is_passed else "The export is not what was written.")
    write_json(
        args.out,
        {
            "schema": "blockviz/verify/1",
            "passed": is_passed,
            "rows": [row.to_json() for row in rows],
        },
    )
    return 0 if is_passed else FAILED
