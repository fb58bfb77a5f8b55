"""Searches that repair as they go: the plain way written out, what is kept, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import tiny
import torch

from blockviz.corrections import CORRECTIONS, fit, repaired_model
from blockviz.errors import BadInput, UnknownName
from blockviz.evaluate import measure_perplexity
from blockviz.models.model import BlockModel
from blockviz.models.repaired import RepairedModel
from blockviz.session.estimating import estimate_search, n_asked, n_evaluations
from blockviz.session.ledger import Ledger
from blockviz.session.processes import Shares
from blockviz.session.search_space import check_search
from blockviz.session.search_views import SearchRequest
from blockviz.session.searching import search_windows
from blockviz.session.views import ScoreRequest
from blockviz.settings import parse_method
from blockviz.types import BlockId, CalibrationSet, PruningPlan, SearchRun, run

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOWS = tiny.windows(6, 12, seed=3)
FIT = tiny.windows(8, 12, seed=4)
ASKED = SearchRequest(
    text=ScoreRequest(n_samples=6, seq_len=12), blocks=3, with_repair="writer_refit"
)
REPAIR = "writer_refit:writers=gap:ridge=0.5"


@pytest.fixture(scope="module")
def model() -> BlockModel:
    return tiny.model("llama")


def searched(
    model: BlockModel, ledger: Ledger | None = None, windows: CalibrationSet = WINDOWS, **how
) -> SearchRun:
    request = replace(ASKED, **how)
    return run(search_windows(model, windows, request, ledger, fit_windows=FIT))


def repaired(model: BlockModel, removed: list[BlockId], label: str) -> BlockModel:
    plan = PruningPlan(tuple(sorted(removed)))
    if label == "none":
        return RepairedModel(model, plan)
    return repaired_model(model, run(fit(model, plan, parse_method(CORRECTIONS, label), FIT)))


def loss(model: BlockModel, removed: tuple[BlockId, ...] = ()) -> float:
    return run(measure_perplexity(model, WINDOWS, removed=removed)).nll


def plain(model: BlockModel, label: str, rerank: int, k: int) -> list[tuple[BlockId, float]]:
    """The search written out from its definition: one model after another, no sharing."""
    removed: list[BlockId] = []
    found = []
    for _ in range(k):
        here = repaired(model, removed, label) if removed else model
        units = [u for p in ("attn", "mlp") for u in model.info.units(p) if u not in removed]
        cheapest = sorted(units, key=lambda u: loss(here, (u,)))[:rerank]
        tried = {u: loss(repaired(model, [*removed, u], label)) for u in cheapest}
        best = min(tried, key=tried.__getitem__)
        removed.append(best)
        found.append((best, tried[best]))
    return found


@pytest.mark.parametrize("rerank", [1, 3])
def test_it_removes_what_the_definition_removes(model: BlockModel, rerank: int):
    strategy = f"repair_greedy:rerank={rerank}"
    found = searched(model, strategy=strategy, with_repair=REPAIR, is_exhaustive=True)
    by_hand = plain(model, REPAIR, rerank, 3)
    assert list(found.steps[-1].removed) == [block for block, _ in by_hand]
    values = [torch.tensor(value).exp().item() for _, value in by_hand]
    assert [s.number for s in found.steps] == pytest.approx(values, rel=1e-5)
    assert {s.repair for s in found.steps} == {REPAIR}


def test_greedy_with_a_repair_is_that_search(model: BlockModel):
    a = searched(model, strategy="greedy", with_repair=REPAIR)
    b = searched(model, strategy="repair_greedy", with_repair=REPAIR)
    assert a.steps[-1].removed == b.steps[-1].removed
    assert [s.number for s in a.steps] == [s.number for s in b.steps]
    assert a.parameters["with_repair"] == REPAIR


def test_the_number_is_that_of_the_plan_with_its_repair(model: BlockModel):
    found = searched(model, with_repair=REPAIR)
    for step in found.steps:
        again = loss(repaired(model, list(step.removed), step.repair))
        assert torch.tensor(again).exp().item() == pytest.approx(step.number, rel=1e-5)
    # Sets that were only raced on the way are not handed over as if they were repaired.
    for removed, number in found.measured:
        if removed:
            again = loss(repaired(model, list(removed), REPAIR))
            assert torch.tensor(again).exp().item() == pytest.approx(number, rel=1e-5)


def test_what_is_compared_with_is_the_whole_model(model: BlockModel):
    """A repaired model's divergence from itself would be 0."""
    found = searched(model, objective="kl", with_repair=REPAIR, is_exhaustive=True, blocks=2)
    last = repaired(model, list(found.steps[-1].removed), REPAIR)
    batch = next(WINDOWS.batches(len(WINDOWS)))
    p, q = (m.logits(batch).double().log_softmax(-1) for m in (model, last))
    by_hand = (p.exp() * (p - q)).sum(-1).mean().item()
    assert found.steps[-1].number == pytest.approx(by_hand, rel=1e-4)
    assert by_hand > 0


