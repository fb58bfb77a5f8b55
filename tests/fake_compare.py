"""Comparisons without a model: believable numbers and texts for the fake engine."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace

from fake_repair import CLOSES, CORRECTIONS, NONE, ORIGINAL

from blockviz.session.compare_views import CompareRequest
from blockviz.session.repair_space import NO_CORRECTION
from blockviz.types import (
    Comparison,
    ComparisonColumn,
    Contest,
    DataOrigin,
    Entry,
    ModelInfo,
    Provenance,
    Question,
    TaskAnswers,
    Timing,
)

TEXTS = {
    "original": " Paris, the largest city in the country and its centre of art.",
    "none": " the city of the city of the city of the",
    "repaired": " Paris, a city of art and history on the Seine.",
}
# Two windows of the measured text, a space in front of every word but the first.
WINDOWS = tuple(
    tuple(re.findall(r" ?[\w']+|[^\w\s]|\n", text))
    for text in (
        "The Loire rises near Mont Gerbier in 1870 and runs 1012 kilometres. Its water is cold, "
        "and the people of the valley say that the river has a will of its own.",
        "In 1903 the Wright brothers flew near Kitty Hawk.\nThe wind was strong, and the machine "
        "was in the air for twelve seconds, which was the longest flight of the day.",
    )
)
# Multiply-adds of a block: its matrices without its norm of 576 channels.
NORM = 576


def make_comparison(
    info: ModelInfo,
    request: CompareRequest,
    *,
    n_columns: int | None = None,
    dataset: str = "Wikipedia passages",
    refused: str = "",
    texts: dict[str, str] | None = None,
    pieces: tuple[tuple[str, ...], ...] | None = None,
) -> Comparison:
    """The first `n_columns` columns, or all. `refused`: why no correction could be had."""
    repair, removed = request.repair, request.repair.plan.removed
    texts, titles = texts or TEXTS, {card.name: card for card in CORRECTIONS}
    labels = [n for n in dict.fromkeys(repair.corrections) if n != NO_CORRECTION]
    asked = ("original", "none", *labels)
    whole = [ORIGINAL + random.Random(i).gauss(0, 0.12) for i in range(repair.evaluation.n_samples)]
    columns, windows = [], WINDOWS if pieces is None else pieces
    questions = {task: make_questions(task, request.limit or 48) for task in request.tasks}
    for label in asked if n_columns is None else asked[:n_columns]:
        card = titles.get(label.partition(":")[0])
        if card and refused:
            columns.append(ComparisonColumn(label, card.title, folds=card.folds, refused=refused))
            continue
        gone = () if label == "original" else removed
        rise = (1 - CLOSES[card.name] if card else bool(gone)) * (NONE - ORIGINAL)
        draw = random.Random(label)
        n_added = 0 if card is None or card.folds else 331_776 * len(removed)
        linear = (
            info.n_parameters - info.parameters_of(gone) - NORM * (len(info.blocks) - len(gone))
        )
        attn = sum(b.part == "attn" for b in gone)
        columns.append(ComparisonColumn(
            label, card.title if card else {"original": "Original", "none": "Pruned"}[label],
            tuple(x + rise + draw.gauss(0, 0.05) * bool(rise) for x in whole),
            texts.get(label, texts["repaired"]),
            info.n_parameters - info.parameters_of(gone) + n_added, n_added, linear + n_added,
            2 * 576 * (info.n_layers - attn), info.kv_bytes_per_token(gone),
            card.folds if card else "",
            token_nll=tuple(
                tuple(max(0.0, random.Random(p).uniform(0.2, 5) + max(0, rise) * draw.gauss(1, 1.5))
                      for p in row[1:])
                for row in windows
            ),
            answers={name: make_answers(rows, 0.7 - 0.2 * rise, label)
                     for name, rows in questions.items()},
            timing=Timing(900.0 + 90 * rise, 31.0 + 3 * rise, *_speedups(1 + 0.1 * rise))
            if request.is_timed and n_columns is None else None,
        ))  # fmt: skip
    provenances = []
    for text, role in ((repair.text, "calibration"), (repair.evaluation, "evaluation")):
        origin = DataOrigin(
            dataset, role, text.mode, text.n_samples, text.seq_len, text.n_samples * text.seq_len,
            seed=text.seed, token_hash=text.calibration, role=role,
        )  # fmt: skip
        known = origin if labels or role == "evaluation" else None
        provenances.append(Provenance(
            known, info.name, info.revision, info.quantisation, info.dtype, info.device, 2, {}
        ))  # fmt: skip
    on = repair.evaluation
    return Comparison(
        *provenances, removed, asked, tuple(columns), request.prompt, request.max_new_tokens,
        request.is_chat, repair.text.n_samples * (repair.text.seq_len - 1) if labels else 0,
        on.n_samples * (on.seq_len - 1) if columns else 0, request.settings,
        is_partial=len(columns) < len(asked), pieces=windows, questions=questions,
        timed="64 tokens after a prompt of 64" if request.is_timed and n_columns is None else "",
    )  # fmt: skip


def make_questions(task: str, n: int) -> tuple[Question, ...]:
    """Sums with four answers, each of which is right once in four."""
    return tuple(
        Question(f"{task}: what is {i} + {i}?", tuple(str(2 * i + j) for j in range(4)), 0)
        for i in range(n)
    )


def make_answers(rows: tuple[Question, ...], share: float, label: str) -> TaskAnswers:
    """About this share of the rows answered right, not the same ones by every variant."""
    draw = random.Random(f"{label} answers")
    taken = tuple(row.answer if draw.random() < share else draw.randrange(1, 4) for row in rows)
    right = sum(t == row.answer for t, row in zip(taken, rows, strict=True)) / len(rows)
    return TaskAnswers(taken, right, (right * (1 - right) / len(rows)) ** 0.5)


def _speedups(times: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    return (times, times - 0.03, times + 0.04), (times, times - 0.02, times + 0.02)


def growing_comparison(
    info: ModelInfo, request: CompareRequest, **more: object
) -> Iterator[Comparison]:
    """The comparison before its first column and after every one but the last, each partial."""
    n = len(make_comparison(info, request, n_columns=0).asked)
    for i in range(n):
        yield replace(make_comparison(info, request, n_columns=i, **more), is_partial=True)


def make_contest(*, title: str = "") -> Contest:
    """Three recipes, two draws each, and one that could not be had."""
    draw = random.Random(11)
    entries = [Entry("original", "Original", 0, nll=ORIGINAL, rise=0.0, n_parameters=134_515_008)]
    for seed in (1, 2):
        for name, far in (("blockpruner", 1.1), ("shortgpt", 1.9), ("blockviz", 0.6)):
            nll = ORIGINAL + far + draw.gauss(0, 0.05)
            entries.append(
                Entry(
                    name,
                    title or name.title(),
                    seed,
                    repair="writer_refit" if name == "blockviz" else "",
                    n_parameters=109_730_880,
                    bare=nll + (0.5 if name == "blockviz" else 0.0),
                    nll=nll,
                    stderr=0.04,
                    rise=nll - ORIGINAL,
                    rise_stderr=0.03,
                )
            )
    entries.append(Entry("sleb", "SLEB", 1, refused="It cannot. There is none. Leave it out."))
    provenance = Provenance(None, "demo", "", "", "bfloat16", "cpu", 2, {})
    settings = {"layers": 7, "n_samples": 32, "seq_len": 128, "fit_samples": 96}
    return Contest(provenance, 109_730_880, {**settings, "fit_seq_len": 512}, tuple(entries), 999)
