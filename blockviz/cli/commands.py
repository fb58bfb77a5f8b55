"""One function a command: read the options, run the session's task, show and write the result."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from blockviz.cli.console import Stopped, complain, drain, say, table, write_json
from blockviz.cli.options import check_out, read_plan
from blockviz.errors import BadInput
from blockviz.session import Engine
from blockviz.session.catalogue import families_json, info_json, metrics_json
from blockviz.session.evaluation import evaluate_request
from blockviz.session.opening import open_model, provenance_of
from blockviz.session.scoring import check_request, score_request
from blockviz.session.views import ScoreRequest
from blockviz.session.writing import write_pair
from blockviz.types import PruningPlan, ScoreTable


def info(args: argparse.Namespace) -> int:
    check_out(args.out)
    if args.metrics:
        data = metrics_json()
        table(
            ["metric", "title", "parameters", "source"],
            [[m["name"], m["title"], _settings(m), m["reference"]] for m in data["metrics"]],
        )
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


def _settings(metric: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in metric["parameters"].items()) or "-"


def request_of(args: argparse.Namespace, text: str) -> ScoreRequest:
    """The request that the common options describe; `text` names the calibration or data."""
    return ScoreRequest(
        metrics=tuple(getattr(args, "metrics", "").split(",")),
        calibration=text,
        n_samples=args.n_samples,
        seq_len=args.seq_len,
        mode=args.calibration_mode,
        seed=args.seed,
        unit=getattr(args, "unit", "block"),
        text_column=args.text_column,
        is_shuffled=args.shuffle,
        engine=getattr(args, "engine", "fast"),
    )


def score(args: argparse.Namespace) -> int:
    check_out(args.out)
    request = request_of(args, args.calibration)
    check_request(request)
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    try:
        result: ScoreTable = drain(score_request(model, request))
    except Stopped as stop:
        if stop.partial is not None:
            complain("blockviz: stopped; the windows done so far are kept.")
            write_json(args.out, stop.partial.to_json())
        raise
    show_scores(result)
    write_json(args.out, result.to_json())
    return 0


def show_scores(result: ScoreTable) -> None:
    """Every block with its raw scores, lowest (first to remove) by the first metric on top."""
    metrics = list(result.metrics.values())
    order = sorted(metrics[0].values, key=metrics[0].ranks().__getitem__)
    rows = [[str(b), *(_number(m.raw[b]) for m in metrics)] for b in order]
    table(["block", *(m.metric for m in metrics)], rows)
    data = result.provenance.data
    where = data.describe() if data else ""
    say(f"{len(order)} blocks, low = removable; {where}, {result.provenance.dtype}")


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
    model = drain(open_model(args.model, dtype=args.dtype, device=args.device))
    try:
        report = drain(evaluate_request(model, request, plan))
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
    "evaluate": evaluate,
    "generate": generate,
    "app": app,
    "bench": bench,
}
