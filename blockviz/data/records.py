"""The texts of a data set before a tokenizer has seen them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["calibration", "selection", "evaluation"]
ROLES: tuple[Role, ...] = ("calibration", "selection", "evaluation")


@dataclass(frozen=True)
class Texts:
    """Texts in order, and where they come from. Joined with a blank line they are the stream."""

    texts: tuple[str, ...]
    dataset: str
    split: str
