"""One function a command: read the options, run the session's task, show and write the result."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Any

from blockviz.cli.console import Stopped, complain, drain, say, table, write_json
from blockviz.cli.insight_commands import judge, stability
from blockviz.cli.options import check_out
from blockviz.cli.requests import read_plan, request_of
from blockviz.cli.search_commands import pairs, search
from blockviz.errors import BadInput
from blockviz.session import Engine
from blockviz.session.catalogue import (
    families_json,
    info_json,
    metrics_json,
    presets_json,
    settings_of,
    source_of,
    strategies_json,
)
from blockviz.session.evaluation import evaluate_request, open_tasks
from blockviz.session.kept import kept_on_disk
from blockviz.session.opening import open_model, provenance_of
from blockviz.session.scoring import check_request, score_request
from blockviz.session.writing import write_pair
from blockviz.types import BlockId, PruningPlan, Scores, ScoreTable


def info(args: argparse.Namespace) -> int:
    check_out(args.out)
    if args.metrics:
        data = metrics_json()
        for metric in data["metrics"]:
            show_metric(metric)
    elif args.strategies:
        data = strategies_json()
        for strategy in data["strategies"]:
            show_strategy(strategy)
    elif args.presets:
        data = presets_json()
        for preset in data["presets"]:
            show_preset(preset)
    elif args.families:
        data = families_json()
        table(["family", "model types"], [[f["name"], f["types"]] for f in data["families"]])
    else:
        model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
        data = info_json(model.info)
        for name, value in data["summary"].items():
            say(f"{name:<14}{value}")
    write_json(args.out, data)
    return 0


def show_metric(metric: dict[str, Any]) -> None:
    """A few lines: what a metric measures, of what, at what cost, its settings, its source."""
    what = f"{', '.join(metric['units'])}; {metric['cost']}"
    if metric["needs_tasks"]:
        what += "; needs --tasks"
    say(f"{metric['name']:<16}{metric['title']} ({what})")
    for line in (metric["meaning"], *settings_of(metric), source_of(metric)):
        say(f"{'':<16}{line}")
    say()


def show_strategy(strategy: dict[str, Any]) -> None:
    """A few lines: how a strategy searches, what it wants, its settings, its source."""
    what = ", ".join(strategy["units"])
    if strategy["wants"]:
        what += f"; goes by {strategy['wants']} of a metric"
    if strategy["is_experimental"]:
        what += "; experimental"
    say(f"{strategy['name']:<16}{strategy['title']} ({what})")
    for line in (strategy["meaning"], *settings_of(strategy), source_of(strategy)):
        if line:
            say(f"{'':<16}{line}")
    say()


def show_preset(preset: dict[str, Any]) -> None:
    """A few lines: what a recipe does and sets, what of it is different here, its source."""
    text = preset["settings"].get("text", {})
    own = {k: v for k, v in preset["settings"].items() if k != "text"}
    sets = ", ".join(f"{name}={value}" for name, value in {**own, **text}.items())
    say(f"{preset['name']}: {preset['title']}")
    for line in (preset["meaning"], sets, preset["note"], source_of(preset)):
        if line:
            say(f"{'':<16}{line}")
    say()


def score(args: argparse.Namespace) -> int:
    check_out(args.out)
    request = request_of(args, args.calibration)
    check_request(request)
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    kept = None if args.no_resume else kept_on_disk(model, engine=request.engine)
    try:
        result: ScoreTable = drain(score_request(model, request, kept))
    except Stopped as stop:
        if kept is not None:
            complain("blockviz: the same command goes on from here.")
        if stop.partial is not None:
            complain("blockviz: stopped; the windows done so far are kept.")
            write_json(args.out, stop.partial.to_json())
        raise
    show_scores(result)
    if kept is not None and kept.n_reused:
        of = kept.n_reused + kept.n_evaluated
        say(f"{kept.n_reused} of {of} evaluations known from other runs; --no-resume redoes them")
    write_json(args.out, result.to_json())
    return 0


def show_scores(result: ScoreTable) -> None:
    """A table for each unit that was scored: every block with its raw scores.

    Lowest (first to remove) by the first metric on top.
    """
    groups: dict[frozenset[BlockId], dict[str, Scores]] = {}
    for name, scores in result.metrics.items():
        groups.setdefault(frozenset(scores.values), {})[name] = scores
    for group in groups.values():
        first = next(iter(group.values()))
        order = sorted(first.values, key=first.ranks().__getitem__)
        rows = [[str(b), *(_number(m.raw[b]) for m in group.values())] for b in order]
        table(["block", *group], rows)
        say()
    counts = [f"{len(g)} {'layers' if _is_layers(g) else 'blocks'}" for g in groups]
    high = [name for name, m in result.metrics.items() if m.values != m.raw]
    way = "low = removable" + (f" (high, under {', '.join(high)})" if high else "")
    data = result.provenance.data
    where = [data.describe()] if data else []
    asked = (m.parameters for m in result.metrics.values() if "task" in m.parameters)
    where += dict.fromkeys(f"{p['rows']} rows of {p['task']}" for p in asked)
    say(f"{' and '.join(counts)}, {way}; {'; '.join(where)}; {result.provenance.dtype}")


def _is_layers(blocks: Iterable[BlockId]) -> bool:
    return all(b.part == "layer" for b in blocks)


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3e}"


def evaluate(args: argparse.Namespace) -> int:
    check_out(args.out)
    if args.correction != "none":
        raise BadInput(
            f"The correction {args.correction!r} was asked for.",
            "There is no such correction in this version.",
            "Use none.",
        )
    plan, request = read_plan(args), request_of(args, args.data)
    names = [name.strip() for name in args.tasks.split(",") if name.strip()]
    tasks = drain(open_tasks(names, limit=args.limit))
    add_bos = {"auto": None, "yes": True, "no": False}[args.add_bos]
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    try:
        report = drain(evaluate_request(model, request, plan, tasks, add_bos=add_bos))
    except Stopped as stop:
        if stop.partial is not None:
            complain("blockviz: stopped; the rows done so far are kept.")
            write_json(args.out, stop.partial)
        raise
    show_report(report)
    write_json(args.out, report)
    return 0


def show_report(report: dict[str, Any]) -> None:
    """A line a variant; the pruned one with its rise and the rise's error."""
    rows = []
    for row in report["rows"]:
        found = row["perplexity"]
        rise = "-"
        if "log_rise" in found:
            ratio = math.exp(found["log_rise"])
            rise = f"{100 * (ratio - 1):+.2f} ± {100 * ratio * found['log_rise_stderr']:.2f} %"
        value = f"{found['value']:.4f} ± {found['stderr']:.4f}"
        cut = f"{100 * row['params']['removed_ratio']:.2f} %"
        rows.append([row["variant"], value, rise, cut])
    table(["variant", "perplexity", "rise", "parameters cut"], rows)
    found = report["rows"][0]["perplexity"]
    say(f"{found['n_tokens']} tokens predicted; {found['data']}; {report['provenance']['dtype']}")
    show_tasks(report)


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
            rows.append([name, row["variant"], acc, norm, change, of])
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
    write_json(args.out, data)
    return 0


def app(args: argparse.Namespace) -> int:
    from blockviz.ui.launch import mode_for, serve

    serve(Engine(mode_for(args.host)), args.host, args.port)
    return 0


def bench(args: argparse.Namespace) -> int:
    from blockviz.bench import run_bench

    check_out(args.out)
    write_json(args.out, run_bench(is_quick=args.quick, say=say))
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "info": info,
    "score": score,
    "search": search,
    "pairs": pairs,
    "evaluate": evaluate,
    "judge": judge,
    "stability": stability,
    "generate": generate,
    "app": app,
    "bench": bench,
}
