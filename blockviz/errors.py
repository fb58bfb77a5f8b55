"""The errors whose text is meant for the person at the screen; any other exception is a bug."""

from __future__ import annotations


class BlockvizError(Exception):
    """A refusal in three sentences: what was asked, what was found, what to do next."""

    def __init__(self, asked: str, found: str, todo: str) -> None:
        super().__init__(f"{asked} {found} {todo}")
        self.asked, self.found, self.todo = asked, found, todo


class UnknownName(BlockvizError):
    """A name that no registry holds; the message carries near matches and the full list."""


class BadInput(BlockvizError):
    """A setting that is out of range or cannot go together with another."""


class BadSource(BlockvizError):
    """A model or data source that cannot be found, reached, or trusted."""


class UnsupportedModel(BlockvizError):
    """A model whose structure, format or size blockviz does not take."""


class BadCalibration(BlockvizError):
    """A text source that does not give the windows that were asked for."""


class BadPlan(BlockvizError):
    """A set of removed blocks that does not fit the model."""


class OverLimit(BlockvizError):
    """A request beyond a limit of the machine or of hosted mode."""


class ExportMismatch(BlockvizError):
    """A written model that is not the one on the screen."""
