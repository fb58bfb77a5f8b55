"""Every option of every command: one name each, the same on screen and in JSON."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from blockviz import __version__
from blockviz.cli.option_groups import (
    add_contest,
    add_correction,
    add_export,
    add_fit,
    add_memory,
    add_model,
    add_out,
    add_plan,
    add_recipe,
    add_resume,
    add_score,
    add_speed,
    add_tasks,
    add_text,
    add_verify,
    percent,
    port,
    share,
)
from blockviz.errors import BadInput

EPILOG = """examples:
  blockviz info --model demo
  blockviz score --metrics bi,rm,ppl,lds --out scores.json
  blockviz score --recipe blockviz_recipe.json
  blockviz score --metrics all --tasks arc_easy --limit 100 --out scores.json
  blockviz search --blocks 6 --out plan.json
  blockviz search --preset sleb --ratio 0.2 --out plan.json
  blockviz evaluate --plan plan.json
  blockviz evaluate --remove 18.attn,7.mlp --data demo --seq-len 512 --n-samples 8
  blockviz evaluate --remove 18.attn --tasks piqa,arc_easy --limit 100
  blockviz correct --plan plan.json --auto --state repair
  blockviz evaluate --plan plan.json --correction none,writer_refit
  blockviz sparsify --plan plan.json --score cvr,wanda --pattern 2:4 --energy row,column
  blockviz generate --remove 18.attn --prompt "The capital of France is"
  blockviz export --plan plan.json --state repair --out smaller && blockviz verify smaller
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
    add_model(info)
    what = info.add_mutually_exclusive_group()
    what.add_argument("--metrics", action="store_true", help="list the importance metrics")
    what.add_argument("--strategies", action="store_true", help="list the search strategies")
    what.add_argument("--corrections", action="store_true", help="list the repairs of a plan")
    what.add_argument("--presets", action="store_true", help="list the papers' recipes")
    what.add_argument("--families", action="store_true", help="list the proven model families")
    add_out(info)

    add_score(commands.add_parser("score", help="score every block under importance metrics"))
    _search(commands.add_parser("search", help="choose the blocks to remove, and write a plan"))
    _pairs(commands.add_parser("pairs", help="what two blocks cost together beyond each alone"))

    _correct(commands.add_parser("correct", help="repair what a plan cut, and show what it buys"))

    _sparsify(commands.add_parser("sparsify", help="make weights of what is left of a model zero"))

    evaluate = commands.add_parser("evaluate", help="perplexity of the original and of a plan")
    add_model(evaluate)
    add_plan(evaluate)
    add_recipe(evaluate, "the plan, repair and texts of an earlier run")
    add_text(evaluate, "--data", "evaluation text")
    add_correction(evaluate, "NAME,...", "a row for each; all adds none and every one")
    add_fit(evaluate)
    add_memory(evaluate)
    add_tasks(evaluate, "T,...", "questions to answer")
    add_speed(evaluate)
    evaluate.add_argument(
        "--add-bos",
        choices=("auto", "yes", "no"),
        default="auto",
        help="a BOS token in front of every question: as the tokenizer does, or set [auto]",
    )
    add_out(evaluate)

    judge = commands.add_parser("judge", help="which metric foretold what cuts cost on other text")
    add_model(judge)
    judge.add_argument(
        "--scores", type=Path, required=True, metavar="FILE.json", help="written by score --out"
    )
    add_text(judge, "--data", "held-out text")
    judge.add_argument(
        "--blocks", type=int, default=8, metavar="K", help="removals in a row, by each metric [8]"
    )
    add_resume(judge)
    add_out(judge)

    stability = commands.add_parser(
        "stability", help="how far rankings move with the text: in one run, and between runs"
    )
    stability.add_argument(
        "scores", type=Path, nargs="+", metavar="FILE.json", help="written by score --out"
    )
    add_out(stability)

    generate = commands.add_parser("generate", help="what the original and a plan write")
    add_model(generate)
    add_plan(generate)
    add_correction(generate, "NAME", "a third text, of the plan with it")
    add_fit(generate)
    add_memory(generate)
    generate.add_argument("--prompt", required=True, help="the text to continue")
    generate.add_argument("--max-new-tokens", type=int, default=48, metavar="N", help="[48]")
    how = generate.add_mutually_exclusive_group()
    how.add_argument("--chat", action="store_true", help="through the model's chat template")
    how.add_argument("--raw", action="store_true", help="as it is (default)")
    add_out(generate)

    add_contest(commands.add_parser("contest", help="every recipe with its repair, at one size"))
    add_export(commands.add_parser("export", help="write the pruned model, checked, to a folder"))
    add_verify(commands.add_parser("verify", help="check the files of an export"))

    app = commands.add_parser("app", help="the interactive app in a browser")
    app.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
        help="0.0.0.0 = whoever can reach this machine [GRADIO_SERVER_NAME, or %(default)s]",
    )
    app.add_argument(
        "--port",
        type=port,
        default=os.environ.get("GRADIO_SERVER_PORT", "7860"),
        help="[GRADIO_SERVER_PORT, or %(default)s]",
    )

    bench = commands.add_parser("bench", help="time and memory, each beside its reference")
    bench.add_argument("--quick", action="store_true", help="fewer windows and repeats")
    bench.add_argument("--calibration", default="demo", metavar="TEXT", help="to run on [demo]")
    bench.add_argument("--only", default="", help="of scoring,search,exports,memory,visitors [all]")
    add_out(bench)
    return parser


