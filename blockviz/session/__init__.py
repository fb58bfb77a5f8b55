"""The engine behind every front end: one shared model, jobs, and each visitor's plan."""

from blockviz.job_view import JobView
from blockviz.session.engine import Engine
from blockviz.session.search_views import (
    Estimate,
    PairsRequest,
    PresetCard,
    SearchRequest,
    StrategyCard,
)
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
    "Estimate",
    "JobView",
    "Limits",
    "LiveResult",
    "MetricCard",
    "PairsRequest",
    "PresetCard",
    "ScoreRequest",
    "SearchRequest",
    "Sizes",
    "StrategyCard",
    "Verdict",
    "Visitor",
]
