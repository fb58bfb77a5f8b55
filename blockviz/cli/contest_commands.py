"""The command that lets every recipe meet at one size."""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import replace
from pathlib import Path

from blockviz.cli.console import Stopped, complain, drain, is_first_process, say, table
from blockviz.cli.out_file import as_json, check_out, shown, write_json
from blockviz.cli.requests import names_of
from blockviz.errors import BadInput, BlockvizError
from blockviz.json_files import read_json
from blockviz.session.contest import contest_request
from blockviz.session.contest_space import check_contest
from blockviz.session.contest_views import ContestRequest
from blockviz.session.opening import open_model
from blockviz.session.views import ScoreRequest
from blockviz.types import Contest, Entry
from blockviz.whole_files import is_stream, write_whole

NONE = "-"
MOST_CONTEST = 256 * 2**20


def contest(args: argparse.Namespace) -> int:
    """Runs every entrant on every draw; what --out holds of an earlier run is not run again."""
    check_out(args.out)
    request = _request(args)
    check_contest(request)
    known = None if args.no_resume else _known(args.out)
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    seen = _Written(args.out, known)
    try:
        found: Contest = drain(contest_request(model, request, known), seen=seen)
    except Stopped as stop:
        if stop.partial is not None:
            complain("blockviz: stopped; the same command goes on from here.")
            write_json(args.out, replace(stop.partial, is_partial=True).to_json())
        raise
    show_contest(found)
    write_json(args.out, found.to_json())
    return 0


class _Written:
    """Writes what there is after every entry, so that a killed contest loses one at most."""

    def __init__(self, out: Path | None, known: Contest | None) -> None:
        self._out, self._told = out, known.entries if known else ()

    def __call__(self, found: Contest) -> None:
        new = [entry for entry in found.entries if entry not in self._told]
        self._told = found.entries
        for entry in new:
            said = entry.refused or f"perplexity {entry.perplexity:.4f}"
            complain(f"{entry.name}, draw {entry.draw}: {said}")
        if new and self._out is not None and not is_stream(self._out) and is_first_process():
            self._write(self._out, found)

    def _write(self, out: Path, found: Contest) -> None:
        """A disk that is full now may not be at the end."""
        try:
            write_whole(out, as_json(found.to_json()).encode())
        except OSError as error:
            complain(f"blockviz: {shown(out)} is not written so far ({error.strerror}).")


def _request(args: argparse.Namespace) -> ContestRequest:
    text = ScoreRequest(
        calibration=args.calibration, n_samples=args.n_samples, seq_len=args.seq_len
    )
    evaluation = ScoreRequest(
        calibration=args.data, n_samples=args.data_samples, seq_len=args.data_seq_len
    )
    try:
        draws = tuple(int(seed) for seed in names_of(args.draws))
    except ValueError as error:
        raise BadInput(
            f"The draws {args.draws!r} were asked for.",
            "A draw goes by a whole number.",
            "Write --draws 1,2,3, for one.",
        ) from error
    return ContestRequest(
        layers=args.layers,
        names=names_of(args.entrants),
        draws=draws,
        text=text,
        n_fit=args.fit_samples,
        n_held=args.fit_held,
        fit_seq_len=args.fit_seq_len,
        evaluation=evaluation,
        tasks=names_of(args.tasks),
        limit=args.limit,
        memory_bytes=args.memory_bytes,
    )


def _known(out: Path | None) -> Contest | None:
    """What an earlier run wrote there; None of another file."""
    if out is None or not out.is_file():
        return None
    try:
        return Contest.from_json(read_json(out, most_bytes=MOST_CONTEST))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, BlockvizError):
        return None


def show_contest(found: Contest) -> None:
    """A line a recipe, the best first: means over the draws with their spread."""
    tasks = list(found.entries[0].tasks)
    head = ["recipe", "repair", "perplexity", "unrepaired", "draws won", "parameters"]
    head += ["stock file", *tasks]
    rows = [_row(found, name, tasks) for name in found.names]
    original = found.entries[0]
    first = ["original", NONE, f"{original.perplexity:.2f}", NONE, NONE]
    first += [f"{original.n_parameters:,}", NONE, *(_share([original], task) for task in tasks)]
    table(head, [first, *rows])
    say()
    for entry in found.entries:
        if entry.refused:
            say(f"{entry.name}, draw {entry.draw}: {entry.refused}")
    data = found.evaluation.data
    where = f" of {data.describe()}" if data else ""
    say(f"Perplexity{where}, {found.n_predicted} predicted; {found.evaluation.dtype}. Each plan "
        f"leaves {found.n_parameters:,} parameters at most, with its repair less than a block "
        "more. ± is the standard deviation over the draws.")  # fmt: skip


def _row(found: Contest, name: str, tasks: list[str]) -> list[str]:
    entries = found.of(name)
    title = next(e.title for e in found.entries if e.name == name)
    if not entries:
        return [title, NONE, "refused", *[NONE] * (4 + len(tasks))]
    won = sum(winner == name for winner in found.winners().values())
    repairs = " or ".join(dict.fromkeys(e.repair or "none" for e in entries))
    return [
        title,
        repairs if len(repairs) < 40 else f"{repairs[:37]}...",
        _spread([e.perplexity for e in entries]),
        _spread([math.exp(min(e.bare, 700.0)) for e in entries]),
        f"{won} of {len(entries)}",
        _count([e.n_parameters for e in entries]),
        _count([e.n_stock for e in entries if e.n_stock is not None]),
        *(_share(entries, task) for task in tasks),
    ]


def _count(values: list[int]) -> str:
    return f"{round(statistics.fmean(values)):,}" if values else NONE


def _spread(values: list[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.2f}"
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}"


def _share(entries: list[Entry] | tuple[Entry, ...], task: str) -> str:
    found = [e.tasks[task].accuracy for e in entries if task in e.tasks]
    return f"{100 * statistics.fmean(found):.1f} %" if found else NONE
