"""The parts of a comparison's column: its sizes, its answers, and what both are read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from blockviz.data import pieces_of
from blockviz.engine.costs import multiply_adds
from blockviz.evaluate import ChoiceResult
from blockviz.models.model import BlockModel
from blockviz.types import (
    BlockId,
    CalibrationSet,
    ComparisonColumn,
    ModelInfo,
    Question,
    TaskAnswers,
    TaskRow,
    TaskSet,
    Timing,
)

# What a page can draw word by word; the windows behind these count in the perplexity only.
MOST_PIECES = 8192
MOST_CHARS = 600


def sized(
    column: ComparisonColumn,
    info: ModelInfo,
    model: BlockModel,
    plan: Sequence[BlockId],
    *,
    removed: tuple[BlockId, ...] = (),
    revived: frozenset[BlockId] = frozenset(),
) -> ComparisonColumn:
    """The column with what is counted rather than measured; `model` is run without `removed`.

    info: of the whole model; revived: blocks of the plan that stand after all.
    """
    cost = multiply_adds(model, removed)
    added = max(column.n_added, info.parameters_of(revived))
    return replace(
        column,
        n_parameters=info.n_parameters - info.parameters_of(plan) + added,
        multiply_adds=cost.weights if cost else None,
        per_position=cost.per_position if cost else None,
        kv_bytes=info.kv_bytes_per_token(b for b in plan if b not in revived),
    )


def kept_pieces(model: BlockModel, windows: CalibrationSet) -> tuple[tuple[str, ...], ...]:
    """The first windows, token by token."""
    n = max(1, MOST_PIECES // windows.input_ids.shape[1])
    rows = zip(windows.input_ids[:n], windows.attention_mask[:n], strict=True)
    return tuple(pieces_of(model.tokenizer, ids[is_there].tolist()) for ids, is_there in rows)


def answers_of(found: ChoiceResult) -> TaskAnswers:
    """By log-likelihood per character where the task has that, as its papers report it."""
    if found.acc_norm is None:
        return TaskAnswers(found.taken, found.acc, found.stderr)
    return TaskAnswers(found.taken, found.acc_norm, found.acc_norm_stderr)


def questions_of(tasks: Sequence[TaskSet]) -> dict[str, tuple[Question, ...]]:
    """The rows of each task as they are shown, long ones cut."""
    return {task.name: tuple(map(_question, task.rows)) for task in tasks}


def _question(row: TaskRow) -> Question:
    shown = row.options or row.choices
    if row.mode == "contexts":
        text = f"{row.query} … {row.continuation}" if row.query else f"… {row.continuation}"
    elif row.mode == "target":
        text, shown = row.query, (row.continuation or "",)
    else:
        text = row.query
    return Question(_cut(text), tuple(map(_cut, shown)), row.answer)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARS else f"… {text[-MOST_CHARS:]}"


def timing_of(speed: Mapping[str, Any]) -> Timing:
    """An entry of `time_rows`."""
    prefill, decode = (
        (found["median"], found["low"], found["high"])
        for found in (speed["prefill_speedup"], speed["decode_speedup"])
    )
    return Timing(
        speed["prefill_tokens_per_second"], speed["decode_tokens_per_second"], prefill, decode
    )
