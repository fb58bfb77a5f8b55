"""Which repair a search goes by, and the text that it is fitted on."""

from __future__ import annotations

from dataclasses import replace

from blockviz.corrections import CORRECTIONS
from blockviz.data import part_of
from blockviz.errors import BadInput
from blockviz.models.model import BlockModel
from blockviz.search import Greedy, RepairGreedy, Strategy
from blockviz.session.opening import open_windows
from blockviz.session.processes import Shares
from blockviz.session.repair_space import NO_CORRECTION
from blockviz.session.search_views import SearchRequest
from blockviz.settings import parse_method
from blockviz.types import CalibrationSet, Done, Events, passing


def with_repair(strategy: Strategy, request: SearchRequest) -> Strategy:
    """The strategy that repairs as it goes where a repair was asked for; BadInput if none does."""
    if not request.with_repair and strategy.repair is None:
        return strategy
    if request.engine != "fast":
        raise BadInput(
            "A search that repairs as it goes was asked for with the reference engine.",
            "That engine measures one model, and here there is another one after every removal.",
            "Use the engine fast.",
        )
    if not request.with_repair:
        return strategy
    if request.with_repair != NO_CORRECTION:
        parse_method(CORRECTIONS, request.with_repair)
    if request.repair_samples < 1:
        raise BadInput(
            f"A repair was to be fitted on {request.repair_samples} windows.",
            "The least is 1.",
            "Fit on more.",
        )
    if isinstance(strategy, Greedy):
        return RepairGreedy(slack=strategy.slack)
    if strategy.repair is None or strategy.objective:
        found = "It measures without one." if strategy.repair is None else "It has one of its own."
        raise BadInput(
            f"{strategy.title} with the repair {request.with_repair} was asked for.",
            found,
            "Use the strategy greedy or iterative, or repair afterwards with correct.",
        )
    return strategy


def check_alone(shares: Shares) -> None:
    """BadInput where several processes were to share such a search."""
    if shares.count > 1:
        raise BadInput(
            f"A search that repairs as it goes was started in {shares.count} processes.",
            "Its repairs are fitted by one.",
            "Start it alone.",
        )


def open_fit_text(
    model: BlockModel, windows: CalibrationSet, request: SearchRequest, label: str
) -> Events:
    """Done(CalibrationSet): the windows of the request's text behind those of the search.

    What reads no text is given those of the search.
    """
    if label == NO_CORRECTION or not parse_method(CORRECTIONS, label).reads_text:
        yield Done(windows)
        return
    first, n = request.text.n_samples, request.repair_samples
    found = yield from passing(open_windows(model, replace(request.text, n_samples=first + n)))
    yield Done(part_of(found, first, first + n, role="calibration"))
