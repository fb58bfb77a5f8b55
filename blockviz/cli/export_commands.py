"""The commands that write a pruned model and check the files of one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

from blockviz.cli.console import complain, drain, say, write_json
from blockviz.cli.options import check_out
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
from blockviz.session.recipe_file import EVALUATION, FIT, recipe_from_json
from blockviz.session.repair_space import NO_CORRECTION
from blockviz.types import CheckRow, ExportReport, PruningPlan

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
    if args.recipe is not None:
        args = _as_before(args)
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
        folder=args.out,
        mode=args.mode,
        repair=repair_request_of(args, plan, names) if is_repaired else None,
        state=args.state,
        as_llama=args.as_llama,
        evaluation=request_of(args, args.data),
    )


def _as_before(args: argparse.Namespace) -> argparse.Namespace:
    """The options with what a recipe says in their place; where to write it stays."""
    try:
        data = json.loads(args.recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"The recipe {args.recipe.name} was to be followed.",
            "There is no such file, or it is not JSON.",
            "Give blockviz_recipe.json of an export.",
        ) from error
    found = recipe_from_json(data, args.recipe.name)
    if found.is_from_state:
        raise _needs_state(args)
    own = {
        "remove": ",".join(str(b) for b in found.plan.removed),
        "mode": found.mode,
        "as_llama": found.as_llama,
        "correction": found.correction,
        **{FIT[name]: value for name, value in found.fit.items()},
        **{EVALUATION[name]: value for name, value in found.evaluation.items()},
    }
    if args.plan is not None or args.remove is not None or args.state is not None:
        raise BadInput(
            "A recipe was given, and a plan or a fitted correction besides.",
            "A recipe holds its own.",
            "Leave one of the two out.",
        )
    return argparse.Namespace(**{**vars(args), **own})


def _needs_state(args: argparse.Namespace) -> BadInput:
    return BadInput(
        f"The recipe {args.recipe.name} was to be followed.",
        "Its correction was fitted before, and taken from the folder that held it.",
        "Give that folder with --state.",
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
    ratio = found.perplexities["exported"] / found.perplexities["original"]
    say(
        f"{found.mode}: {found.n_layers} layers, {found.n_parameters:,} of "
        f"{found.n_parameters_before:,} parameters; {found.n_bytes / mib:.1f} MiB of weights, the "
        f"original {found.n_bytes_before / mib:.1f} MiB"
    )
    say(
        f"blocks removed hold {100 * found.effective_ratio:.2f} % of the parameters; the file does "
        f"without {100 * found.stored_ratio:.2f} %"
    )
    say(
        f"perplexity {found.perplexities['original']:.4f} -> {found.perplexities['exported']:.4f} "
        f"({100 * (ratio - 1):+.2f} %) on {found.data}"
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
