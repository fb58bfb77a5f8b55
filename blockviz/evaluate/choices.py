"""Accuracy on tasks: which of several texts the model finds likeliest after a context.

The rules are those of the public evaluation harness (EleutherAI/lm-evaluation-harness, output type
multiple_choice), whose log-likelihoods these equal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from blockviz.data.pairs import encode_pair, special_prefix
from blockviz.errors import BadInput
from blockviz.evaluate.answers import ChoiceResult, RemovalResults
from blockviz.evaluate.loss import next_token_nll
from blockviz.models.model import BlockModel
from blockviz.models.overflow import is_finite, overflow
from blockviz.models.stage import Head, Stage
from blockviz.types import (
    BlockId,
    CalibrationBatch,
    Done,
    Events,
    Progress,
    TaskRow,
    TaskSet,
    check_rows,
)

_GROUP_BATCHES = 8


@dataclass(frozen=True)
class _Option:
    """An option as token ids: `inputs` are read, `targets` are what should follow at their end."""

    inputs: tuple[int, ...]
    targets: tuple[int, ...]
    is_cut: bool


_Answer = tuple[float, bool]  # log-likelihood, is greedy
_Group = Sequence[tuple[_Option, ...]]  # rows of options
_Answers = dict[BlockId | None, list[tuple[_Answer, ...]]]  # candidate, or None for the plan
_Batch = Mapping[tuple[int, ...], Sequence[_Option]]  # inputs -> what is read off them


def score_choices(
    model: BlockModel,
    tasks: TaskSet,
    *,
    removed: Iterable[BlockId] = (),
    batch_tokens: int = 2048,
    add_bos: bool | None = None,
) -> Events:
    """Done(ChoiceResult) of the model without `removed`; a Progress per batch.

    Rows are taken in groups, in order, so that each partial result is that of the first rows and
    not of the shortest. `add_bos`: None is the tokenizer's default. Texts longer than the model's
    context lose their beginning.
    """
    events = score_removals(
        model, tasks, (), removed=removed, batch_tokens=batch_tokens, add_bos=add_bos
    )
    with contextlib.closing(events):
        for event in events:
            if isinstance(event, Done):
                yield Done(event.result.plan)
            else:
                partial = event.partial.plan if event.partial else None
                yield Progress(event.stage, event.done, event.total, event.note, partial)


def score_removals(
    model: BlockModel,
    tasks: TaskSet,
    candidates: Iterable[BlockId],
    *,
    removed: Iterable[BlockId] = (),
    batch_tokens: int = 2048,
    add_bos: bool | None = None,
) -> Events:
    """Done(RemovalResults): without `removed`, and without each candidate as well.

    A Progress per suffix: a block changes nothing in front of it, so every candidate starts at its
    own layer from the stream of the plan.
    """
    removed, candidates = tuple(removed), tuple(candidates)
    stage, prefix = f"Asking {tasks.name}", special_prefix(model.tokenizer, add_bos=add_bos)
    asked: list[tuple[_Option, ...]] = []
    for row in tasks.rows:
        if len(asked) % 64 == 0:
            yield Progress(stage, 0, 0, "tokenising")
        asked.append(tuple(_options(model, tasks, row, prefix)))
    answers: _Answers = {candidate: [] for candidate in (*candidates, None)}
    n_done, n_all = 0, len(answers) * sum(len({o.inputs for o in options}) for options in asked)
    partial = None
    for group in _groups(asked, _GROUP_BATCHES * batch_tokens):
        found: dict[BlockId | None, dict[_Option, _Answer]] = {c: {} for c in answers}
        for batch in _batches(group, batch_tokens):
            yield Progress(stage, n_done, n_all, partial=partial)
            for candidate, read in _suffixes(model, batch, removed, candidates):
                found[candidate].update(read)
                n_done += len(batch)
                yield Progress(stage, n_done, n_all, partial=partial)
        for candidate, read in found.items():
            answers[candidate] += [tuple(read[option] for option in row) for row in group]
        partial = _results(tasks, asked, answers, is_bos=bool(prefix))
    yield Done(partial)


def check_questions(model: BlockModel, tasks: TaskSet, *, add_bos: bool | None = None) -> None:
    """Nothing, if the model can read every option of every row; else BadInput, before any forward.

    Only a tokenizer that knows tokens without a row in the embedding has all rows looked through.
    """
    known = model.tokenizer.get_vocab().values()
    if max(known, default=0) < model.info.vocab_size:
        return
    prefix = special_prefix(model.tokenizer, add_bos=add_bos)
    for row in tasks.rows:
        for _ in _options(model, tasks, row, prefix):
            pass


def _suffixes(
    model: BlockModel, batch: _Batch, removed: tuple[BlockId, ...], candidates: Sequence[BlockId]
) -> Iterator[tuple[BlockId | None, dict[_Option, _Answer]]]:
    """(candidate, what is answered without it and `removed`), by depth; None is the plan itself."""
    ids, mask = _padded(batch)
    stage, head = Stage(model, CalibrationBatch(ids, mask)), Head(model)
    stream, at = stage.stream, 0
    for candidate in sorted(candidates):
        stream, at = stage.run(stream, at, removed, stop=candidate.layer), candidate.layer
        without = stage.run(stream, at, (*removed, candidate))
        yield candidate, _read(model, head, without, batch)
    yield None, _read(model, head, stage.run(stream, at, removed), batch)


def _padded(batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (inputs, longest) int64 and mask (inputs, longest) bool, padded on the right."""
    ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.int64)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for i, inputs in enumerate(batch):
        ids[i, : len(inputs)] = torch.tensor(inputs)
        mask[i, : len(inputs)] = True
    return ids, mask


