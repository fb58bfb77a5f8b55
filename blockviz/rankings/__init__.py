"""What several rankings say together: plain numbers in, plain numbers out."""

from blockviz.rankings.agreement import Agreement, agreement, disagreement
from blockviz.rankings.imported import read_scores
from blockviz.rankings.intervals import rank_intervals, tied_with
from blockviz.rankings.kendall import tau_b
from blockviz.rankings.stability import Between, Stability, between, window_stability
from blockviz.rankings.verdict import MetricVerdict, unit_of, verdicts

__all__ = [
    "Agreement",
    "Between",
    "MetricVerdict",
    "Stability",
    "agreement",
    "between",
    "disagreement",
    "rank_intervals",
    "read_scores",
    "tau_b",
    "tied_with",
    "unit_of",
    "verdicts",
    "window_stability",
]
