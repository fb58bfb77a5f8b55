"""Options that several commands share: the same name, default and meaning in each."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from blockviz.errors import BadInput
from blockviz.settings import parse_share
from blockviz.types import TEXT_ENDINGS

# What to write for a share.
SHARE = "Write 0.2 or 20% for a fifth."
MOST_PORT = 2**16 - 1
UNIT_BYTES = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def add_memory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        dest="memory_bytes",
        type=n_bytes,
        metavar="SIZE",
        help="to take beyond the model, such as 512MiB [60 %% of what is free]",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
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


def add_text(
    parser: argparse.ArgumentParser,
    name: str,
    what: str,
    *,
    n_samples: int = 32,
    seq_len: int = 128,
) -> None:
    parser.add_argument(
        name,
        default="demo",
        metavar="TEXT",
        help=f"{what}: demo, own, alpaca, wikitext2, c4, OWNER/NAME of the hub, or a file "
        f"({', '.join(TEXT_ENDINGS)}) [demo]",
    )
    parser.add_argument(
        "--text-column",
        default="text",
        metavar="C",
        help="of a table, such as .jsonl or .csv [text]",
    )
    parser.add_argument(
        "--n-samples", type=int, default=n_samples, metavar="N", help=f"windows [{n_samples}]"
    )
    parser.add_argument(
        "--seq-len", type=int, default=seq_len, metavar="T", help=f"tokens each [{seq_len}]"
    )
    parser.add_argument(
        "--calibration-mode",
        default="stream",
        metavar="MODE",
        help="stream (joined, cut into windows) or per_sample (one text a row) [stream]",
    )
    parser.add_argument("--seed", type=int, default=42, metavar="S", help="[42]")
    parser.add_argument("--shuffle", action="store_true", help="draw windows in seeded order")


def add_fit(parser: argparse.ArgumentParser, *, can_choose: bool = False) -> None:
    """What corrections are fitted on; can_choose: several are fitted and one is chosen."""
    group = parser.add_argument_group("what corrections are fitted on")
    group.add_argument(
        "--calibration",
        default="demo",
        metavar="TEXT",
        help="demo, own, a named set, a hub id or a file [demo]",
    )
    group.add_argument(
        "--fit-samples", type=int, default=48, metavar="N", help="windows to fit on [48]"
    )
    group.add_argument(
        "--fit-seq-len", type=int, default=512, metavar="T", help="tokens each [512]"
    )
    group.add_argument(
        "--fit-skip",
        type=int,
        default=0,
        metavar="N",
        help="leave out the first N windows, such as those a search has seen [0]",
    )
    group.add_argument(
        "--fit-held",
        type=int,
        default=8,
        metavar="N",
        help="windows behind them, never fitted on, by which a trained correction and the best of "
        "several are chosen [8]",
    )
    if can_choose:
        group.add_argument(
            "--export-mode",
            default="stock-compact",
            metavar="MODE",
            help="choose for stock-compact, stock-zeroed, or custom, which carries modules of its "
            "own [stock-compact]",
        )


def add_tasks(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
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


def add_resume(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-resume",
        action="store_true",
        help="neither use nor keep evaluations of other runs (in the cache folder)",
    )


def add_plan(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plan", type=Path, metavar="FILE", help="a plan written by blockviz")
    which.add_argument("--remove", metavar="BLOCKS", help="such as 18.attn,7.mlp,3.layer")


def add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the result as JSON")


def share(text: str) -> float:
    """0.2 of `0.2` or `20%`; BadInput where it is neither. The range is the session's to check."""
    try:
        return parse_share(text)
    except ValueError as error:
        raise BadInput(f"A share of {text!r} was given.", "That is no number.", SHARE) from error


def percent(text: str) -> float:
    """5 of `5` or `5%`; BadInput where it is neither."""
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError as error:
        raise BadInput(
            f"A rise of {text!r} was given.", "That is no number.", "Write 5 or 5%, for one."
        ) from error


def port(text: str) -> int:
    """The number of a port; BadInput where it is none. 0 stands for any that is free."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MOST_PORT:
        return int(text)
    raise BadInput(
        f"Port {text[:40]!r} was asked for.",
        f"A port is a whole number from 0 to {MOST_PORT}.",
        "Give another with --port, or by GRADIO_SERVER_PORT.",
    )


def n_bytes(text: str) -> int:
    """The bytes of `512MiB`, `1.5GiB`, `800KiB` or a plain number; BadInput otherwise."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?) ?([KMG]iB)?", text.strip(), re.IGNORECASE)
    size = int(float(found[1]) * UNIT_BYTES[(found[2] or "").lower()]) if found else 0
    if size < 1:
        raise BadInput(
            f"A size of {text!r} was given.",
            "It must be a number above 0, of bytes or with KiB, MiB or GiB behind it.",
            "Write --memory 512MiB, for one.",
        )
    return size


