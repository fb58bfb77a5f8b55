"""Calibration and evaluation token sets: load texts, tokenise them, cut windows, compare sets."""

from blockviz.data.overlap import overlap, overlap_warning
from blockviz.data.records import Texts
from blockviz.data.texts import NAMED_SETS, load_texts
from blockviz.data.windows import build

__all__ = ["NAMED_SETS", "Texts", "build", "load_texts", "overlap", "overlap_warning"]
