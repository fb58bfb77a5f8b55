"""Scoring blocks by leaving them out: one sweep for every metric, fast or by the plain road."""

from blockviz.engine.costs import BlockCosts, block_costs
from blockviz.engine.gradients import weights_and_gradients, weights_of
from blockviz.engine.measure import SetMeter
from blockviz.engine.reference import ReferenceMeter
from blockviz.engine.sets import SetRunner
from blockviz.engine.sweep import SweepResult, sweep

__all__ = [
    "BlockCosts",
    "ReferenceMeter",
    "SetMeter",
    "SetRunner",
    "SweepResult",
    "block_costs",
    "sweep",
    "weights_and_gradients",
    "weights_of",
]
