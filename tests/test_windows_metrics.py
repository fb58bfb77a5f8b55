"""Runs of layers: ang_win and cos_win by hand, against numpy, and by their laws."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import tiny
import torch
from metric_checks import CHECKS, FAMILIES, WINDOWS, cosine, plain, rows, scores_of, shared

from blockviz.errors import BadInput
from blockviz.metrics import parse_metric
from blockviz.metrics.bi import BlockInfluence
from blockviz.metrics.windows import AngularDistance, WindowCosine
from blockviz.session.scoring import score_windows
from blockviz.session.search_views import SearchRequest
from blockviz.session.searching import search_windows
from blockviz.session.views import ScoreRequest
from blockviz.stats import LayerCosines
from blockviz.stats.cosines import mean_cosines
from blockviz.types import BlockId, BlockStatistics, Scores, run

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("ang_win", "ang_win:tokens=all", "cos_win", "cos_win:cos_axis=channel")


def of_streams(metric: AngularDistance | WindowCosine, *windows: object) -> Scores:
    """Scores of windows whose streams are given: (depth, n, size) each."""
    mean, angle = [], []
    for streams in windows:
        vectors = torch.as_tensor(np.asarray(streams), dtype=torch.float32)
        vectors = vectors.mT if metric.parameters().get("cos_axis") == "channel" else vectors
        found = mean_cosines(vectors)
        mean.append(found[0])
        angle.append(found[1])
    (asked,) = metric.passes()
    passes = {asked: {"mean": torch.stack(mean), "angle": torch.stack(angle)}}
    return metric.score(BlockStatistics({}, 1, len(windows), passes))


# --- by hand --------------------------------------------------------------------------------------


def test_ang_win_by_hand():
    # One token, three depths: 0, 45 and 180 degrees. Second window: 0, 90 and 90 degrees.
    first = [[[1, 0]], [[2, 2]], [[-3, 0]]]
    second = [[[0, 5]], [[1, 0]], [[4, 0]]]
    scores = of_streams(AngularDistance(), first, second)
    assert scores.windows == pytest.approx(
        {(0, 1): (0.25 + 0.5) / 2, (1, 1): (0.75 + 0) / 2, (0, 2): (1 + 0.5) / 2}
    )
    layers = [BlockId(i, "layer") for i in range(2)]
    assert list(scores.raw) == layers
    assert (
        scores.raw == scores.values == pytest.approx(dict(zip(layers, (0.375, 0.375), strict=True)))
    )
    assert scores.stderr[layers[1]] == pytest.approx(0.375)


def test_cos_win_by_hand_over_tokens_and_over_channels():
    # Two tokens of two channels. Tokens: (1, 0) -> (0, 1) cos 0, (0, 1) -> (0, 1) cos 1.
    # Channels: (1, 0) -> (0, 0), which counts as 0, and (0, 1) -> (1, 1): 1 / sqrt 2.
    streams = [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]
    layer = BlockId(0, "layer")
    token = of_streams(WindowCosine(), streams)
    assert token.raw[layer] == pytest.approx(0.75) and token.values[layer] == -token.raw[layer]
    channel = of_streams(WindowCosine(cos_axis="channel"), streams)
    assert channel.raw[layer] == pytest.approx(0.5 + 0.5 * (0 + 1 / math.sqrt(2)) / 2)


# --- against the library's own model --------------------------------------------------------------


@pytest.mark.parametrize("text", KINDS)
@pytest.mark.parametrize("case", FAMILIES)
def test_every_run_of_layers_equals_numpy(text: str, case: str):
    metric = parse_metric(text)
    CHECKS[metric.name](metric, case)


@pytest.mark.parametrize("unit", ["block", "layer", "attn", "mlp"])
def test_layers_are_scored_whatever_the_unit(unit: str):
    scores = scores_of(AngularDistance(), unit=unit)
    assert list(scores.values) == list(shared("llama").info.units("layer"))


def test_a_run_past_the_last_layer_is_not_there():
    windows = scores_of(WindowCosine()).windows
    assert windows.keys() == {
        (first, n) for first in range(4) for n in range(1, 5) if first + n <= tiny.LAYERS
    }


def test_a_model_of_one_layer_has_one_run():
    model = tiny.model("llama", num_hidden_layers=1)
    metrics = {"ang_win": AngularDistance(), "cos_win": WindowCosine()}
    table = run(score_windows(model, tiny.windows(), metrics, ScoreRequest()))
    for name in metrics:
        assert table.metrics[name].windows.keys() == {(0, 1)}
        assert list(table.metrics[name].raw.values()) == list(table.metrics[name].windows.values())


def test_the_last_stream_is_taken_before_the_final_norm():
    """A final norm that turns every stream around changes nothing."""
    usual = scores_of(AngularDistance())
    norm = shared("llama").final_norm
    before = norm.weight.detach().clone()
    try:
        with torch.no_grad():
            norm.weight.neg_()
        assert scores_of(AngularDistance()).windows == usual.windows
    finally:
        with torch.no_grad():
            norm.weight.copy_(before)


# --- laws -----------------------------------------------------------------------------------------


def test_t_ang_1_an_identity_run_is_no_turn_and_a_flip_a_whole_one():
    x = np.random.default_rng(0).normal(size=(200, 32)) * 1000
    scores = of_streams(AngularDistance(tokens="all"), [x, x, -x, 0.001 * x])
    assert scores.windows[0, 1] == pytest.approx(0, abs=1e-7)
    assert scores.windows[0, 3] == pytest.approx(0, abs=1e-7)
    assert scores.windows[1, 1] == scores.windows[0, 2] == pytest.approx(1)


@pytest.mark.parametrize("text", ["ang_win", "ang_win:tokens=all"])
def test_t_ang_1_distances_are_from_0_to_1(text: str):
    for case in FAMILIES:
        windows = scores_of(parse_metric(text), case).windows
        assert all(0 < v < 1 for v in windows.values()), windows


def test_t_ang_1_layers_that_add_nothing_are_no_turn():
    model = shared("gpt2")
    with tiny.zeroed(model, "gpt2", tiny.ids("1.layer", "2.layer")):
        windows = scores_of(AngularDistance(), "gpt2").windows
        cosines = scores_of(WindowCosine(), "gpt2").windows
    for key in ((1, 1), (2, 1), (1, 2)):
        assert windows[key] == pytest.approx(0, abs=1e-7)
        assert cosines[key] == pytest.approx(1, abs=1e-9)
    assert windows[0, 1] == pytest.approx(windows[0, 3], abs=1e-7)


def test_a_small_angle_keeps_its_digits():
    """arccos of a float32 cosine would be off by up to 5e-4 radians."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 64))
    y = x + 1e-4 * rng.normal(size=x.shape)
    x32, y32 = (np.float32(v).astype(float) for v in (x, y))
    part = np.linalg.norm(x32, axis=-1), np.linalg.norm(y32, axis=-1)
    chord = np.linalg.norm(x32 / part[0][:, None] - y32 / part[1][:, None], axis=-1)
    exact = (2 * np.arcsin(chord / 2)).mean() / np.pi
    scores = of_streams(AngularDistance(tokens="all"), [x, y])
    assert scores.windows[0, 1] == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("case", FAMILIES)
