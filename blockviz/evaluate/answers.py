"""What the log-likelihoods of a task's options say: accuracies, their errors, paired changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockviz.types import BlockId, TaskRow, TaskSet


@dataclass(frozen=True)
class ChoiceResult:
    """The rows of a task as a model answers them.

    loglikelihoods: nats of every option of every row, the sum over its tokens. is_greedy: of each
    row, whether greedy decoding writes the right text. n_cut: texts that lost their beginning
    because the model's context is shorter. NaN raises ValueError.
    """

    tasks: TaskSet
    loglikelihoods: tuple[tuple[float, ...], ...]
    is_greedy: tuple[bool, ...]
    add_bos: bool
    n_cut: int = 0

    def __post_init__(self) -> None:
        if any(math.isnan(x) for row in self.loglikelihoods for x in row):
            raise ValueError(f"a log-likelihood on {self.tasks.name} is not a number")

    @property
    def n(self) -> int:
        return len(self.loglikelihoods)

    @property
    def correct(self) -> tuple[bool, ...]:
        """Of each row: the right option is the likeliest, the first one of equals.

        Mode `target` has one option, so there it is whether greedy decoding writes it.
        """
        if self.tasks.mode == "target":
            return self.is_greedy
        answered = zip(self.loglikelihoods, self.tasks.rows, strict=True)
        return tuple(_first_largest(row) == asked.answer for row, asked in answered)

    @property
    def correct_norm(self) -> tuple[bool, ...] | None:
        """The same by log-likelihood per character; None where that is not reported.

        The characters are those of the option as a person reads it, without the space in front.
        """
        if not self.tasks.has_acc_norm:
            return None
        rows = zip(self.taken, self.tasks.rows, strict=True)
        return tuple(taken == asked.answer for taken, asked in rows)

    @property
    def taken(self) -> tuple[int, ...]:
        """Of each row the option that is taken: the likeliest per character where that is reported,
        else the likeliest; in mode `target` 0 if greedy decoding writes it, else -1."""
        if self.tasks.mode == "target":
            return tuple(0 if is_written else -1 for is_written in self.is_greedy)
        if not self.tasks.has_acc_norm:
            return tuple(map(_first_largest, self.loglikelihoods))
        rows = zip(self.loglikelihoods, self.tasks.rows, strict=True)
        return tuple(_first_largest(_per_character(row, asked)) for row, asked in rows)

    @property
    def acc(self) -> float:
        return sum(self.correct) / self.n

    @property
    def stderr(self) -> float:
        return _share_stderr(self.acc, self.n)

    @property
    def acc_norm(self) -> float | None:
        return None if self.correct_norm is None else sum(self.correct_norm) / self.n

    @property
    def acc_norm_stderr(self) -> float | None:
        return None if self.acc_norm is None else _share_stderr(self.acc_norm, self.n)

    @property
    def perplexity(self) -> float | None:
        """exp of the mean over rows of minus the log-likelihood, for mode `target` only."""
        if self.tasks.mode != "target":
            return None
        mean = -math.fsum(row[0] for row in self.loglikelihoods) / self.n
        return math.exp(min(mean, 700.0))

    def change_from(self, baseline: ChoiceResult) -> tuple[float, float]:
        """(change of acc, its standard error) over the same rows, paired: most answers stay."""
        pairs = zip(self.correct, baseline.correct, strict=True)
        gaps = [int(now) - int(before) for now, before in pairs]
        mean = sum(gaps) / self.n
        spread = math.fsum((gap - mean) ** 2 for gap in gaps) / self.n
        return mean, math.sqrt(spread / self.n)

    def to_json(self) -> dict[str, Any]:
        """What a report holds about it. `n_available`: rows of the whole split."""
        return {
            "acc": self.acc,
            "acc_norm": self.acc_norm,
            "stderr": self.stderr,
            "acc_norm_stderr": self.acc_norm_stderr,
            "perplexity": self.perplexity,
            "n": self.n,
            "n_available": self.tasks.n_available,
            "split": self.tasks.split,
            "mode": self.tasks.mode,
            "add_bos": self.add_bos,
            "n_cut": self.n_cut,
            "hash": self.tasks.hash,
            "source": self.tasks.source,
        }


@dataclass(frozen=True)
class RemovalResults:
    """A task as a plan answers it, and with one more block gone at a time."""

    plan: ChoiceResult
    without: Mapping[BlockId, ChoiceResult]


def accuracy(result: ChoiceResult) -> float:
    """The share of rows answered right: what TALE (arXiv 2510.22767) measures a removal by."""
    return result.acc


def _per_character(row: Sequence[float], asked: TaskRow) -> list[float]:
    return [x / len(c) for x, c in zip(row, asked.choices, strict=True)]


def _first_largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _share_stderr(share: float, n: int) -> float:
    return math.sqrt(share * (1 - share) / n)
