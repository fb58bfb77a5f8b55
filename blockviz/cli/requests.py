"""From parsed options to a request of the session, and to a plan."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from blockviz.cli.out_file import shown
from blockviz.errors import BadPlan
from blockviz.json_files import NotJson, read_json
from blockviz.session.repair_views import RepairRequest
from blockviz.session.search_views import SearchRequest
from blockviz.session.views import ScoreRequest
from blockviz.types import BlockId, PruningPlan


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
        tasks=getattr(args, "tasks", ""),
        limit=getattr(args, "limit", None),
    )


def repair_request_of(
    args: argparse.Namespace,
    plan: PruningPlan,
    corrections: Sequence[str],
    evaluation: ScoreRequest | None = None,
) -> RepairRequest:
    """The request that the --fit-... options describe; those of a text hold for both texts."""
    text = ScoreRequest(
        calibration=args.calibration,
        n_samples=args.fit_samples,
        seq_len=args.fit_seq_len,
        mode=getattr(args, "calibration_mode", "stream"),
        seed=getattr(args, "seed", 42),
        text_column=getattr(args, "text_column", "text"),
        is_shuffled=getattr(args, "shuffle", False),
    )
    return RepairRequest(
        plan=plan,
        corrections=tuple(corrections),
        text=text,
        n_skip=args.fit_skip,
        n_held=args.fit_held,
        evaluation=evaluation or ScoreRequest(),
        memory_bytes=getattr(args, "memory_bytes", None),
        export_mode=getattr(args, "export_mode", "stock-compact"),
    )


def names_of(text: str) -> tuple[str, ...]:
    """The names in `asc, mean`."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


# Option -> field of the text's request.
TEXT_FIELDS = {
    "calibration": "calibration",
    "text_column": "text_column",
    "n_samples": "n_samples",
    "seq_len": "seq_len",
    "calibration_mode": "mode",
    "seed": "seed",
    "shuffle": "is_shuffled",
    "tasks": "tasks",
    "limit": "limit",
}


def search_fields(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of a search, by the fields of its request; those of its text under `text`."""
    names = {field.name for field in fields(SearchRequest)} - {"text", "preset"}
    own = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    text = {field: getattr(args, name) for name, field in TEXT_FIELDS.items()}
    return {**own, "text": {name: value for name, value in text.items() if value is not None}}


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
        return PruningPlan.from_json(read_json(args.plan))
    except NotJson as error:
        raise BadPlan(
            f"The plan {shown(args.plan)} was to be read.",
            error.found,
            "Give a plan file, or name the blocks with --remove 18.attn,7.mlp.",
        ) from error
