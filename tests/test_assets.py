"""The bundled example: complete, carrying its provenance, and what the model gives when asked."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from blockviz.evaluate import measure_perplexity
from blockviz.models.model import BlockModel
from blockviz.session.example import EXAMPLE_PATH, Example, live_key
from blockviz.session.live import open_live_windows
from blockviz.session.opening import open_windows
from blockviz.session.views import ScoreRequest
from blockviz.types import BlockId, run

# The example is in bfloat16 and is checked in float32, which every machine computes alike.
TOLERANCE = 0.02


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
    for scores in example.table.metrics.values():
        assert set(scores.values) == blocks
        assert set(scores.stderr) == blocks
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


def test_a_few_of_its_cells_come_out_again(example: Example, demo_float32: BlockModel) -> None:
    windows = run(open_live_windows(demo_float32))
    for removed in ((), ("14.mlp",), ("1.attn",), ("7.attn", "14.mlp", "18.attn")):
        blocks = tuple(BlockId.parse(b) for b in removed)
        found = run(measure_perplexity(demo_float32, windows, removed=blocks))
        stored = example.live[live_key(blocks)]
        assert found.n_tokens == stored.n_tokens == 8 * 127
        assert stored.value == pytest.approx(found.value, rel=TOLERANCE)
        assert math.isclose(stored.nll, found.nll, abs_tol=TOLERANCE)


def test_the_example_survives_a_round_trip(example: Example) -> None:
    again = Example.from_json(example.to_json())
    assert dataclasses.asdict(again.info) == dataclasses.asdict(example.info)
    assert again == example
