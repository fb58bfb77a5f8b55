"""Commands on scores that are there already: who is right, and how steady the ranking is."""

from __future__ import annotations

import argparse
from pathlib import Path

from blockviz.cli.console import Stopped, complain, drain, say, table
from blockviz.cli.out_file import check_out, shown, write_json
from blockviz.cli.requests import request_of
from blockviz.errors import BadInput, BlockvizError
from blockviz.json_files import NotJson, read_json
from blockviz.session.findings import compare, findings_of
from blockviz.session.judging import judge_request
from blockviz.session.kept import kept_on_disk
from blockviz.session.opening import open_model
from blockviz.types import Judgement, Provenance, ScoreTable

NONE = "-"
# Scores hold a number for every window of every block and metric.
MOST_SCORES = 256 * 2**20


def judge(args: argparse.Namespace) -> int:
    """Measures what cuts cost on held-out text and says which metric foretold it."""
    check_out(args.out)
    scores, request = read_table(args.scores), request_of(args, args.data)
    if args.blocks < 1:
        raise BadInput(
            f"The cost of {args.blocks} removals in a row was asked for.",
            "That is none.",
            "Set --blocks to 1 or more.",
        )
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    kept = None if args.no_resume else kept_on_disk(model, engine="fast")
    try:
        found = drain(judge_request(model, scores, request, n_removals=args.blocks, kept=kept))
    except Stopped as stop:
        if stop.partial is not None:
            complain("blockviz: stopped; the sets done so far are kept.")
            write_json(args.out, judgement_json(scores, stop.partial))
        raise
    data = judgement_json(scores, found)
    show_verdicts(data)
    write_json(args.out, data)
    return 0


def judgement_json(scores: ScoreTable, judgement: Judgement) -> dict[str, object]:
    """The measured losses with what follows from them for every metric."""
    verdicts = findings_of(scores, judgement).verdicts
    return {**judgement.to_json(), "verdicts": [v.to_json() for v in verdicts]}


def show_verdicts(data: dict[str, object]) -> None:
    """A line a metric, best first."""
    rows = [
        [
            v["title"],
            _number(v["tau"]),
            f"{_number(v['low'])} to {_number(v['high'])}" if v["low"] is not None else NONE,
            _number(v["rise"]),
            str(v["n_blocks"]),
        ]
        for v in data["verdicts"]
    ]
    table(["metric", "tau-b", "90 % interval", "mean rise, nats", "blocks"], rows)
    facts = Provenance.from_json(data["provenance"])
    text = f"{facts.data.describe()}, " if facts.data else ""
    say(
        f"tau-b: order of single cuts foretold; rise: along the first cuts by the metric; "
        f"{text}{facts.dtype}"
    )


def stability(args: argparse.Namespace) -> int:
    """How far rankings move with the windows of one run, and between several runs."""
    check_out(args.out)
    tables = [read_table(path) for path in args.scores]
    data = compare(tables, [path.name for path in args.scores])
    rows = [
        [row["title"], str(row["n_windows"]), _number(row["mean"][-1]), _number(row["low"][-1])]
        for row in data["windows"]
    ]
    if rows:
        table(["metric", "windows", "tau-b of two halves", "5 % of draws below"], rows)
    runs = data["runs"]
    if runs is not None:
        say()
        found = runs["metrics"].values()
        rows = [[m["title"], _number(m["mean"])] for m in found]
        table(["metric", "mean tau-b between the runs"], rows)
    write_json(args.out, data)
    return 0


def read_table(path: Path) -> ScoreTable:
    """The scores that blockviz has written to a file; BadInput where they are none."""
    try:
        data = read_json(path, most_bytes=MOST_SCORES)
        if data["schema"] != "blockviz/scores/1":
            raise ValueError(data["schema"])
        return ScoreTable.from_json(data)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, BlockvizError) as error:
        is_json = not isinstance(error, NotJson)
        raise BadInput(
            f"The scores {shown(path)} were to be read.",
            "The file does not hold what blockviz score writes." if is_json else error.found,
            "Give a file written by blockviz score --out FILE.json.",
        ) from error


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