def test_t_ang_2_single_layers_are_ordered_like_block_influence(case: str):
    """Up to how arccos bends within a layer's tokens, which near orders may not survive."""
    angles = scores_of(AngularDistance(tokens="all"), case).raw
    influence = scores_of(BlockInfluence(), case, "layer").raw
    assert min(angles, key=angles.get) == min(influence, key=influence.get)
    # Token by token the one is a function of the other: d = arccos(1 - bi) / pi at one token.
    model = plain(case)
    ids = tuple(tiny.windows(1, 2).input_ids[0].tolist())
    x, y = model.around(ids, "1.layer")
    cos = (x[-1] * y[-1]).sum() / np.linalg.norm(x[-1]) / np.linalg.norm(y[-1])
    one = scores_of(AngularDistance(), case, windows=tiny.windows(1, 2))
    assert one.raw[BlockId(1, "layer")] == pytest.approx(math.acos(cos) / math.pi, rel=1e-4)


def test_cos_win_is_from_0_to_1_and_falls_as_a_run_grows_along_one_way():
    x = np.stack([[math.cos(a), math.sin(a)] for a in (0.0, 0.3, 0.9, 2.0)])[:, None]
    windows = of_streams(WindowCosine(), x).windows
    from_first = [windows[0, n] for n in (1, 2, 3)]
    assert all(a > b for a, b in pairwise(from_first)) and min(windows.values()) >= 0
    assert from_first == pytest.approx([(1 + math.cos(a)) / 2 for a in (0.3, 0.9, 2.0)])


def test_long_windows_are_added_up_in_parts():
    x = np.random.default_rng(2).normal(size=(3, 300, 16))
    mean, angle = mean_cosines(torch.tensor(x, dtype=torch.float32))
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    cosines = np.einsum("inc,jnc->ijn", unit, unit).clip(-1, 1)
    np.testing.assert_allclose(mean, cosines.mean(-1), atol=1e-6)
    np.testing.assert_allclose(angle, np.arccos(cosines).mean(-1) / np.pi, atol=1e-6)


def test_metrics_of_the_same_cosines_ask_for_them_once():
    assert AngularDistance(tokens="all").passes() == WindowCosine().passes()
    assert AngularDistance().passes() == (LayerCosines("last"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ang_win:tokens=first", r"Use last, all\."),
        ("cos_win:cos_axis=head", r"Use token, channel\."),
        ("cos_win:tokens=all", r"cos_win has no setting 'tokens=all'\. Its parameters: cos_axis"),
    ],
)
def test_other_settings_are_refused(text: str, message: str):
    with pytest.raises(BadInput, match=message):
        parse_metric(text)


# --- in a search ----------------------------------------------------------------------------------


def _cosine_kept(x: np.ndarray, y: np.ndarray) -> float:
    return float(cosine(x, y).mean())


def _angle_turned(x: np.ndarray, y: np.ndarray) -> float:
    return math.acos(float(cosine(x[-1], y[-1]))) / math.pi


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    ("text", "measure", "best"), [("cos_win", _cosine_kept, max), ("ang_win", _angle_turned, min)]
)
def test_the_run_that_goes_is_the_one_that_changes_the_stream_least(text, measure, best, n: int):
    """The highest cosine, the lowest distance: worked out from the streams of a plain forward."""
    model = plain("llama")
    found = {
        first: np.mean([
            measure(
                model.around(ids, f"{first}.layer")[0],
                model.around(ids, f"{first + n - 1}.layer")[1],
            )
            for ids in rows()
        ])
        for first in range(tiny.LAYERS - n + 1)
    }  # fmt: skip
    assert len(set(found.values())) == len(found) > 1
    chosen = best(found, key=found.get)
    request = SearchRequest(strategy="window", unit="layer", blocks=n, scores=text)
    done = run(search_windows(shared("llama"), WINDOWS, request))
    assert done.best.removed == tuple(BlockId(chosen + i, "layer") for i in range(n))
