"""Searches on tiny models: fast road, racing and plain road agree; and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import tiny
import torch

from blockviz.data import part_of
from blockviz.errors import BadInput, UnknownName
from blockviz.metrics.parsing import parse_metric
from blockviz.models.model import BlockModel
from blockviz.session.estimating import estimate_search
from blockviz.session.ledger import Ledger, window_names
from blockviz.session.pairing import pairs_windows
from blockviz.session.search_space import check_search
from blockviz.session.search_target import too_few
from blockviz.session.search_views import PairsRequest, SearchRequest
from blockviz.session.searching import search_windows
from blockviz.session.views import ScoreRequest
from blockviz.types import BlockId, CalibrationSet, Interactions, Progress, SearchRun, run

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = tiny.windows(24, 10, seed=3)
GREEDY = SearchRequest(text=ScoreRequest(n_samples=24, seq_len=10), blocks=3)


@pytest.fixture(scope="module")
def model() -> BlockModel:
    return tiny.model("llama")


def searched(model: BlockModel, windows: CalibrationSet = WINDOWS, **how) -> SearchRun:
    return run(search_windows(model, windows, replace(GREEDY, **how)))


def plain_greedy(model: BlockModel, objective: str, k: int) -> list[BlockId]:
    """The search written out again from its definition, on whole masked forwards."""
    removed: list[BlockId] = []
    for _ in range(k):
        best = None
        for part in ("attn", "mlp"):
            for unit in model.info.units(part):
                if unit in removed:
                    continue
                value = plain_value(model, objective, [*removed, unit])
                if best is None or value < best[0]:
                    best = value, unit
        removed.append(best[1])
    return removed


def plain_value(model: BlockModel, objective: str, removed: list[BlockId]) -> float:
    ids = WINDOWS.input_ids
    with torch.inference_mode():
        dense = model.module(input_ids=ids).logits.double()
        with model.masked(removed):
            masked = model.module(input_ids=ids).logits.double()
    if objective == "kl":
        p0, p = dense.log_softmax(-1), masked.log_softmax(-1)
        return (p0.exp() * (p0 - p)).sum(-1).mean().item()
    logs = masked.log_softmax(-1)[:, :-1]
    return -logs.gather(-1, ids[:, 1:, None]).mean().item()


@pytest.mark.parametrize("objective", ["ppl", "kl"])
@pytest.mark.parametrize("how", [{}, {"is_exhaustive": True}, {"engine": "reference"}])
def test_every_road_removes_what_the_definition_removes(model, objective, how):
    found = searched(model, objective=objective, **how)
    expected = plain_greedy(model, objective, 3)
    assert list(found.best.removed) == expected
    value = plain_value(model, objective, expected)
    number = math.exp(value) if objective == "ppl" else value
    assert found.best.number == pytest.approx(number, rel=1e-4)


def test_each_step_says_how_much_was_run_and_how_sure_it_is(model):
    exact, raced = searched(model, is_exhaustive=True), searched(model)
    n = len(model.info.blocks)
    assert [s.of for s in raced.steps] == [n, n - 1, n - 2]
    assert [s.evaluated for s in exact.steps] == [n, n - 1, n - 2]
    assert all(s.confidence == 1 for s in exact.steps)
    assert all(s.evaluated <= s.of for s in raced.steps)
    assert raced.n_evaluated < exact.n_evaluated
    assert all(0.95 <= s.confidence <= 1 for s in raced.steps)
    for step in (*exact.steps, *raced.steps):
        assert step.rival > 0 and step.sureness == pytest.approx(step.confidence - step.rival)


def test_two_short_windows_are_never_sure_and_say_so(model):
    text, two = ScoreRequest(n_samples=2, seq_len=32), part_of(WINDOWS, 0, 2, role="calibration")
    found = run(search_windows(model, two, replace(GREEDY, text=text)))
    assert [s.confidence for s in found.steps] == [1.0] * 3
    assert all(s.sureness < 0.95 for s in found.steps)
    assert found.warning.startswith("Chosen on 2 windows of 32 tokens: with fewer than 8 windows")
    assert found.warning.endswith("Read more text.")


@pytest.mark.parametrize(("n", "length", "is_few"), [
    (8, 128, False), (32, 32, False), (7, 4096, True), (8, 127, True), (1, 2048, True),
])  # fmt: skip
def test_a_text_is_called_too_short_by_its_windows_and_its_tokens(n, length, is_few):
    request = SearchRequest(text=ScoreRequest(n_samples=n, seq_len=length))
    assert bool(too_few(request)) == is_few
    assert not too_few(replace(request, objective="acc"))


def test_what_is_asked_once_more_is_not_counted_twice():
    """Of 20 blocks eleven cost 1 and, once one of them is gone, 50; the others cost 5. So the best
    of the ten left is asked again, beside the nine that had been left out: 19 reads, not 20."""
    model = tiny.model("llama", num_hidden_layers=10)
    blocks, ledger, names = model.info.units("block"), Ledger(), window_names(WINDOWS)
    cheap = set(blocks[:11])
    for removed in (*combinations(blocks, 1), *combinations(blocks, 2), ()):
        n = len(cheap & set(removed))
        value = 5.0 * (len(removed) - n) + (1 + 50.0 * (n - 1) if n else 0)
        ledger.put(frozenset(removed), names, [value] * len(names))
    found = run(search_windows(model, WINDOWS, replace(GREEDY, blocks=2), ledger))
    assert [(s.evaluated, s.of) for s in found.steps] == [(20, 20), (19, 19)]
    assert found.best.removed[1] not in cheap


def test_a_run_is_a_plan_file_and_comes_back_whole(model):
    found = searched(model)
    data = found.to_json()
    assert data["schema"] == "blockviz/plan/1"
    assert data["removed"] == [str(b) for b in found.best.removed]
    assert [row["block"] for row in data["trace"]] == data["removed"]
    assert data["baseline"] == pytest.approx(math.exp(plain_value(model, "ppl", [])), rel=1e-4)
    assert SearchRun.from_json(data) == found


def test_what_is_known_is_not_measured_again(model):
    ledger = Ledger()
    first = run(search_windows(model, WINDOWS, GREEDY, ledger))
    second = run(search_windows(model, WINDOWS, GREEDY, ledger))
    assert first.n_reused == 0
    assert second.n_reused == round(first.n_evaluated + 1)  # and the whole model
    assert [s.removed for s in second.steps] == [s.removed for s in first.steps]
    assert second.measured == first.measured
    more = run(search_windows(model, WINDOWS, replace(GREEDY, blocks=4), ledger))
    assert [s.removed for s in more.steps[:3]] == [s.removed for s in first.steps]


def test_a_search_that_is_closed_after_a_step_has_that_step(model):
    partial = None
    events = search_windows(model, WINDOWS, GREEDY)
    for event in events:
        if isinstance(event, Progress) and event.partial is not None:
            partial = event.partial
            events.close()
            break
    assert partial.is_partial
    assert len(partial.steps) == 1
    assert partial.to_json()["partial"] is True


@pytest.mark.parametrize("unit", ["layer", "attn", "mlp"])
def test_units_are_searched_alone(model, unit):
    found = searched(model, unit=unit, blocks=2)
    assert {b.part for b in found.best.removed} == {unit}
    assert found.steps[0].of == len(model.info.units(unit))


def test_protected_layers_are_never_candidates(model):
    last = model.info.n_layers - 1
    found = searched(model, unit="layer", blocks=1, protect_first=1, protect_last=1)
    assert found.steps[0].of == model.info.n_layers - 2
    assert all(0 < b.layer < last for removed, _ in found.measured for b in removed)


def test_a_pool_keeps_the_lowest_of_a_metric(model):
    from blockviz.session.scoring import score_windows

    found = searched(model, blocks=1, pool="bi:0.5", is_exhaustive=True)
    metrics = {"bi": parse_metric("bi")}
    table = run(score_windows(model, WINDOWS, metrics, GREEDY.text))
    ranks = table.metrics["bi"].ranks()
    half = math.ceil(len(ranks) / 2)
    lowest = {b for b, rank in ranks.items() if rank <= half}
    singles = {next(iter(removed)) for removed, _ in found.measured if len(removed) == 1}
    assert singles == lowest


def test_a_share_of_parameters_is_not_exceeded(model):
    info = model.info
    found = searched(model, blocks=None, ratio=0.2)
    gone = info.parameters_of(found.best.removed)
    assert gone <= 0.2 * info.n_parameters
    smallest = min(b.n_parameters for b in info.blocks if b.id not in found.best.removed)
    assert gone + smallest > 0.2 * info.n_parameters


def test_a_rise_of_perplexity_is_not_exceeded(model):
    far = searched(model, blocks=len(model.info.blocks) - 1)
    percents = [100 * (s.number / far.baseline - 1) for s in far.steps]
    for limit in (0.0, 10.0):
        found = searched(model, blocks=None, max_ppl_rise=limit)
        n = next((i for i, percent in enumerate(percents) if percent > limit), len(percents))
        assert found.best.removed == far.best.removed[:n]


def test_a_speed_up_cuts_until_it_is_reached(model, monkeypatch):
    from blockviz.engine import BlockCosts
    from blockviz.session import search_space

    blocks = [b.id for b in model.info.blocks]
    costs = BlockCosts(dict.fromkeys(blocks, 1.0), rest=float(len(blocks)))
    monkeypatch.setattr(search_space, "block_costs", lambda model: costs)
    found = searched(model, blocks=None, speedup=1.25)  # a fifth of 2 n seconds
    assert len(found.best.removed) == math.ceil(2 * len(blocks) / 5)
    with pytest.raises(BadInput, match="times as fast"):
        searched(model, blocks=None, speedup=2.5)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"blocks": None}, "no target"),
        ({"blocks": 0}, "1 or more"),
        ({"blocks": 99}, "to choose from"),
        ({"blocks": None, "ratio": 1.5}, "above 0 and below 1"),
        ({"blocks": None, "max_ppl_rise": -3.0}, "percent"),
        ({"blocks": None, "max_ppl_rise": 3.0, "objective": "kl"}, "does not measure perplexity"),
        ({"blocks": None, "speedup": 0.9}, "above 1"),
        ({"blocks": None, "speedup": math.nan}, "above 1"),
        ({"objective": "bi"}, "single blocks"),
        ({"objective": "acc"}, "No questions"),
        ({"unit": "head"}, "no such unit"),
        ({"engine": "slow"}, "no such engine"),
        ({"protect_first": 3, "protect_last": 9}, "Protect fewer"),
        ({"pool": "bi"}, "METRIC:SHARE"),
        ({"pool": "bi:2"}, "METRIC:SHARE"),
        ({"level": 0.0}, "between 0 and 0.5"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(model, how, text):
    with pytest.raises(BadInput, match=text) as caught:
        check_search(replace(GREEDY, **how), model.info)
    assert len(caught.value.args) == 3 or all(
        getattr(caught.value, part) for part in ("asked", "found", "todo")
    )


@pytest.mark.parametrize("how", [{"strategy": "gredy"}, {"objective": "pppl"}, {"pool": "bj:0.5"}])
def test_a_name_that_is_none_is_answered_with_near_ones(model, how):
    with pytest.raises(UnknownName, match="Did you mean"):
        check_search(replace(GREEDY, **how), model.info)


def test_an_estimate_counts_the_sets(model):
    n = len(model.info.blocks)
    found = run(estimate_search(model, GREEDY))
    assert found.n_sets == n + (n - 1) + (n - 2)
    assert 0 < found.seconds_low < found.seconds_high
    longer = run(estimate_search(model, replace(GREEDY, is_exhaustive=True)))
    assert longer.seconds_high > found.seconds_low


def pairs(model: BlockModel, **how) -> Interactions:
    return run(pairs_windows(model, WINDOWS, PairsRequest(**how)))


def test_pairs_are_what_four_losses_say(model):
    found = pairs(model, n_positions=None)
    blocks = model.info.units("block")
    assert len(found.pairs) == len(blocks) * (len(blocks) - 1) // 2
    whole = plain_value(model, "ppl", [])
    assert found.whole == pytest.approx(whole, abs=1e-5)
    for u, v in [(blocks[0], blocks[1]), (blocks[1], blocks[6]), (blocks[4], blocks[5])]:
        alone = plain_value(model, "ppl", [u]), plain_value(model, "ppl", [v])
        both = plain_value(model, "ppl", [u, v])
        assert found.between(v, u) == pytest.approx(both - sum(alone) + whole, abs=2e-5)
        assert found.singles[u] == pytest.approx(alone[0] - whole, abs=2e-5)
    assert Interactions.from_json(found.to_json()) == found


def test_a_sample_of_positions_is_near_and_says_so(model):
    whole, some = pairs(model, n_positions=None), pairs(model, n_positions=5)
    assert (whole.n_positions, some.n_positions) == (9, 5)
    inside = [abs(some.pairs[p] - whole.pairs[p]) <= 3 * some.stderr[p] + 1e-9 for p in whole.pairs]
    assert sum(inside) / len(inside) > 0.8
    assert some.pairs != whole.pairs
    assert pairs(model, n_positions=5) == some


def test_pairs_come_block_by_block_and_are_kept(model):
    ledger, partials = Ledger(), []
    request = PairsRequest(n_positions=None)
    for event in pairs_windows(model, WINDOWS, request, ledger):
        if isinstance(event, Progress) and event.partial is not None:
            partials.append(event.partial)
    n = len(model.info.blocks)
    assert [len(p.pairs) for p in partials[:3]] == [0, n - 1, 2 * n - 3]
    assert [p.is_partial for p in partials] == [True] * (len(partials) - 1) + [False]
    assert run(pairs_windows(model, WINDOWS, request, ledger)) == partials[-1]


def test_pairs_of_a_pool_are_those_of_its_units(model):
    """The half with the lowest BI: what `score` gives them is the independent way."""
    from blockviz.metrics import parse_metrics
    from blockviz.session.scoring import score_windows

    asked = ScoreRequest(n_samples=24, seq_len=10, metrics=("bi",))
    table = run(score_windows(model, WINDOWS, parse_metrics(["bi"]), asked))
    scores = table.metrics["bi"].values
    half = set(sorted(scores, key=scores.__getitem__)[: len(scores) // 2])
    found, every = pairs(model, pool="bi:0.5"), pairs(model)
    assert set(found.singles) == half
    assert set(found.pairs) == {p for p in every.pairs if half.issuperset(p)}
    for pair, value in found.pairs.items():
        assert value == pytest.approx(every.pairs[pair], abs=1e-6)
    with pytest.raises(BadInput, match="METRIC:SHARE"):
        pairs(model, pool="bi")


def test_pairs_of_layers(model):
    found = pairs(model, unit="layer", n_positions=None)
    n = model.info.n_layers
    assert len(found.pairs) == n * (n - 1) // 2
    assert {b.part for pair in found.pairs for b in pair} == {"layer"}
