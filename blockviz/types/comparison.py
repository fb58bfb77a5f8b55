"""A plan beside the original and its repairs: one column each, on one text and one prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockviz.types.answers import Question, TaskAnswers, Timing
from blockviz.types.blocks import BlockId
from blockviz.types.data import Provenance
from blockviz.types.judgement import Measured


@dataclass(frozen=True)
class ComparisonColumn:
    """One variant. label: "original", "none" for the bare plan, or a correction's label.

    window_nll: mean nats of each evaluation window; token_nll: nats of each predicted token of the
    windows that the comparison holds in pieces; text: what it wrote after the prompt; answers: to
    each task; timing: how fast it is, None where that was not asked.
    n_parameters: what is left, n_added included: parameters that a stock model has no place for;
    folds: how an export takes it into a stock checkpoint, empty where it cannot. multiply_adds: of
    one token, one for each weight of a linear map; per_position: what attention adds for every
    position that the token looks at; None where the modules do not tell. refused: why there is no
    such variant, all numbers are empty then.
    """

    label: str
    title: str
    window_nll: tuple[float, ...] = ()
    text: str = ""
    n_parameters: int = 0
    n_added: int = 0
    multiply_adds: int | None = None
    per_position: int | None = None
    kv_bytes: int = 0
    folds: str = ""
    notes: tuple[str, ...] = ()
    refused: str = ""
    token_nll: tuple[tuple[float, ...], ...] = ()
    answers: Mapping[str, TaskAnswers] = field(default_factory=dict)
    timing: Timing | None = None

    @property
    def measured(self) -> Measured:
        """Its losses, for means and paired differences; a refused column has none."""
        return Measured((), self.window_nll)

    @property
    def perplexity(self) -> float:
        return self.measured.perplexity if self.window_nll else math.nan

    @property
    def stderr(self) -> float:
        """Standard error of the mean loss over windows, in nats."""
        zero = Measured((), (0.0,) * len(self.window_nll))
        return self.measured.rise_over(zero)[1]

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "window_nll": list(self.window_nll),
            "notes": list(self.notes),
            "token_nll": [list(row) for row in self.token_nll],
            "answers": {name: found.to_json() for name, found in self.answers.items()},
            "timing": self.timing.to_json() if self.timing else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ComparisonColumn:
        tuples = {name: tuple(data[name]) for name in ("window_nll", "notes")}
        answers, timing = data.get("answers") or {}, data.get("timing")
        return cls(
            **{
                **data,
                **tuples,
                "token_nll": tuple(map(tuple, data.get("token_nll") or ())),
                "answers": {name: TaskAnswers.from_json(found) for name, found in answers.items()},
                "timing": Timing.from_json(timing) if timing else None,
            }
        )


@dataclass(frozen=True)
class Comparison:
    """columns: those that are finished, in the order of `asked`, the labels of all.

    provenance: of the text that corrections are fitted on, without data where none was; evaluation:
    of the text that the perplexities are of. n_tokens: positions fitted on; n_predicted: tokens
    predicted. Texts are greedy, at most max_new_tokens after `prompt`. pieces: the first evaluation
    windows, the text of each token; the first of a window is read and not predicted. questions: of
    each task. settings: a key of all that was asked but the plan. timed: how speed was taken.
    warning: what to know before the numbers are believed.
    """

    provenance: Provenance
    evaluation: Provenance
    removed: tuple[BlockId, ...]
    asked: tuple[str, ...]
    columns: tuple[ComparisonColumn, ...]
    prompt: str
    max_new_tokens: int
    is_chat: bool = False
    n_tokens: int = 0
    n_predicted: int = 0
    settings: str = ""
    warning: str = ""
    is_partial: bool = False
    pieces: tuple[tuple[str, ...], ...] = ()
    questions: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)
    timed: str = ""

    def __post_init__(self) -> None:
        labels = tuple(column.label for column in self.columns)
        if labels != self.asked[: len(labels)]:
            raise ValueError(f"columns {labels} do not follow {self.asked}")

    def column(self, label: str) -> ComparisonColumn | None:
        """The finished column of a label that has numbers."""
        found = (c for c in self.columns if c.label == label and c.window_nll)
        return next(found, None)

    def rise(self, column: ComparisonColumn) -> tuple[float, float] | None:
        """(nats, standard error) of the paired difference to the original; None without either."""
        whole = self.column("original")
        if whole is None or not column.window_nll:
            return None
        return column.measured.rise_over(whole.measured)

    def closed(self, column: ComparisonColumn) -> float | None:
        """The share of the log-perplexity gap between the bare plan and the original it closes."""
        bare = self.column("none")
        rises = [self.rise(c) for c in (bare, column) if c is not None]
        if len(rises) < 2 or None in rises or rises[0][0] <= 0:
            return None
        return (rises[0][0] - rises[1][0]) / rises[0][0]

    def token_rises(self, column: ComparisonColumn) -> tuple[tuple[float, ...], ...]:
        """Of each token of `pieces` but the first of a window: nats above the original's."""
        whole = self.column("original")
        if whole is None or len(whole.token_nll) != len(column.token_nll):
            return ()
        rows = zip(column.token_nll, whole.token_nll, strict=True)
        return tuple(tuple(a - b for a, b in zip(*row, strict=True)) for row in rows)

    def flips(self, column: ComparisonColumn, task: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(questions that the original answers right and this does not, the other way round)."""
        whole, rows = self.column("original"), self.questions.get(task, ())
        if whole is None or task not in whole.answers or task not in column.answers:
            return (), ()
        before, after = whole.answers[task].taken, column.answers[task].taken
        right = [
            (b == q.answer, a == q.answer) for q, b, a in zip(rows, before, after, strict=True)
        ]
        lost = tuple(i for i, pair in enumerate(right) if pair == (True, False))
        return lost, tuple(i for i, pair in enumerate(right) if pair == (False, True))

    def retention(self, column: ComparisonColumn) -> tuple[float, float] | None:
        """What is left of the original's accuracy over all tasks: (the mean of the tasks' shares,
        the share of the means). None where a task has no answers or the original none right."""
        whole = self.column("original")
        tasks = tuple(self.questions)
        if whole is None or not tasks:
            return None
        if not all(task in found.answers for task in tasks for found in (whole, column)):
            return None
        before = [whole.answers[task].accuracy for task in tasks]
        after = [column.answers[task].accuracy for task in tasks]
        if not all(before):
            return None
        shares = math.fsum(a / b for a, b in zip(after, before, strict=True)) / len(tasks)
        return shares, math.fsum(after) / math.fsum(before)

    def to_json(self) -> dict[str, Any]:
        head = {"partial": True} if self.is_partial else {}
        return {
            "schema": "blockviz/comparison/1",
            **head,
            "provenance": self.provenance.to_json(),
            "evaluation": self.evaluation.to_json(),
            "removed": [str(b) for b in self.removed],
            "asked": list(self.asked),
            "prompt": self.prompt,
            "max_new_tokens": self.max_new_tokens,
            "mode": "chat" if self.is_chat else "raw",
            "n_tokens": self.n_tokens,
            "n_predicted": self.n_predicted,
            "settings": self.settings,
            "warning": self.warning,
            "timed": self.timed,
            "pieces": [list(row) for row in self.pieces],
            "questions": {n: [q.to_json() for q in rows] for n, rows in self.questions.items()},
            "columns": [column.to_json() for column in self.columns],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Comparison:
        plain = ("prompt", "max_new_tokens", "n_tokens", "n_predicted", "settings", "warning")
        return cls(
            provenance=Provenance.from_json(data["provenance"]),
            evaluation=Provenance.from_json(data["evaluation"]),
            removed=tuple(BlockId.parse(b) for b in data["removed"]),
            asked=tuple(data["asked"]),
            columns=tuple(ComparisonColumn.from_json(c) for c in data["columns"]),
            is_chat=data["mode"] == "chat",
            is_partial=bool(data.get("partial", False)),
            pieces=tuple(map(tuple, data.get("pieces") or ())),
            questions={
                name: tuple(map(Question.from_json, rows))
                for name, rows in (data.get("questions") or {}).items()
            },
            timed=data.get("timed", ""),
            **{name: data[name] for name in plain},
        )
