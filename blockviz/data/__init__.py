"""Calibration and evaluation token sets: load texts, tokenise them, cut windows, compare sets."""

from blockviz.data.letters import letter_prompts
from blockviz.data.overlap import overlap, overlap_warning
from blockviz.data.pieces import pieces_of
from blockviz.data.records import Texts
from blockviz.data.task_sources import task_sources
from blockviz.data.tasks import check_tasks, load_tasks, task_name
from blockviz.data.texts import NAMED_SETS, load_texts, public_name
from blockviz.data.windows import build, part_of

__all__ = [
    "NAMED_SETS",
    "Texts",
    "build",
    "check_tasks",
    "letter_prompts",
    "load_tasks",
    "load_texts",
    "overlap",
    "overlap_warning",
    "part_of",
    "pieces_of",
    "public_name",
    "task_name",
    "task_sources",
]
