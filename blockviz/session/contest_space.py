"""Who meets in a contest, how far each is to cut, and the windows of one draw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from blockviz.data import part_of
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.session.contest_views import ContestRequest, Entrant, ends_itself, entrants
from blockviz.session.opening import open_windows
from blockviz.session.recipes import filled_request
from blockviz.session.search_space import check_search
from blockviz.session.search_views import SearchRequest
from blockviz.types import (
    BlockId,
    CalibrationSet,
    Contest,
    Done,
    Events,
    ModelInfo,
    Provenance,
    passing,
)

# What may be asked of entries that are there.
ASKED = ("tasks", "limit")
# Of a search that ends itself the strictest of these is taken that lets it cut far enough.
THRESHOLDS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.2, 0.0, -2.0)


@dataclass(frozen=True)
class Texts:
    """Windows of one draw, none of them twice: to search on, to fit on, to choose by."""

    search: CalibrationSet
    fit: CalibrationSet
    held: CalibrationSet

    def for_search(self, n_samples: int) -> CalibrationSet:
        """What a repair inside the search is fitted on: as much as so many windows of it hold."""
        n_tokens = n_samples * self.search.input_ids.shape[1]
        n = max(1, min(len(self.fit), n_tokens // self.fit.input_ids.shape[1]))
        return part_of(self.fit, 0, n, role="calibration")


def check_contest(request: ContestRequest, info: ModelInfo | None = None) -> tuple[Entrant, ...]:
    """Who meets; BadInput or UnknownName where it cannot be, before any long work."""
    for value, least, what in (
        (request.layers, 1, "layers to remove"),
        (len(request.draws), 1, "draws"),
        (request.n_fit, 1, "windows to fit on"),
        (request.n_held, 1, "windows to choose by"),
    ):
        if value < least:
            raise BadInput(
                f"A contest with {value} {what} was asked for.",
                f"The least is {least}.",
                "Ask for more.",
            )
    if request.fit_seq_len % request.text.seq_len:
        raise BadInput(
            f"Windows of {request.text.seq_len} tokens to search on and of {request.fit_seq_len} "
            "to fit on were asked for.",
            "They are cut from the same ones, and do not go into each other.",
            "Let the longer be a multiple of the shorter.",
        )
    found = entrants(request.names)
    if info is not None:
        for entrant in found:
            for settings in entrant.searches:
                check_search(search_of(entrant, settings, request, info, 0), info)
    return found


def is_same_contest(known: Contest, request: ContestRequest, provenance: Provenance) -> bool:
    """Whether entries of two runs may stand side by side: settings but for the tasks, which can be
    asked later, model and evaluation text."""
    names = ("model", "revision", "quantisation", "dtype")
    before, now = known.evaluation, provenance
    is_same_model = all(getattr(before, name) == getattr(now, name) for name in names)
    hashes = [p.data.token_hash if p.data else "" for p in (before, now)]
    asked = [{n: v for n, v in settings.items() if n not in ASKED}
             for settings in (known.settings, request.settings())]  # fmt: skip
    return is_same_model and hashes[0] == hashes[1] and asked[0] == asked[1]


def draw_texts(model: BlockModel, request: ContestRequest, seed: int) -> Events:
    """Done(Texts) of one draw, as windows of the longer kind; those to search on are cut."""
    length, short = request.fit_seq_len, request.text.seq_len
    n_search = math.ceil(request.text.n_samples * short / length)
    asked = replace(
        request.text,
        n_samples=n_search + request.n_fit + request.n_held,
        seq_len=length,
        seed=seed,
        is_shuffled=True,
    )
    windows = yield from passing(open_windows(model, asked))
    first, last = n_search, n_search + request.n_fit
    cut = part_of(windows, 0, first, role="calibration")
    parts = CalibrationSet(
        cut.input_ids.reshape(-1, short), cut.attention_mask.reshape(-1, short), cut.origin
    )
    search = part_of(parts, 0, request.text.n_samples, role="calibration")
    origin = replace(search.origin, seq_len=short, split=f"{cut.origin.split}, cut")
    yield Done(
        Texts(
            CalibrationSet(search.input_ids, search.attention_mask, origin),
            part_of(windows, first, last, role="calibration"),
            part_of(windows, last, len(windows), role="selection"),
        )
    )


def search_of(
    entrant: Entrant,
    settings: Mapping[str, Any],
    request: ContestRequest,
    info: ModelInfo,
    seed: int,
) -> SearchRequest:
    """A search of an entrant, with a target that leaves none of them larger than another."""
    text = {
        "calibration": request.text.calibration,
        "n_samples": request.text.n_samples,
        "seq_len": request.text.seq_len,
        "seed": seed,
        "mode": "stream",
        "is_shuffled": True,
    }
    own = {**settings, "text": text, "memory_bytes": request.memory_bytes}
    found = filled_request(own, recipe=entrant.preset, n_layers=info.n_layers)
    if found.unit == "layer":
        return replace(found, blocks=request.layers)
    # Whatever is left to remove when nothing fits any more is larger than what is missing.
    smallest = min(b.n_parameters for b in info.blocks)
    most = size_of(info, request.layers) + smallest - 1
    return replace(found, ratio=(most + 0.5) / info.n_parameters)


def strategies_of(request: SearchRequest) -> list[str]:
    """Its strategy; of one that ends itself, with every threshold, the strictest first."""
    if not ends_itself({"strategy": request.strategy}):
        return [request.strategy]
    return [f"{request.strategy}:threshold={t}" for t in THRESHOLDS]


def size_of(info: ModelInfo, layers: int) -> int:
    """Parameters of so many layers, the largest ones first."""
    sizes = [info.parameters_of([BlockId(i, "layer")]) for i in range(info.n_layers)]
    return sum(sorted(sizes, reverse=True)[:layers])
