"""How long a search will take, from timing one evaluation on this machine."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch

from blockviz.corrections import CORRECTIONS
from blockviz.engine import SetMeter
from blockviz.metrics import AblationMetric
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.search import Goal, Space, Strategy
from blockviz.session.objectives import objective_metric
from blockviz.session.repair_space import NO_CORRECTION
from blockviz.session.search_space import check_search, units_of
from blockviz.session.search_views import Estimate, SearchRequest
from blockviz.settings import parse_method
from blockviz.types import Ask, CalibrationSet, DataOrigin, Done, Events, ModelInfo, Progress

# Of what is asked for, racing ran these shares on the models it was tried on.
RACED = 0.15, 0.45
# An accuracy asks about so many tokens a question.
TOKENS_A_QUESTION = 150
TIMED_TOKENS = 1024
# Forward passes that a fit takes with its sums and its solving.
FIT_PASSES = 4


def estimate_search(model: BlockModel, request: SearchRequest) -> Events:
    """Done(Estimate). Two short runs on made-up tokens: the text is not loaded for it."""
    n_sets = n_asked(request, model.info)
    seconds = 0.0
    for turn in range(2):  # the first one warms up
        yield Progress("timing one evaluation", turn, 2)
        seconds = _seconds(model, request)
    low, high = RACED if _may_race(request) else (0.8, 1.2)
    low = min(low, 1.0) if n_sets > 1 else 1.0
    fits = seconds * _in_sets(request, model.info)
    yield Done(Estimate(n_sets * seconds * low + fits, n_sets * seconds * high + fits, n_sets))


def n_asked(request: SearchRequest, info: ModelInfo) -> int:
    """How many removed sets a search asks for at most."""
    return check_search(request, info).n_sets(_space(request, info))


def _in_sets(request: SearchRequest, info: ModelInfo) -> int:
    """What the fits of a search that repairs take, in evaluations of a set."""
    strategy = check_search(request, info)
    label = request.with_repair or strategy.repair or NO_CORRECTION
    if label == NO_CORRECTION or not parse_method(CORRECTIONS, label).reads_text:
        return 0
    share = request.repair_samples / max(1, request.text.n_samples)
    return math.ceil(strategy.n_fits(_space(request, info)) * FIT_PASSES * share)


def n_evaluations(request: SearchRequest, info: ModelInfo, *, limit: int) -> int:
    """How many removed sets a search will run at most, in whole evaluations over all windows.

    Of sets that are raced it counts the larger share that races were seen to run: one that needs
    more is left to the limit of time. How far a rise of perplexity or a speed-up will cut is a
    guess, and a pool counts as all units. What is above `limit` already as a race is counted as
    one. BadInput or UnknownName where `check_search` says so.
    """
    strategy, space = check_search(request, info), _space(request, info)
    n_sets, fits = strategy.n_sets(space), _in_sets(request, info)
    raced = math.ceil(n_sets * RACED[1])
    if not _may_race(request):
        return n_sets + fits
    # Many masks take long to draw: no strategy is asked what has no bearing on the answer.
    is_raced = raced > limit or not _wants_every_set(strategy, space)
    return (raced if is_raced else n_sets) + fits


def _space(request: SearchRequest, info: ModelInfo) -> Space:
    goal = Goal(n_units=_n_units(request, info))
    return Space(units_of(request, info), goal, len(info.blocks), seed=request.text.seed)


def _may_race(request: SearchRequest) -> bool:
    is_raced = not request.is_exhaustive and request.engine == "fast"
    return is_raced and isinstance(objective_metric(request), AblationMetric)


def _wants_every_set(strategy: Strategy, space: Space) -> bool:
    """Whether it gives up none of the sets that it asks for, as its first question shows.

    One that goes by scores cannot be asked before these are worked out, and counts as such.
    """
    if strategy.needs():
        return True
    ask = next(strategy.search(space), None)
    return isinstance(ask, Ask) and ask.keep == len(ask.sets)


def _seconds(model: BlockModel, request: SearchRequest) -> float:
    """One set on all windows of the request, with the block in the middle gone."""
    text, metric = request.text, objective_metric(request)
    if isinstance(metric, AblationMetric):
        length, n_tokens = text.seq_len, text.seq_len * text.n_samples
    else:
        metric = parse_metric("ppl")
        length, n_tokens = TOKENS_A_QUESTION, TOKENS_A_QUESTION * (text.limit or 1000)
    length = min(length, model.info.max_seq_len)
    n_windows = max(1, min(TIMED_TOKENS, n_tokens) // length)
    dice = torch.Generator().manual_seed(0)
    ids = torch.randint(model.info.vocab_size, (n_windows, length), generator=dice)
    origin = DataOrigin("made-up", "", "stream", n_windows, length, ids.numel(), 0, "")
    windows = CalibrationSet(ids, torch.ones_like(ids).bool(), origin)
    middle = model.info.blocks[len(model.info.blocks) // 2].id
    meter = SetMeter(model, windows, metric)
    started = time.perf_counter()
    for _ in meter.values([frozenset([middle])], range(n_windows)):
        pass
    spent = time.perf_counter() - started
    return spent * n_tokens / (n_windows * length)


def _n_units(request: SearchRequest, info: ModelInfo) -> int:
    """How many units will go: as asked, or about as many as reach another target."""
    units = units_of(replace(request, blocks=None), info)
    guesses = [len(units) // 4]
    if request.blocks is not None:
        guesses = [request.blocks]
    elif request.ratio is not None:
        mean = info.parameters_of(units) / len(units)
        guesses = [math.ceil(request.ratio * info.n_parameters / mean)]
    return max(1, min(guesses[0], len(units)))