@pytest.mark.parametrize("label", ["none", "scalar"])
def test_one_by_one_scores_what_is_left_anew(model: BlockModel, label: str):
    """BI of the model as it is by now: 1 - cosine of the stream around each block."""
    found = searched(model, strategy="iterative", with_repair=label, blocks=3)
    removed: list[BlockId] = []
    for step in found.steps:
        here = repaired(model, removed, label) if removed else model
        influence: dict[BlockId, list[torch.Tensor]] = {}

        def seen(block, before, update, influence=influence):
            after = before + update
            cosine = torch.cosine_similarity(before.double(), after.double(), dim=-1)
            influence.setdefault(block, []).append(1 - cosine)

        with here.watch(seen):
            here.logits(next(WINDOWS.batches(len(WINDOWS))))
        score = {
            b: torch.cat(v).mean().item()
            for b, v in influence.items()
            if b.part != "layer" and b not in removed
        }
        removed.append(min(score, key=score.__getitem__))
        assert list(step.removed) == removed
        assert step.repair == ("" if label == "none" else label)


def test_one_by_one_without_a_repair_needs_no_more_text(model: BlockModel):
    found = run(
        search_windows(
            model, WINDOWS, replace(ASKED, strategy="iterative", with_repair="", scores="rm")
        )
    )
    assert len(found.steps) == 3 and found.parameters["scores"] == "rm"
    assert loss(model, found.steps[-1].removed) == pytest.approx(
        torch.tensor(found.steps[-1].number).log().item(), rel=1e-5
    )


def test_a_second_run_measures_nothing_again(model: BlockModel):
    ledger = Ledger()
    first = searched(model, ledger, with_repair=REPAIR, is_exhaustive=True)
    again = searched(model, ledger, with_repair=REPAIR, is_exhaustive=True)
    assert again.steps[-1].removed == first.steps[-1].removed
    # All but the whole model's own value, and each set once.
    assert again.n_reused >= round(first.n_evaluated)
    other = searched(model, ledger, with_repair="mean", is_exhaustive=True)
    fresh = searched(model, with_repair="mean", is_exhaustive=True)
    assert [s.number for s in other.steps] == [s.number for s in fresh.steps]


def test_a_merge_is_searched_on_the_model_and_can_be_put_in(model: BlockModel):
    found = searched(
        model, strategy="laco:layers=2:threshold=-2", with_repair="", unit="layer", blocks=2
    )
    last = found.steps[-1]
    assert found.objective == "final_cos" and last.repair.startswith("merge:mode=paper:steps=")
    merged = repaired(model, list(last.removed), last.repair)
    batch = next(WINDOWS.batches(len(WINDOWS)))
    with torch.inference_mode():
        ids, how = batch.input_ids, {"output_hidden_states": True}
        a, b = (m.module(input_ids=ids, **how).hidden_states[-1] for m in (model, merged))
    cosine = torch.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)
    assert last.number == pytest.approx(cosine.mean().item(), abs=1e-5)
    assert found.baseline == pytest.approx(1.0, abs=1e-6)


def test_fits_count_as_evaluations(model: BlockModel):
    """Three candidates at each of three removals, four passes each over as much text again."""
    info, asked = model.info, replace(ASKED, repair_samples=6)
    free = n_evaluations(replace(asked, with_repair=""), info, limit=10**6)
    raced = math.ceil(0.45 * (n_asked(asked, info)))
    assert n_asked(asked, info) == n_asked(replace(asked, with_repair=""), info) + 9
    assert n_evaluations(asked, info, limit=10**6) == raced + 3 * 3 * 4
    merging = replace(asked, strategy="laco", unit="layer", with_repair="")
    assert n_evaluations(merging, info, limit=10**6) < free
    estimate = run(estimate_search(model, asked))
    assert estimate.seconds_high > estimate.seconds_low > 0


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"with_repair": "nonsense"}, UnknownName, "nonsense"),
        ({"with_repair": "ridge:ridge=-1"}, BadInput, "ridge"),
        ({"engine": "reference"}, BadInput, "reference"),
        ({"strategy": "beam"}, BadInput, "without one"),
        ({"strategy": "laco", "unit": "layer"}, BadInput, "of its own"),
        ({"repair_samples": 0}, BadInput, "least is 1"),
        ({"strategy": "laco", "with_repair": ""}, BadInput, "layer"),
        (
            {"strategy": "laco", "with_repair": "", "unit": "layer", "max_ppl_rise": 10.0},
            BadInput,
            "perplexity",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(how: dict, error: type[Exception], said: str):
    with pytest.raises(error, match=said):
        check_search(replace(ASKED, **how))


def test_several_processes_are_refused(model: BlockModel):
    with pytest.raises(BadInput, match="2 processes"):
        run(search_windows(model, WINDOWS, ASKED, shares=Shares(0, 2), fit_windows=FIT))
