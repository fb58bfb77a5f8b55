"""Calibrated weights: by hand, against numpy, and by their laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from metric_checks import CHECKS, FAMILIES, WINDOWS, plain, rows, scores_of, shared

from blockviz.engine import sweep
from blockviz.errors import BadInput, UnsupportedModel
from blockviz.metrics import parse_metric
from blockviz.metrics.cvr import CalibratedWeights, weight_scores
from blockviz.models.model import BlockModel
from blockviz.session.scoring import score_windows
from blockviz.session.views import ScoreRequest
from blockviz.stats import WriterInputs
from blockviz.types import BlockId, BlockStatistics, run

pytestmark = pytest.mark.usefixtures("one_thread")


def inputs(case: str, **how: object) -> dict:
    """(weight, variance of the inputs) of every block's writer."""
    model = shared(case)
    asked = WriterInputs()
    passes = {asked: model.info.units("block")}
    events = sweep(model, WINDOWS, (), candidates=(), passes=passes, **how)
    return run(events).statistics.passes[asked]


# --- by hand --------------------------------------------------------------------------------------


def test_scores_of_weights_by_hand():
    # Columns (3, -1) and (2, 2): variances 4 and 0. Inputs of variance 16 and 81: 2 and 3.
    weight = torch.tensor([[3.0, 2.0], [-1.0, 2.0]])
    variance = torch.tensor([16.0, 81.0], dtype=torch.float64)
    # alpha = 1: a column is divided by its deviation, 2 and 1e-4.
    found = weight_scores(weight, variance, 1.0)
    np.testing.assert_allclose(found, [[3, 6e4], [1, 6e4]], rtol=1e-5)
    half = weight_scores(weight, variance, 0.5)
    np.testing.assert_allclose(half, [[3 * 2**0.5, 600], [2**0.5, 600]], rtol=1e-5)


def test_blocks_are_set_beside_their_own_kind_by_hand():
    # Means 1, 2, 6 of attention: mean 3, deviation sqrt(14/3). MLP 5 and 7: -1 and 1.
    one = torch.ones(4, dtype=torch.float64)
    attn = {BlockId(i, "attn"): (torch.full((3, 4), v), one) for i, v in enumerate((1.0, 2.0, 6.0))}
    mlp = {BlockId(i, "mlp"): (torch.full((3, 4), v), one) for i, v in enumerate((5.0, 7.0))}
    found = BlockStatistics({}, 1, 1, {WriterInputs(): attn | mlp})
    scores = CalibratedWeights(alpha=0.0).score(found)
    size = math.sqrt(14 / 3)
    expected = dict(zip((*attn, *mlp), (-2 / size, -1 / size, 3 / size, -1, 1), strict=True))
    assert scores.raw == scores.values == pytest.approx(expected)
    assert scores.stderr is None


def test_blocks_that_are_all_alike_score_nothing():
    one = torch.ones(4, dtype=torch.float64)
    alike = {BlockId(i, "mlp"): (torch.ones(3, 4), one) for i in range(3)}
    scores = CalibratedWeights().score(BlockStatistics({}, 1, 1, {WriterInputs(): alike}))
    assert set(scores.raw.values()) == {0.0}


# --- against the library's own model --------------------------------------------------------------


@pytest.mark.parametrize("case", (*FAMILIES, "phi3"))
@pytest.mark.parametrize("text", ["cvr", "cvr:alpha=0", "cvr:alpha=2"])
def test_cvr_equals_numpy_on_every_family(case: str, text: str):
    CHECKS["cvr"](parse_metric(text), case)


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("batch_tokens", [1, 64, 1000])
def test_variances_are_those_of_all_tokens_whatever_the_batches(case: str, batch_tokens: int):
    for block, (weight, variance) in inputs(case, batch_tokens=batch_tokens).items():
        notes = [plain(case).notes(ids) for ids in rows()]
        fed = np.concatenate([n["fed", block.layer, int(block.part == "mlp")] for n in notes])
        np.testing.assert_allclose(variance, fed.var(0), rtol=1e-4, atol=1e-9)
        assert weight.shape == (tiny.HIDDEN, fed.shape[1])


