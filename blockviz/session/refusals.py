"""What one visitor may not ask for under the limits of this server."""

from __future__ import annotations

from dataclasses import replace

from blockviz.errors import OverLimit
from blockviz.session.estimating import n_evaluations
from blockviz.session.repair_views import RepairRequest
from blockviz.session.search_views import SearchRequest
from blockviz.session.views import Limits, ScoreRequest
from blockviz.types import ModelInfo

BUNDLED_TEXTS = ("demo", "own")


def check_model(limits: Limits, model: str) -> None:
    """OverLimit where only the demo model may be run and another is named."""
    if limits.bundled_only and model.strip().lower() != "demo":
        raise OverLimit(
            f"The model {model[:96]!r} was asked for.",
            "This server runs the demo model only.",
            "Run blockviz on your own machine to load any model.",
        )


def check_score(limits: Limits, request: ScoreRequest) -> None:
    """OverLimit where a request reads another text, or more of it, than this server allows."""
    if limits.bundled_only and request.calibration not in BUNDLED_TEXTS:
        raise OverLimit(
            f"The text {request.calibration[:96]!r} was asked for.",
            "This server scores on its bundled texts only.",
            f"Use {' or '.join(BUNDLED_TEXTS)}, or run blockviz on your own machine.",
        )
    if limits.bundled_only and request.tasks.endswith((".jsonl", ".json")):
        raise OverLimit(
            f"The task file {request.tasks[-96:]!r} was asked for.",
            "This server asks the named tasks only.",
            "Use a name such as arc_easy, or run blockviz on your own machine.",
        )
    for value, limit, what in (
        (request.n_samples, limits.n_samples, "windows"),
        (request.seq_len, limits.seq_len, "tokens a window"),
        (request.limit if request.tasks else 0, limits.task_rows, "questions"),
    ):
        if limit is not None and (value is None or value > limit):
            raise OverLimit(
                f"{'All' if value is None else value} {what} were asked for.",
                f"The limit here is {limit}.",
                "Lower it, or run blockviz on your own machine.",
            )


def check_fit(limits: Limits, request: RepairRequest) -> None:
    """OverLimit where a request of corrections reads more text than this server allows."""
    n = request.n_skip + request.text.n_samples + request.n_held
    check_score(limits, replace(request.text, n_samples=n))
    check_score(limits, request.evaluation)


def check_evaluations(limits: Limits, request: SearchRequest, info: ModelInfo) -> None:
    """OverLimit where a search would run more removed sets than this server allows.

    What counts is what is run (`n_evaluations`), not what is asked: a race that gives a set up
    early has not paid for it.
    """
    limit = limits.evaluations
    found = 0 if limit is None else n_evaluations(request, info, limit=limit)
    if limit is not None and found > limit:
        raise OverLimit(
            f"A search of about {found:,} evaluations was asked for.",
            f"The limit here is {limit:,}.",
            "Remove fewer, protect more layers, search whole layers, or run blockviz on your own "
            "machine.",
        )


def out_of_time(limits: Limits) -> OverLimit:
    """What to raise where the time of a job is over and nothing was found yet."""
    return OverLimit(
        "A long task was to be run.",
        f"Nothing was done in {(limits.job_seconds or 0) / 60:.0f} min, the limit here.",
        "Ask for less, or run blockviz on your own machine.",
    )
