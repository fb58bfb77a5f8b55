"""From parsed options to a request of the session."""

from __future__ import annotations

import argparse

from blockviz.session.views import ScoreRequest


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
