"""Every option of every command: one name each, the same on screen and in JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from blockviz import __version__
from blockviz.errors import BadInput, BadPlan
from blockviz.types import BlockId, PruningPlan

EPILOG = """examples:
  blockviz info --model demo
  blockviz score --metrics bi,rm,ppl,lds --out scores.json
  blockviz score --metrics all --tasks arc_easy --limit 100 --out scores.json
  blockviz evaluate --remove 18.attn,7.mlp --data demo --seq-len 512 --n-samples 8
  blockviz evaluate --remove 18.attn --tasks piqa,arc_easy --limit 100
  blockviz generate --remove 18.attn --prompt "The capital of France is"
  blockviz app
"""


class Parser(argparse.ArgumentParser):
    """Refuses with our three sentences and exit status 2, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(
            f"The command line was: {self.prog} ...",
            f"{message[:1].upper()}{message[1:]}.",
            f"See {self.prog} --help.",
        )


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` names the one that was given."""
    parser = Parser(
        prog="blockviz",
        description="See which blocks of a language model can go, and what happens when they do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"blockviz {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser("info", help="what a model is made of, and the registries")
    _model(info)
    what = info.add_mutually_exclusive_group()
    what.add_argument("--metrics", action="store_true", help="list the importance metrics")
    what.add_argument("--families", action="store_true", help="list the proven model families")
    _out(info)

    score = commands.add_parser("score", help="score every block under importance metrics")
    _model(score)
    _text(score, "--calibration", "calibration text")
    score.add_argument(
        "--metrics",
        default="bi,rm,ppl,lds",
        metavar="M,...",
        help="names, or all; METRIC:parameter=value sets a parameter, e.g. lds:k=50 [%(default)s]",
    )
    score.add_argument(
        "--unit",
        default="block",
        metavar="UNIT",
        help="what is removed at once: block, layer, attn or mlp [%(default)s]",
    )
    score.add_argument(
        "--engine",
        default="fast",
        metavar="NAME",
        help="fast, or reference (the whole model for every block, as published) [%(default)s]",
    )
    _tasks(score, "T", "for metrics of answers to a task (acc, tabp)")
    _resume(score)
    _out(score)

    evaluate = commands.add_parser("evaluate", help="perplexity of the original and of a plan")
    _model(evaluate)
    _plan(evaluate)
    _text(evaluate, "--data", "evaluation text")
    evaluate.add_argument(
        "--correction", default="none", metavar="NAME", help="repair to apply; only none so far"
    )
    _tasks(evaluate, "T,...", "questions to answer")
    evaluate.add_argument(
        "--add-bos",
        choices=("auto", "yes", "no"),
        default="auto",
        help="a BOS token in front of every question: as the tokenizer does, or set [auto]",
    )
    _out(evaluate)

    judge = commands.add_parser("judge", help="which metric foretold what cuts cost on other text")
    _model(judge)
    judge.add_argument(
        "--scores", type=Path, required=True, metavar="FILE.json", help="written by score --out"
    )
    _text(judge, "--data", "held-out text")
    judge.add_argument(
        "--blocks", type=int, default=8, metavar="K", help="removals in a row, by each metric [8]"
    )
    _resume(judge)
    _out(judge)

    stability = commands.add_parser(
        "stability", help="how far rankings move with the text: in one run, and between runs"
    )
    stability.add_argument(
        "scores", type=Path, nargs="+", metavar="FILE.json", help="written by score --out"
    )
    _out(stability)

    generate = commands.add_parser("generate", help="what the original and a plan write")
    _model(generate)
    _plan(generate)
    generate.add_argument("--prompt", required=True, help="the text to continue")
    generate.add_argument("--max-new-tokens", type=int, default=48, metavar="N", help="[48]")
    how = generate.add_mutually_exclusive_group()
    how.add_argument("--chat", action="store_true", help="through the model's chat template")
    how.add_argument("--raw", action="store_true", help="as it is (default)")
    _out(generate)

    app = commands.add_parser("app", help="the interactive app in a browser")
    app.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    app.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))

    bench = commands.add_parser("bench", help="time and memory, each beside its reference")
    bench.add_argument("--quick", action="store_true", help="fewer windows and repeats")
    _out(bench)
    return parser


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="demo",
        metavar="MODEL",
        help="demo, OWNER/NAME[@REVISION] of the hub, a folder, or a FILE.gguf [demo]",
    )
    parser.add_argument(
        "--dtype", default="auto", metavar="T", help="auto, float32, bfloat16 or float16 [auto]"
    )
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps [auto]"
    )


def _text(parser: argparse.ArgumentParser, name: str, what: str) -> None:
    parser.add_argument(
        name,
        default="demo",
        metavar="TEXT",
        help=f"{what}: demo, own, alpaca, wikitext2, c4, OWNER/NAME of the hub, or a file "
        "(.txt, .raw, .jsonl, .parquet) [demo]",
    )
    parser.add_argument(
        "--text-column", default="text", metavar="C", help="of a .jsonl or .parquet file [text]"
    )
    parser.add_argument("--n-samples", type=int, default=32, metavar="N", help="windows [32]")
    parser.add_argument("--seq-len", type=int, default=128, metavar="T", help="tokens each [128]")
    parser.add_argument(
        "--calibration-mode",
        default="stream",
        metavar="MODE",
        help="stream (joined, cut into windows) or per_sample (one text a row) [stream]",
    )
    parser.add_argument("--seed", type=int, default=42, metavar="S", help="[42]")
    parser.add_argument("--shuffle", action="store_true", help="draw windows in seeded order")


def _tasks(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    parser.add_argument(
        "--tasks",
        default="",
        metavar=metavar,
        help=f"{what}: piqa, arc_easy, arc_challenge, hellaswag, winogrande, openbookqa, boolq, "
        "lambada_openai, or a .jsonl file",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="the first N rows of each task only [all]"
    )


def _resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-resume",
        action="store_true",
        help="neither use nor keep evaluations of other runs (in the cache folder)",
    )


def _plan(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plan", type=Path, metavar="FILE", help="a plan written by blockviz")
    which.add_argument("--remove", metavar="BLOCKS", help="such as 18.attn,7.mlp,3.layer")


def _out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the result as JSON")


def read_plan(args: argparse.Namespace) -> PruningPlan | None:
    """The plan of --plan or --remove; None if neither was given."""
    if args.remove is not None:
        names = [n for n in args.remove.split(",") if n.strip()]
        if not names:
            raise BadPlan("--remove was given.", "It names no block.", "Write --remove 18.attn.")
        return PruningPlan(removed=tuple(BlockId.parse(n) for n in names))
    if args.plan is None:
        return None
    try:
        data: Any = json.loads(args.plan.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadPlan(
            f"The plan {args.plan.name} was to be read.",
            "There is no such file, or it is not JSON.",
            "Give a plan file, or name the blocks with --remove 18.attn,7.mlp.",
        ) from error
    return PruningPlan.from_json(data)


def check_out(path: Path | None) -> None:
    """Returns if a result could be written there, before any long work; BadInput otherwise."""
    if path is None:
        return
    folder = path.parent
    if not folder.is_dir() or path.is_dir() or not os.access(folder, os.W_OK):
        raise BadInput(
            f"The result was to be written to {path}.",
            "Its folder is missing or cannot be written, or a folder has that name.",
            "Give --out a file name in a folder that exists.",
        )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
