"""The errors whose text is meant for the person at the screen; any other exception is a bug."""

from __future__ import annotations

import logging
import re
import secrets
import traceback

logger = logging.getLogger(__name__)
# Of one line of the log: an exception may carry all that a visitor has sent.
LINE_CHARS = 500
# A terminal obeys them, or turns the direction of what follows: all but line ends and tabs.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with every character that a terminal would obey written as its escape, `\\x1b`."""
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


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


def report(error: BaseException, subject: str) -> str:
    """Logs a bug under a short id; the sentence about it for the person at the screen."""
    ref = secrets.token_hex(2)
    lines = "".join(traceback.format_exception(error)).splitlines()
    told = "\n".join(map(shortened, lines))
    logger.error("%s (ref %s)\n%s", subject, ref, told)
    return f"Something went wrong (ref {ref}). Nothing was lost."


def shortened(text: str, most: int = LINE_CHARS) -> str:
    """The text, or its beginning and its length if it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"
