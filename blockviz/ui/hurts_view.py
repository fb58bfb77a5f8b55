"""The measured text word by word, and the questions whose answers changed, as plain views."""

from __future__ import annotations

from typing import Any

from blockviz.plots import WORD_CLASSES, column_name, measured_note, visible, word_classes
from blockviz.types import Comparison, ComparisonColumn, Question

View = dict[str, Any]
NO_WORDS: View = {
    "title": "", "lead": "", "windows": [], "before": [], "variants": [], "kinds": [], "marks": [],
    "note": "",
}  # fmt: skip
NO_FLIPS: View = {"title": "", "lead": "", "tasks": []}
# What a browser draws without stumbling; the figure counts all that was kept.
MOST_TOKENS = 2048
MOST_QUESTIONS = 40
MOST_CHARS = 400
TAKEN_NONE = "something else"


def words_view(comparison: Comparison | None) -> View:
    """The text in pieces, with hundredths of a nat that each costs the original, and more than
    that each variant; empty before there is a variant to hold beside the original."""
    whole = comparison.column("original") if comparison else None
    drawn = [] if whole is None else [c for c in _variants(comparison) if _has_tokens(c)]
    if not drawn or not _has_tokens(whole):
        return NO_WORDS
    n, left = 0, MOST_TOKENS
    while n < len(whole.token_nll) and (left > 0 or not n):
        left -= len(comparison.pieces[n])
        n += 1
    kinds, classes = list(WORD_CLASSES), word_classes(comparison.pieces)[:n]
    return {
        "title": "Where it hurts",
        "lead": "The text that perplexity was measured on. Orange and underlined: this word became "
        "harder to foresee than for the original. Blue and dotted: it became easier.",
        "windows": [[_piece(p) for p in pieces] for pieces in comparison.pieces[:n]],
        "before": _hundredths(whole.token_nll[:n]),
        "variants": [
            {
                "title": visible(column_name(column)),
                "rises": _hundredths(comparison.token_rises(column)[:n]),
            }
            for column in drawn
        ],
        "kinds": [{"name": name, "meaning": text} for name, text in WORD_CLASSES.items()],
        "marks": [[[kinds.index(k) for k in kinds if k in found] for found in row]
                  for row in classes],
        "note": f"{n} of {len(whole.window_nll)} windows. {measured_note(comparison)}",
    }  # fmt: skip


def flips_view(comparison: Comparison | None) -> View:
    """Per task and variant the questions that it answers otherwise than the original."""
    if comparison is None or not comparison.questions or comparison.column("original") is None:
        return NO_FLIPS
    variants = [c for c in _variants(comparison) if c.answers]
    tasks = []
    for task, rows in comparison.questions.items():
        found = [_flips(comparison, column, task, rows) for column in variants]
        if found:
            tasks.append({"name": visible(task), "n": len(rows), "variants": found})
    return NO_FLIPS if not tasks else {
        "title": "Answers that changed",
        "lead": "An accuracy that stays can hide questions lost and others won by chance.",
        "tasks": tasks,
    }  # fmt: skip


def _flips(
    comparison: Comparison, column: ComparisonColumn, task: str, rows: tuple[Question, ...]
) -> View:
    lost, gained = comparison.flips(column, task)
    taken = column.answers[task].taken
    before = comparison.column("original").answers[task].taken
    shown = [
        {
            "state": state,
            "text": visible(rows[i].text, MOST_CHARS),
            "right": visible(rows[i].choices[rows[i].answer], MOST_CHARS),
            "other": _said(rows[i], (taken if state == "lost" else before)[i]),
        }
        for state, found in (("lost", lost), ("won", gained))
        for i in found
    ]
    said = f"{len(lost)} lost, {len(gained)} won of {len(rows)} questions"
    return {
        "title": visible(column_name(column)),
        "said": said,
        "questions": shown[:MOST_QUESTIONS],
        "n_more": max(0, len(shown) - MOST_QUESTIONS),
    }


def _said(question: Question, taken: int) -> str:
    return TAKEN_NONE if taken < 0 else visible(question.choices[taken], MOST_CHARS)


def _piece(piece: str) -> str:
    """The piece with its spaces and line breaks as they are and nothing else invisible."""
    return "".join(c if c in " \n" else visible(c) for c in piece[:MOST_CHARS])


def _variants(comparison: Comparison) -> list[ComparisonColumn]:
    return [c for c in comparison.columns if c.label != "original" and c.window_nll]


def _has_tokens(column: ComparisonColumn) -> bool:
    return any(column.token_nll)


def _hundredths(rows: tuple[tuple[float, ...], ...]) -> list[list[int]]:
    return [[round(100 * x) for x in row] for row in rows]