@torch.inference_mode()
def _read(
    model: BlockModel, head: Head, stream: torch.Tensor, batch: _Batch
) -> dict[_Option, _Answer]:
    """Option -> answer; the head runs only where a target is predicted.

    stream (inputs, longest, hidden): what lies behind the last layer.
    """
    positions: list[int] = []
    for i, (inputs, options) in enumerate(batch.items()):
        end = i * stream.shape[1] + len(inputs)
        positions += [p for o in options for p in range(end - len(o.targets), end)]
    hidden = head.hidden(stream)
    hidden = hidden[torch.tensor(positions, device=hidden.device)]  # (target, hidden)
    options = [option for several in batch.values() for option in several]
    targets = torch.tensor([t for o in options for t in o.targets], device=hidden.device)
    loss = torch.zeros(len(targets), dtype=torch.float64)
    is_top = torch.zeros(len(targets), dtype=torch.bool)
    for part, logits in head.chunks(hidden):
        if not is_finite(logits):
            raise overflow(model, "on the questions that it was asked")
        loss[part] = next_token_nll(logits, targets[part]).cpu().double()
        is_top[part] = (logits.argmax(dim=-1) == targets[part]).cpu()
    sizes = [len(option.targets) for option in options]
    split = zip(options, loss.split(sizes), is_top.split(sizes), strict=True)
    return {option: (-float(nll.sum()), bool(top.all())) for option, nll, top in split}


def _options(
    model: BlockModel, tasks: TaskSet, row: TaskRow, prefix: tuple[int, ...]
) -> Iterator[_Option]:
    longest = model.info.max_seq_len
    for context, continuation in row.pairs:
        before, after = encode_pair(model.tokenizer, context, continuation, prefix)
        if not 0 < len(after) <= longest:
            raise BadInput(
                f"The row {row.id} was to be scored.",
                f"One of its options is {len(after)} tokens long, and it must be 1 to {longest}, "
                f"the context of {model.info.name}.",
                "Leave that row out.",
            )
        said = f"The row {row.id} of {tasks.name} was to be scored."
        check_rows([*before, *after], model.info.vocab_size, model.tokenizer, asked=said)
        inputs = [*before, *after][:-1]
        yield _Option(tuple(inputs[-longest:]), tuple(after), len(inputs) > longest)


def _groups(asked: _Group, n_tokens: int) -> Iterator[_Group]:
    """The rows in order, in groups of at least so many tokens: enough to sort by length."""
    group, size = [], 0
    for options in asked:
        group.append(options)
        size += sum(len(option.inputs) for option in options)
        if size >= n_tokens:
            yield group
            group, size = [], 0
    if group:
        yield group


def _batches(group: _Group, batch_tokens: int) -> Iterator[_Batch]:
    """Inputs -> the options read off them, the longest first, in batches with little padding.

    Options of one token share their input, so a question with such options is one forward row;
    equal options are one option, so that their log-likelihoods are equal to the last bit.
    """
    by_inputs: dict[tuple[int, ...], dict[_Option, None]] = {}
    for options in group:
        for option in options:
            by_inputs.setdefault(option.inputs, {})[option] = None
    waiting = sorted(by_inputs, key=len, reverse=True)
    while waiting:
        size = max(1, batch_tokens // len(waiting[0]))
        yield {inputs: tuple(by_inputs[inputs]) for inputs in waiting[:size]}
        waiting = waiting[size:]


def _results(tasks: TaskSet, asked: _Group, answers: _Answers, *, is_bos: bool) -> RemovalResults:
    found = {c: _result(tasks, asked, rows, is_bos=is_bos) for c, rows in answers.items()}
    return RemovalResults(found.pop(None), found)


def _result(
    tasks: TaskSet,
    asked: _Group,
    answers: Sequence[tuple[_Answer, ...]],
    *,
    is_bos: bool,
) -> ChoiceResult:
    """The result of as many of the first rows as have been answered."""
    first = tasks.head(len(answers))
    return ChoiceResult(
        tasks=first,
        loglikelihoods=tuple(tuple(x for x, _ in row) for row in answers),
        is_greedy=tuple(
            row[question.answer][1] for row, question in zip(answers, first.rows, strict=True)
        ),
        add_bos=is_bos,
        n_cut=sum(option.is_cut for options in asked[: len(answers)] for option in options),
    )
