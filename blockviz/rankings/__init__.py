"""What several rankings say together: plain numbers in, plain numbers out."""

from blockviz.rankings.agreement import Agreement, agreement, disagreement
from blockviz.rankings.imported import read_scores
from blockviz.rankings.intervals import rank_intervals, tied_with
from blockviz.rankings.kendall import tau_b
from blockviz.rankings.stability import Between, Stability, between, window_stability
from blockviz.rankings.surrogate import (
    Prediction,
    RankAgreement,
    StandIn,
    Surrogate,
    clustered,
    is_clear,
    stand_ins,
)
from blockviz.rankings.verdict import MetricVerdict, unit_of, verdicts

__all__ = [
    "Agreement",
    "Between",
    "MetricVerdict",
    "Prediction",
    "RankAgreement",
    "Stability",
    "StandIn",
    "Surrogate",
    "agreement",
    "between",
    "clustered",
    "disagreement",
    "is_clear",
    "rank_intervals",
    "read_scores",
    "stand_ins",
    "tau_b",
    "tied_with",
    "unit_of",
    "verdicts",
    "window_stability",
]
