"""Questions with a known answer: the rows of a task, the whole set, and its prompts by letter."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from blockviz.errors import BadInput
from blockviz.types.data import CalibrationSet

if TYPE_CHECKING:
    import torch

Mode = Literal["choices", "contexts", "target"]
TASK_MODES: tuple[Mode, ...] = ("choices", "contexts", "target")


@dataclass(frozen=True)
class TaskRow:
    """One question. `mode` says what is scored after what, a space between the two:

    `choices`: each of `choices` after `query`; `contexts`: `continuation` after each of `choices`;
    `target`: `continuation` after `query`, the one right text. `answer`: index of the right choice.
    `options`: what to show for each choice where the choice is a longer text.
    """

    id: str
    mode: Mode
    query: str
    choices: tuple[str, ...]
    answer: int
    continuation: str | None = None
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in TASK_MODES:
            raise ValueError(f"the mode is {self.mode!r}, and must be {', '.join(TASK_MODES)}")
        n, is_target = len(self.choices), self.mode == "target"
        if n != 1 if is_target else n < 2:
            wanted = "exactly 1" if is_target else "2 or more"
            raise ValueError(f"choices has {n} entries, and mode {self.mode} needs {wanted}")
        if not all(choice.strip() for choice in self.choices):
            raise ValueError("one of the choices is empty")
        if not 0 <= self.answer < len(self.choices):
            raise ValueError(
                f"answer is {self.answer}, and must be 0 to {len(self.choices) - 1}: the index of "
                "the right choice"
            )
        if self.mode != "choices" and not (self.continuation or "").strip():
            raise ValueError(f"the mode {self.mode} needs a continuation, and it is empty")
        if self.options and len(self.options) != len(self.choices):
            raise ValueError(f"{len(self.options)} options stand for {len(self.choices)} choices")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(context, continuation) of everything that is scored, the space in front included."""
        if self.mode == "choices":
            return tuple((self.query, f" {choice}") for choice in self.choices)
        contexts = self.choices if self.mode == "contexts" else (self.query,)
        return tuple((context, f" {self.continuation}") for context in contexts)


@dataclass(frozen=True)
class TaskSet:
    """The rows of one task, all of one mode, in the order of the set they come from.

    `n_available`: rows of the whole split, of which `head` may have left some. `has_acc_norm`:
    whether accuracy by log-likelihood per character is also reported for this task.
    """

    name: str
    split: str
    rows: tuple[TaskRow, ...]
    source: str = ""
    license: str = ""
    has_acc_norm: bool = True
    n_available: int = 0

    def __post_init__(self) -> None:
        modes = sorted({row.mode for row in self.rows})
        if len(modes) != 1:
            raise ValueError(f"a task has rows, all of one mode; {self.name} has modes {modes}")
        if len({row.id for row in self.rows}) < len(self.rows):
            raise ValueError(f"two rows of {self.name} have the same id")
        object.__setattr__(self, "n_available", max(self.n_available, len(self.rows)))
        object.__setattr__(self, "has_acc_norm", self.has_acc_norm and modes == ["choices"])

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mode(self) -> Mode:
        return self.rows[0].mode

    @property
    def hash(self) -> str:
        """sha256 over everything that is scored and the answers, in order; not over ids."""
        content = [(row.mode, row.pairs, row.answer) for row in self.rows]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def head(self, limit: int | None) -> TaskSet:
        """The first `limit` rows; all of them for None. BadInput below 1."""
        if limit is None:
            return self
        if limit < 1:
            raise BadInput(
                f"The first {limit} rows of {self.name} were asked for.",
                "That is none.",
                "Set --limit to 1 or more, or leave it out for all rows.",
            )
        return replace(self, rows=self.rows[:limit])


@dataclass(frozen=True)
class LetterPrompts:
    """Questions that are answered with one letter, read at the last token of each prompt.

    windows: one prompt a row, padded on the right. letters (row, option) int64: the id of each
    option's letter, -1 from n_options on, which no gather takes by mistake. n_options, answer
    (row,) int64.
    """

    windows: CalibrationSet
    letters: torch.Tensor
    n_options: torch.Tensor
    answer: torch.Tensor

    def __post_init__(self) -> None:
        n = len(self.windows)
        if self.letters.ndim != 2 or {len(self.letters), *self.n_options.shape} != {n}:
            raise ValueError(f"letters and n_options must have one row for each of {n} prompts")
        if self.answer.shape != (n,) or not bool((self.answer < self.n_options).all()):
            raise ValueError("answer must be (row,), each below n_options")

    @property
    def is_option(self) -> torch.Tensor:
        """(row, option) bool: where `letters` holds an id."""
        return self.letters >= 0
