"""Questions asked so that one letter answers them: what an early exit is read on (TaBP)."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

import torch

from blockviz.data.pairs import encode, special_prefix
from blockviz.data.windows import token_hash
from blockviz.errors import BadInput
from blockviz.types import CalibrationSet, DataOrigin, LetterPrompts, TaskRow, TaskSet, check_rows

INSTRUCTION = "Choose the right answer to the question and reply with its letter only."
_QUESTION, _ANSWER = "Question: ", "Answer:"


def letter_prompts(
    tasks: TaskSet, tokenizer: Any, *, max_seq_len: int, n_rows: int | None = None
) -> LetterPrompts:
    """The LetterPrompts of a task of mode `choices`; BadInput for other modes, and where a prompt
    holds a token that is not among the n_rows of the model's embedding.

    The prompt ends in "Answer:" and the letter's id is that of " A" where the tokenizer joins the
    space to the word, as most do: a space of its own at the end would be a token that no text of
    the training has there. Where a tokenizer writes the space as a token of its own, it ends the
    prompt, and the letter's id is that of "A": the prompt is what all encodings have in common.
    Prompts longer than `max_seq_len` lose their beginning. (The published prompt ends in a space.)
    """
    if tasks.mode != "choices":
        raise BadInput(
            f"The task {tasks.name} was to be asked with a letter for each choice.",
            f"Its rows are of mode {tasks.mode}, where one text is scored and none is chosen.",
            "Use a task with choices, such as arc_easy, piqa or openbookqa.",
        )
    prefix = special_prefix(tokenizer)
    asked = [_asked(row, tokenizer, prefix) for row in tasks.rows]
    if n_rows is not None:
        for row, (prompt, letters) in zip(tasks.rows, asked, strict=True):
            said = f"The row {row.id} of {tasks.name} was to be scored."
            check_rows([*prompt, *letters], n_rows, tokenizer, asked=said)
    prompts = [prompt[-max_seq_len:] for prompt, _ in asked]
    n_options = torch.tensor([len(letters) for _, letters in asked])
    return LetterPrompts(
        windows=_windows(tasks, prompts),
        letters=_padded([letters for _, letters in asked], -1),
        n_options=n_options,
        answer=torch.tensor([row.answer for row in tasks.rows]),
    )


def prompt_of(row: TaskRow) -> str:
    """The question as it is asked: an instruction, the question, a line a choice, "Answer:"."""
    question = row.query.rstrip().removesuffix(_ANSWER).rstrip()
    if _QUESTION not in question:  # some tasks have it, behind a passage or at the very start
        question = f"{_QUESTION}{question}"
    named = zip(ascii_uppercase, row.choices, strict=False)
    choices = [f"{letter}. {choice}" for letter, choice in named]
    return "\n".join([INSTRUCTION, question, *choices, _ANSWER])


def _asked(row: TaskRow, tokenizer: Any, prefix: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """(ids of the prompt, the id of each letter that may follow)."""
    n = len(row.choices)
    if n > len(ascii_uppercase):
        raise BadInput(
            f"The question {row.id} was to be asked with a letter for each choice.",
            f"It has {n} choices, and there are {len(ascii_uppercase)} letters.",
            "Leave that row out.",
        )
    text = prompt_of(row)
    answered = [encode(tokenizer, f"{text} {letter}") for letter in ascii_uppercase[:n]]
    shared = _n_shared(answered)
    letters = [ids[shared:] for ids in answered]
    if any(len(ids) != 1 for ids in letters):
        raise BadInput(
            f"The question {row.id} was to be asked with a letter for each choice.",
            "This model's tokenizer has no token of its own for every letter.",
            "Use another metric or the full vocabulary with this model.",
        )
    return [*prefix, *answered[0][:shared]], [ids[0] for ids in letters]


def _n_shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many ids all sequences begin with alike."""
    columns = zip(*sequences, strict=False)
    return next((i for i, ids in enumerate(columns) if len(set(ids)) > 1), len(sequences[0]))


def _padded(rows: Sequence[Sequence[int]], fill: int) -> torch.Tensor:
    """(row, longest) int64, padded on the right."""
    out = torch.full((len(rows), max(map(len, rows))), fill, dtype=torch.int64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return out


def _windows(tasks: TaskSet, prompts: Sequence[Sequence[int]]) -> CalibrationSet:
    ids = _padded(prompts, -1)
    mask = ids >= 0
    ids = ids.clamp_min(0)
    origin = DataOrigin(
        dataset=f"{tasks.name}, asked by letter",
        split=tasks.split,
        mode="per_sample",
        n_samples=len(prompts),
        seq_len=ids.shape[1],
        n_tokens=int(mask.sum()),
        seed=0,
        token_hash=token_hash(ids, mask),
    )
    return CalibrationSet(ids, mask, origin)