def test_a_variance_far_from_zero_keeps_its_digits():
    """Sums of squares in float32 would lose the variance of numbers around 1000."""
    model = tiny.model("llama")
    running = WriterInputs().start(model, (BlockId(0, "attn"),), WINDOWS)
    rng = np.random.default_rng(0)
    x = np.float32(1000 + 0.1 * rng.normal(size=(4, 5, 32)))
    for part in np.split(x, 2):
        mask = torch.ones(2, 5, dtype=torch.bool)
        running.begin(tiny.batch(2, 5))
        running._mask = mask
        running._add(BlockId(0, "attn"), torch.tensor(part))
        running.end()
    (found,) = running.result().values()
    np.testing.assert_allclose(found[1], x.reshape(20, 32).astype(float).var(0), rtol=1e-2)


@pytest.mark.parametrize("unit", ["layer", "block", "attn", "mlp"])
def test_layers_are_scored_as_blocks(unit: str):
    """A mean over the matrices of two kinds would say nothing."""
    expected = "block" if unit == "layer" else unit
    model = shared("llama")
    assert tuple(scores_of(CalibratedWeights(), unit=unit).values) == model.info.units(expected)


# --- laws -----------------------------------------------------------------------------------------


def test_t_cvr_1_without_alpha_weights_meet_the_fourth_root_of_a_variance():
    rng = np.random.default_rng(1)
    weight, variance = rng.normal(size=(5, 7)), rng.uniform(0.1, 9, size=7)
    found = weight_scores(torch.tensor(weight), torch.tensor(variance), 0.0)
    np.testing.assert_allclose(found, np.abs(weight) * variance**0.25, rtol=1e-5)


@pytest.mark.parametrize("c", [0.01, 4.0, 100.0])
def test_t_cvr_2_inputs_c_times_as_large_score_root_c_times_as_high(c: float):
    rng = np.random.default_rng(2)
    weight, x = torch.tensor(rng.normal(size=(5, 7))), rng.normal(size=(50, 7))
    one = weight_scores(weight, torch.tensor(x.var(0)), 0.5)
    other = weight_scores(weight, torch.tensor((c * x).var(0)), 0.5)
    np.testing.assert_allclose(other, math.sqrt(c) * one, rtol=1e-5)


def test_standardised_scores_have_no_mean_and_unit_size():
    scores = scores_of(CalibratedWeights(), "gpt2")
    for part in ("attn", "mlp"):
        values = [v for b, v in scores.raw.items() if b.part == part]
        assert np.mean(values) == pytest.approx(0, abs=1e-9)
        assert np.std(values) == pytest.approx(1)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["-0.1", "2.5", "nan", "inf"])
def test_alpha_out_of_range_is_refused(value: str):
    with pytest.raises(BadInput, match=r"alpha must be (from 0\.0 to 2\.0|a finite number)\."):
        parse_metric(f"cvr:alpha={value}")


@pytest.mark.parametrize("unit", ["attn", "mlp", "block"])
def test_weights_that_are_no_numbers_are_refused(unit: str):
    model = tiny.model("llama")
    with torch.no_grad():
        for part in ("attn", "mlp"):
            next(model.part(BlockId(3, part)).parameters())[0, 0] = math.nan
    with pytest.raises(BadInput, match=r"cvr is not finite for 0\."):
        _scored(model, unit)


def test_a_block_without_a_writer_is_refused_by_name():
    """A model with half a layer taken out has nothing there to look into."""
    pruned = tiny.model("llama").prune(tiny.plan("1.mlp"))
    with pytest.raises(UnsupportedModel, match=r"The last linear map of 1\.mlp was wanted\. .*Use"):
        _scored(pruned, "block")
    assert len(_scored(pruned, "attn").raw) == 4


def _scored(model: BlockModel, unit: str):
    events = score_windows(model, WINDOWS, {"cvr": CalibratedWeights()}, ScoreRequest(unit=unit))
    return run(events).metrics["cvr"]
