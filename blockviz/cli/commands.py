"""One function a command: read the options, run the session's task, show and write the result."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from blockviz.cli.console import Stopped, complain, drain, say, table
from blockviz.cli.contest_commands import contest
from blockviz.cli.evaluate_commands import evaluate, generate
from blockviz.cli.export_commands import export, verify
from blockviz.cli.insight_commands import judge, stability
from blockviz.cli.out_file import check_out, write_json
from blockviz.cli.recipes import check_text, read_recipe, scored_as_before
from blockviz.cli.repair_commands import correct
from blockviz.cli.requests import names_of, request_of
from blockviz.cli.search_commands import pairs, search
from blockviz.cli.sparsify_commands import sparsify
from blockviz.memory import keep_little
from blockviz.session import Engine
from blockviz.session.catalogue import (
    corrections_json,
    families_json,
    info_json,
    metrics_json,
    presets_json,
    settings_of,
    source_of,
    strategies_json,
)
from blockviz.session.kept import kept_on_disk
from blockviz.session.opening import open_model
from blockviz.session.scoring import check_request, score_request
from blockviz.types import BlockId, Scores, ScoreTable


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
    elif args.corrections:
        data = corrections_json()
        for correction in data["corrections"]:
            show_correction(correction)
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


def show_correction(correction: dict[str, Any]) -> None:
    """A few lines: what a correction does, how it is exported, its settings, its source."""
    what = f"exports as {correction['folds'] or 'modules of its own'}"
    if correction["is_experimental"]:
        what += "; experimental"
    say(f"{correction['name']:<16}{correction['title']} ({what})")
    for line in (correction["meaning"], *settings_of(correction), source_of(correction)):
        if line:
            say(f"{'':<16}{line}")
    say()


def show_preset(preset: dict[str, Any]) -> None:
    """A few lines: what a recipe does and sets, what of it is different here, its source."""
    text = preset["settings"].get("text", {})
    own = {k: v for k, v in preset["settings"].items() if k != "text"}
    sets = ", ".join(f"{name}={value}" for name, value in {**own, **text}.items())
    say(f"{preset['name']}: {preset['title']}")
    repair = preset["repair"] and f"repaired by {preset['repair']}"
    for line in (preset["meaning"], sets, repair, preset["note"], source_of(preset)):
        if line:
            say(f"{'':<16}{line}")
    say()


def score(args: argparse.Namespace) -> int:
    check_out(args.out)
    recipe = read_recipe(args) if args.recipe is not None else None
    if recipe is not None:
        args = scored_as_before(args, recipe)
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
    if recipe is not None:
        check_text(result, recipe)
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


def app(args: argparse.Namespace) -> int:
    from blockviz.ui.launch import mode_for, serve

    keep_little()
    serve(Engine(mode_for(args.host)), args.host, args.port)
    return 0


def bench(args: argparse.Namespace) -> int:
    from blockviz.bench import SECTIONS, run_bench

    check_out(args.out)
    only = names_of(args.only) or SECTIONS
    report = run_bench(is_quick=args.quick, say=say, text=args.calibration, only=only)
    write_json(args.out, report)
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "info": info,
    "score": score,
    "search": search,
    "pairs": pairs,
    "correct": correct,
    "sparsify": sparsify,
    "evaluate": evaluate,
    "judge": judge,
    "stability": stability,
    "generate": generate,
    "contest": contest,
    "export": export,
    "verify": verify,
    "app": app,
    "bench": bench,
}
