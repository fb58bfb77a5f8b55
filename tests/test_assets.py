"""The bundled example: complete, carrying its provenance, and what the model gives when asked."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from scipy.stats import kendalltau

from blockviz.engine import SetMeter
from blockviz.evaluate import measure_perplexity
from blockviz.metrics import METRICS
from blockviz.models.model import BlockModel
from blockviz.session.contest_views import entrants
from blockviz.session.example import EXAMPLE_PATH, Example, live_key, load_contest
from blockviz.session.judging import JUDGE_REMOVALS
from blockviz.session.live import open_live_windows
from blockviz.session.opening import open_windows
from blockviz.session.scoring import score_request
from blockviz.session.search_views import PairsRequest
from blockviz.session.views import ScoreRequest
from blockviz.types import BlockId, PruningPlan, run

# The example is in bfloat16 and is checked in float32, which every machine computes alike.
TOLERANCE = 0.02
# What takes the model long to measure is measured anew when the example, or what measures, changes.
measured_again = pytest.mark.slow("assets", "engine", "evaluate", "models")


@pytest.fixture(scope="module")
def example() -> Example:
    return Example.load()


def test_the_example_names_its_schema_and_origin(example: Example) -> None:
    data = json.loads(EXAMPLE_PATH.read_text(encoding="utf-8"))
    assert data["schema"] == "blockviz/example/1"
    assert data["scores"]["schema"] == "blockviz/scores/1"
    provenance = example.table.provenance
    assert provenance.model == example.info.name
    assert provenance.dtype == example.info.dtype
    assert provenance.quantisation == "Q4_1, dequantised"
    assert {"torch", "transformers", "blockviz"} <= set(provenance.versions)
    assert provenance.data.n_tokens == provenance.data.n_samples * provenance.data.seq_len
    assert example.origin.role == "evaluation"
    assert provenance.data.role == "calibration"
    assert example.origin.token_hash != provenance.data.token_hash


def test_the_example_is_complete(example: Example) -> None:
    blocks = set(example.info.units("block"))
    assert len(blocks) == 60
    layers = set(example.info.units("layer"))
    assert tuple(example.table.metrics) == METRICS.names()
    assert not example.table.is_partial
    for name, scores in example.table.metrics.items():
        unit = METRICS.get(name)().unit_for("block")
        assert set(scores.values) == set(example.info.units(unit))
        assert scores.stderr is None or set(scores.stderr) == set(scores.values)
        assert scores.per_window is None or set(scores.per_window) == set(scores.values)
    assert set(example.judgement.singles) == blocks | layers
    assert {name: len(curve) for name, curve in example.judgement.curves.items()} == dict.fromkeys(
        METRICS.names(), JUDGE_REMOVALS
    )
    assert not example.judgement.is_partial
    assert len(example.lens.depths) == 61
    cuts = [(), *((b,) for b in (*blocks, *example.info.units("layer")))]
    assert {live_key(cut) for cut in cuts} <= set(example.live)
    assert live_key(BlockId.parse(b) for b in example.removed) in example.live
    pair = example.continuation
    assert pair.is_complete
    assert pair.original[: pair.first_difference] == pair.pruned[: pair.first_difference]
    assert pair.original != pair.pruned


def test_its_texts_are_cut_from_the_data_that_it_names(
    example: Example, demo_float32: BlockModel
) -> None:
    live = run(open_live_windows(demo_float32))
    assert live.origin == example.origin
    calibration = run(open_windows(demo_float32, ScoreRequest()))
    assert calibration.origin == example.table.provenance.data


@pytest.mark.parametrize(
    "removed",
    [
        (),
        ("7.attn", "14.mlp", "18.attn"),
        pytest.param(("14.mlp",), marks=measured_again),
        pytest.param(("1.attn",), marks=measured_again),
    ],
    ids="+".join,
)
def test_a_few_of_its_cells_come_out_again(
    example: Example, demo_float32: BlockModel, removed: tuple[str, ...]
) -> None:
    windows = run(open_live_windows(demo_float32))
    blocks = tuple(BlockId.parse(b) for b in removed)
    found = run(measure_perplexity(demo_float32, windows, removed=blocks))
    stored = example.live[live_key(blocks)]
    assert found.n_tokens == stored.n_tokens == 8 * 127
    assert stored.value == pytest.approx(found.value, rel=TOLERANCE)
    assert math.isclose(stored.nll, found.nll, abs_tol=TOLERANCE)


@pytest.mark.slow("assets", "metrics", "stats", "models")
def test_its_scores_come_out_again_in_float32(example: Example, demo_float32: BlockModel) -> None:
    """Those of one cheap pass over the same windows, and those of no text at all."""
    found = run(score_request(demo_float32, ScoreRequest(metrics=("bi", "ang_win", "cka", "mag"))))
    for name, scores in found.metrics.items():
        stored = example.table.metrics[name]
        blocks = list(scores.values)
        assert (
            kendalltau(
                [scores.values[b] for b in blocks], [stored.values[b] for b in blocks]
            ).statistic
            > 0.97
        )
        assert [stored.raw[b] for b in blocks] == pytest.approx(
            [scores.raw[b] for b in blocks], rel=0.05, abs=2e-3
        )


def test_its_judgement_is_of_the_live_text_and_of_its_own_cuts(example: Example) -> None:
    judged = example.judgement
    assert judged.provenance.data == example.origin
    whole = example.live[()]
    assert judged.whole.nll == pytest.approx(whole.window_nll, abs=1e-5)
    for name, curve in example.judgement.curves.items():
        ranks = example.table.metrics[name].ranks()
        order = sorted(ranks, key=ranks.__getitem__)
        assert [m.removed for m in curve] == [tuple(order[: n + 1]) for n in range(len(curve))]


@measured_again
def test_its_search_and_its_pairs_come_out_again(
    example: Example, demo_float32: BlockModel
) -> None:
    """The whole model, the last set of the search, and one pair, on the text they name."""
    search, pairs = example.search, example.interactions
    assert len(search.steps) == 10 and not search.is_partial
    assert search.provenance.data == example.table.provenance.data
    assert len(pairs.pairs) == 60 * 59 // 2 and not pairs.is_partial
    windows = run(open_windows(demo_float32, ScoreRequest()))
    for removed, number in (((), search.baseline), (search.best.removed, search.best.number)):
        found = run(measure_perplexity(demo_float32, windows, removed=removed))
        assert number == pytest.approx(found.value, rel=TOLERANCE)
    few = run(open_windows(demo_float32, PairsRequest().text))
    assert few.origin == pairs.provenance.data
    meter = SetMeter(demo_float32, few, METRICS.get("ppl")(), n_positions=32, seed=42)
    pair = max(pairs.pairs, key=pairs.pairs.__getitem__)
    sets = [frozenset(), frozenset([pair[0]]), frozenset([pair[1]]), frozenset(pair)]
    measuring = meter.values(sets, range(len(few)))
    with pytest.raises(StopIteration) as end:
        while True:
            next(measuring)
    whole, one, other, both = end.value.value.mean(dim=1).tolist()
    assert pairs.pairs[pair] == pytest.approx(both - one - other + whole, rel=0.05, abs=0.02)


def test_the_contest_is_of_recipes_that_there_are_at_the_size_that_it_names(
    example: Example,
) -> None:
    contest = load_contest()
    assert contest is not None and not contest.is_partial
    assert contest.evaluation.model == example.info.name
    known = {entrant.name: entrant.title for entrant in entrants(())}
    assert {e.name: e.title for e in contest.entries[1:]}.items() <= known.items()
    assert not any("/" in str(value) for value in contest.settings.values())
    smallest = min(block.n_parameters for block in example.info.blocks)
    for entry in contest.entries[1:]:
        PruningPlan(entry.removed).check(example.info)
        assert entry.n_parameters < contest.n_parameters + smallest
    assert set(contest.winners()) == {1, 2, 3}


def test_the_example_survives_a_round_trip(example: Example) -> None:
    again = Example.from_json(example.to_json())
    assert dataclasses.asdict(again.info) == dataclasses.asdict(example.info)
    assert again == example
