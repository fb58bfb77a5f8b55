"""Which blocks to remove: pure rules that ask for what they need and are sent its value."""

from blockviz.search.tale import AccuracyStep, TaleResult, tale

__all__ = ["AccuracyStep", "TaleResult", "tale"]
