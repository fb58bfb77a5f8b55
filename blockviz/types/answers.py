"""What variants of a model answer to the same questions, and how fast they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    """A row of a task as a person reads it. answer: the index of the right choice; where there is
    one choice only, it is what should be written."""

    text: str
    choices: tuple[str, ...]
    answer: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "choices": list(self.choices)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Question:
        return cls(**{**data, "choices": tuple(data["choices"])})


@dataclass(frozen=True)
class TaskAnswers:
    """taken: of each question the index of the choice that was taken, -1 where the right text was
    not written. accuracy, stderr: the share of right ones as papers report it, and its error."""

    taken: tuple[int, ...]
    accuracy: float
    stderr: float

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "taken": list(self.taken)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TaskAnswers:
        return cls(**{**data, "taken": tuple(data["taken"])})


@dataclass(frozen=True)
class Timing:
    """Tokens a second at the median of repeats, and (median, low, high) of how many times as fast
    as the original, paired by repeat, with its 95 % interval."""

    prefill: float
    decode: float
    prefill_speedup: tuple[float, float, float]
    decode_speedup: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        speedups = {n: list(getattr(self, n)) for n in ("prefill_speedup", "decode_speedup")}
        return {**asdict(self), **speedups}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Timing:
        speedups = {n: tuple(data[n]) for n in ("prefill_speedup", "decode_speedup")}
        return cls(**{**data, **speedups})
