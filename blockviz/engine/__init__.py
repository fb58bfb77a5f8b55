"""Scoring blocks by leaving them out: one sweep for every metric, fast or by the plain road."""

from blockviz.engine.sweep import SweepResult, sweep

__all__ = ["SweepResult", "sweep"]
