"""Commands that measure a plan and its corrections, or let them write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from blockviz.cli.console import Stopped, complain, drain, say, table
from blockviz.cli.out_file import check_out, write_json
from blockviz.cli.recipes import cut_as_before, read_recipe
from blockviz.cli.requests import names_of, read_plan, repair_request_of, request_of
from blockviz.errors import BadInput
from blockviz.session.evaluation import evaluate_request, open_tasks
from blockviz.session.opening import open_model, provenance_of
from blockviz.session.repair_space import NO_CORRECTION, check_repair
from blockviz.session.repair_views import RepairRequest
from blockviz.session.repairing import repaired_by
from blockviz.session.speeding import SpeedRequest
from blockviz.session.writing import write_pair, write_text
from blockviz.types import PruningPlan
from blockviz.types.numbers import plain, rise


def evaluate(args: argparse.Namespace) -> int:
    check_out(args.out)
    if args.recipe is not None:
        args = cut_as_before(args, read_recipe(args))
    plan, request = read_plan(args), request_of(args, args.data)
    repair, speed = _asked_repair(args, plan), _asked_speed(args)
    names = [name.strip() for name in args.tasks.split(",") if name.strip()]
    tasks = drain(open_tasks(names, limit=args.limit))
    add_bos = {"auto": None, "yes": True, "no": False}[args.add_bos]
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    try:
        how = {"add_bos": add_bos, "repair": repair, "speed": speed}
        events = evaluate_request(model, request, plan, tasks, **how)
        report = drain(events)
    except Stopped as stop:
        if stop.partial is not None:
            complain("blockviz: stopped; the rows done so far are kept.")
            write_json(args.out, stop.partial)
        raise
    show_report(report)
    write_json(args.out, report)
    return 0


def _asked_repair(args: argparse.Namespace, plan: PruningPlan | None) -> RepairRequest | None:
    """The request of --correction; None where it asks for none."""
    names = names_of(args.correction)
    if set(names) <= {NO_CORRECTION}:
        return None
    request = repair_request_of(args, plan or PruningPlan(), names)
    check_repair(request)
    return request


def _asked_speed(args: argparse.Namespace) -> SpeedRequest | None:
    """The request of --speed or --exported; None where neither is given."""
    folders = tuple(Path(name) for name in names_of(args.exported))
    if not args.speed and not folders:
        return None
    asked = SpeedRequest(repeats=args.speed_repeats, exported=folders)
    asked.check()
    return asked


def show_report(report: dict[str, Any]) -> None:
    """A line a variant; the pruned one with its rise and the rise's error."""
    rows = []
    for row in report["rows"]:
        found, change = row["perplexity"], "-"
        if "log_rise" in found:
            change = plain(rise(found["log_rise"], found["log_rise_stderr"]))
        value = f"{found['value']:.4f} ± {found['stderr']:.4f}"
        cut = _share(row["params"]["removed_ratio"])
        stored = row["params"]["stored_ratio"]
        rows.append([_variant(row), value, change, cut, "-" if stored is None else _share(stored)])
    table(["variant", "perplexity", "rise", "parameters cut", "stock file saves"], rows)
    for label, reason in report.get("refused", {}).items():
        say(f"{label}: {reason}")
    found = report["rows"][0]["perplexity"]
    say(f"{found['n_tokens']} tokens predicted; {found['data']}; {report['provenance']['dtype']}")
    if "warning" in report:
        say(report["warning"])
    show_tasks(report)
    show_speed(report)


def show_speed(report: dict[str, Any]) -> None:
    """A line for everything that was timed; nothing where nothing was."""
    if "speed" not in report:
        return
    rows = []
    for name, found in report["speed"].items():
        decode = found["decode_speedup"]
        rows.append([
            name,
            f"{found['prefill_tokens_per_second']:.0f}",
            f"{found['decode_tokens_per_second']:.1f}",
            f"{decode['median']:.2f} ({decode['low']:.2f} to {decode['high']:.2f})",
            f"{found['kv_bytes_per_token_held']:,.0f}",
        ])  # fmt: skip
    first = next(iter(report["speed"].values()))
    say()
    table(["variant", "prompt tokens/s", "new tokens/s", "speed-up", "cache bytes/token"], rows)
    say(f"{first['n_prompt']} tokens read, {first['n_new']} written, {first['repeats']} turns; "
        "speed-up of writing: median of paired turns, 95 % interval; pruned: blocks skipped, "
        "exported: as loaded from its files")  # fmt: skip


def _share(ratio: float) -> str:
    return f"{100 * ratio:.2f} %"


def _variant(row: dict[str, Any]) -> str:
    """`original`, `pruned`, or `pruned + asc`."""
    is_bare = row["correction"] == NO_CORRECTION
    return row["variant"] if is_bare else f"{row['variant']} + {row['correction']}"


def show_tasks(report: dict[str, Any]) -> None:
    """A line for each task and variant, in percent; nothing where no task was asked for."""
    rows = []
    for name in report["rows"][0]["tasks"]:
        for row in report["rows"]:
            found, change = row["tasks"][name], "-"
            if "change" in found:
                change = f"{100 * found['change']:+.1f} ± {100 * found['change_stderr']:.1f}"
            acc = _percent(found["acc"], found["stderr"])
            norm = _percent(found["acc_norm"], found["acc_norm_stderr"])
            if found["perplexity"] is not None:
                norm = f"perplexity {found['perplexity']:.4g}"
            of = f"{found['n']} of {found['n_available']}"
            rows.append([name, _variant(row), acc, norm, change, of])
    if rows:
        say()
        table(["task", "variant", "acc %", "acc_norm %", "acc change", "rows"], rows)


def _percent(share: float | None, stderr: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} ± {100 * stderr:.1f}"


def generate(args: argparse.Namespace) -> int:
    check_out(args.out)
    plan = read_plan(args) or PruningPlan()
    if args.max_new_tokens < 1:
        raise BadInput(
            f"{args.max_new_tokens} new tokens were asked for.", "That is none.", "Ask for some."
        )
    repair = _asked_repair(args, plan)
    if repair is not None and len(check_repair(repair)) > 1:
        raise BadInput(
            f"The corrections {args.correction} were asked for.",
            "One of them can write at a time.",
            "Name one, such as writer_refit.",
        )
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    pair = drain(
        write_pair(
            model,
            args.prompt,
            plan,
            max_new_tokens=args.max_new_tokens,
            is_chat=args.chat,
        )
    )
    say(f"original: {pair.original}")
    if plan.removed:
        say(f"pruned:   {pair.pruned}")
    repaired = None
    if repair is not None:
        texts = {"max_new_tokens": args.max_new_tokens, "is_chat": args.chat}
        fixed = drain(repaired_by(model, repair))
        repaired = drain(write_text(fixed, args.prompt, **texts))
        say(f"repaired: {repaired}")
    data = {
        "schema": "blockviz/generation/1",
        "provenance": provenance_of(model, None).to_json(),
        "removed": [str(b) for b in plan.removed],
        "prompt": pair.prompt,
        "mode": "chat" if args.chat else "raw",
        "original": pair.original,
        "pruned": pair.pruned,
        "first_difference": pair.first_difference,
    }
    if repaired is not None:
        data |= {"correction": args.correction, "repaired": repaired}
    write_json(args.out, data)
    return 0