def _search(parser: argparse.ArgumentParser) -> None:
    """None stands for what was not given: a preset, or the default named here, fills it in."""
    add_model(parser)
    add = parser.add_argument
    add("--preset", metavar="P", help="a paper's recipe, see info --presets; options change it")
    add("--objective", metavar="M", help="what to keep low: ppl, lds, kl, js, norm, ang, acc [ppl]")
    add("--strategy", metavar="S", help="see info --strategies; beam:width=5 sets a value [greedy]")
    add("--unit", metavar="UNIT", help="removed at once: block, layer, attn or mlp [block]")
    target = parser.add_argument_group("target (at least one; all that are given hold)")
    target.add_argument("--blocks", type=int, metavar="K", help="so many units")
    target.add_argument("--ratio", type=share, metavar="R", help="at most this share: 0.2 or 20%%")
    target.add_argument(
        "--max-ppl-rise", type=percent, metavar="PERCENT", help="as many as perplexity bears"
    )
    target.add_argument("--speedup", type=float, metavar="X", help="until X times as fast")
    add("--protect-first", type=int, metavar="N", help="keep the first N layers [0]")
    add("--protect-last", type=int, metavar="N", help="keep the last N layers [0]")
    add("--pool", metavar="M:SHARE", help="bi:0.5 = only the half with the lowest bi [all]")
    add("--scores", metavar="M", help="metric of strategies that go by scores [bi, or cos_win]")
    add("--with-repair", metavar="NAME", help="repair what is cut as it goes, by this correction")
    add("--repair-samples", type=int, metavar="N", help="windows behind those to fit it on [64]")
    doubt = parser.add_mutually_exclusive_group()
    doubt.add_argument(
        "--level", type=share, metavar="P", help="doubt that a decision may leave [0.05]"
    )
    doubt.add_argument(
        "--exhaustive",
        dest="is_exhaustive",
        action="store_true",
        default=None,
        help="every candidate on every window",
    )
    add(
        "--engine", metavar="NAME", help="fast, or reference (the whole model, as published) [fast]"
    )
    add_memory(parser)
    add_text(parser, "--calibration", "text to search on")
    add_tasks(parser, "T", "for the objective acc")
    add_resume(parser)
    add_out(parser)
    unset = ("calibration", "n_samples", "seq_len", "seed", "text_column", "tasks")
    parser.set_defaults(**dict.fromkeys((*unset, "calibration_mode", "shuffle")))


def _pairs(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--unit", default="block", metavar="UNIT", help="block, layer, attn or mlp [%(default)s]"
    )
    parser.add_argument(
        "--positions",
        default="32",
        metavar="N",
        help="predictions read of each window, a seeded sample; or all [%(default)s]",
    )
    parser.add_argument("--pool", default="", metavar="M:SHARE", help="among bi:0.5 only [all]")
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="strongest pairs to show [%(default)s]"
    )
    add_memory(parser)
    add_text(parser, "--calibration", "text to measure on", n_samples=8)
    add_resume(parser)
    add_out(parser)


def _correct(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_plan(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--correction",
        metavar="NAME,...",
        help="see info --corrections, or all; ridge:ridge=0.01 sets a value",
    )
    which.add_argument(
        "--auto",
        action="store_true",
        help="try what an export can carry without storing more, with a grid of settings",
    )
    add_fit(parser, can_choose=True)
    add_text(parser, "--data", "text to measure on, by which nothing is chosen", n_samples=16,
             seq_len=512)  # fmt: skip
    add_memory(parser)
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="save the fitted one, or the best of several"
    )
    add_out(parser)


def _sparsify(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_plan(parser)
    add = parser.add_argument
    add("--score", default="cvr", metavar="NAME,...", help="what a weight is worth: cvr, wanda or "
        "magnitude; cvr:alpha=0.3:group=matrix sets values [%(default)s]")  # fmt: skip
    add("--pattern", default="0.5", metavar="P", help="0.5 = this share becomes zero; 2:4, 4:8 = "
        "N of every M inputs in a row are kept [%(default)s]")  # fmt: skip
    add("--energy", default="none", metavar="AXIS,...", help="column, row or both: the rest gets "
        "their energy back; every score with and without it [%(default)s]")  # fmt: skip
    add("--energy-clip", default="0.5,2", metavar="LO,HI", help="of its factor [%(default)s]")
    add_correction(parser, "NAME", "fitted before any weight is made zero")
    add_fit(parser)
    add_text(parser, "--data", "text to measure on", n_samples=16, seq_len=512)
    add_memory(parser)
    add("--state", type=Path, metavar="DIR", help="save the weights by a single score, with "
        "energy if asked")  # fmt: skip
    add_out(parser)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