def add_correction(parser: argparse.ArgumentParser, metavar: str, what: str) -> None:
    parser.add_argument(
        "--correction",
        default="none",
        metavar=metavar,
        help=f"see info --corrections: {what}; ridge:ridge=0.01 sets a value [%(default)s]",
    )


def add_contest(parser: argparse.ArgumentParser) -> None:
    """Everything the contest asks."""
    add_model(parser)
    add = parser.add_argument
    add("--layers", type=int, default=7, metavar="N", help="remove as much as N layers hold [7]")
    add(
        "--entrants",
        default="",
        metavar="P,...",
        help="presets, blockviz, blockviz_repaired [all]",
    )
    add("--draws", default="1,2,3", metavar="SEED,...", help="seeds of the windows [1,2,3]")
    add("--calibration", default="demo", metavar="TEXT", help="to search and to fit on [demo]")
    add("--n-samples", type=int, default=32, metavar="N", help="windows to search on [32]")
    add("--seq-len", type=int, default=128, metavar="T", help="tokens each [128]")
    add("--fit-samples", type=int, default=96, metavar="N", help="windows to fit on [96]")
    add("--fit-held", type=int, default=8, metavar="N", help="windows to choose by [8]")
    add("--fit-seq-len", type=int, default=512, metavar="T", help="tokens of those each [512]")
    add("--data", default="demo", metavar="TEXT", help="for the perplexities [demo]")
    add("--data-samples", type=int, default=24, metavar="N", help="windows of it [24]")
    add("--data-seq-len", type=int, default=512, metavar="T", help="tokens each [512]")
    add_tasks(parser, "T,...", "questions to answer")
    add_memory(parser)
    add(
        "--no-resume",
        action="store_true",
        help="start anew, whatever --out holds of an earlier run with these settings",
    )
    add_out(parser)


def add_recipe(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--recipe", type=Path, metavar="FILE.json", help=what)


def add_score(parser: argparse.ArgumentParser) -> None:
    """Everything that scoring asks."""
    add_model(parser)
    add_text(parser, "--calibration", "calibration text")
    parser.add_argument(
        "--metrics",
        default="bi,rm,ppl,lds",
        metavar="M,...",
        help="names, or all; METRIC:parameter=value sets a parameter, e.g. lds:k=50 [%(default)s]",
    )
    parser.add_argument(
        "--unit",
        default="block",
        metavar="UNIT",
        help="what is removed at once: block, layer, attn or mlp [%(default)s]",
    )
    parser.add_argument(
        "--engine",
        default="fast",
        metavar="NAME",
        help="fast, or reference (the whole model for every block, as published) [%(default)s]",
    )
    add_tasks(parser, "T", "for metrics of answers to a task (acc, tabp)")
    add_recipe(parser, "the metrics and text of an earlier scoring, in place of those options")
    add_resume(parser)
    add_out(parser)


def add_speed(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--speed", action="store_true", help="time every row, in turns, with a cache")
    add("--speed-repeats", type=int, default=10, metavar="N", help="turns behind a warm-up [10]")
    add("--exported", default="", metavar="DIR,...", help="exports to time beside the rows")


def add_export(parser: argparse.ArgumentParser) -> None:
    """Everything that writing a model asks."""
    add_model(parser)
    add_plan(parser)
    add = parser.add_argument
    add(
        "--mode",
        default="stock-compact",
        metavar="MODE",
        help="stock-compact (surviving blocks in as few plain layers as hold them), stock-zeroed "
        "(every layer where it was), or custom (nothing wasted, a modelling file of its own) "
        "[%(default)s]",
    )
    add_recipe(parser, "of an earlier export: does the same")
    repair = parser.add_mutually_exclusive_group()
    repair.add_argument(
        "--correction",
        default="none",
        metavar="NAME",
        help="fit it first, see --calibration [none]",
    )
    repair.add_argument(
        "--state", type=Path, metavar="DIR", help="a correction that correct or sparsify has saved"
    )
    add(
        "--as-llama",
        action="store_true",
        help="write a Mistral or Qwen2 as a Llama, which has a place for every bias",
    )
    add_fit(parser)
    add_memory(parser)
    add_text(parser, "--data", "for the perplexities written down and checked", n_samples=16,
             seq_len=512)  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="a new folder")


def add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="that export has written")
    add_out(parser)
