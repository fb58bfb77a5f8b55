"""Scoring blocks by leaving them out: one sweep for every metric, fast or by the plain road."""

from blockviz.engine.gradients import weights_and_gradients, weights_of
from blockviz.engine.sets import SetRunner
from blockviz.engine.sweep import SweepResult, sweep

__all__ = ["SetRunner", "SweepResult", "sweep", "weights_and_gradients", "weights_of"]
