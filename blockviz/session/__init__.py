"""The engine behind every front end: one shared model, jobs, and each visitor's plan."""

from blockviz.job_view import JobView
from blockviz.session.engine import Engine
from blockviz.session.views import (
    Continuation,
    Limits,
    LiveResult,
    MetricCard,
    ScoreRequest,
    Sizes,
    Verdict,
    Visitor,
)

__all__ = [
    "Continuation",
    "Engine",
    "JobView",
    "Limits",
    "LiveResult",
    "MetricCard",
    "ScoreRequest",
    "Sizes",
    "Verdict",
    "Visitor",
]
