"""CKA: by hand, against the form over features, and by its invariances."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from metric_checks import CHECKS, FAMILIES, WINDOWS, linear_cka, rows, scores_of, shared

from blockviz.engine import sweep
from blockviz.errors import BadInput
from blockviz.metrics import parse_metric
from blockviz.metrics.cka import Similarity
from blockviz.stats import StreamCka
from blockviz.stats.gram import centred_gram
from blockviz.types import BlockId, CalibrationSet, run

pytestmark = pytest.mark.usefixtures("one_thread")


def cka(x: object, y: object) -> float:
    """The inner product of the two centred Gram matrices, as the metric takes it."""
    grams = [centred_gram(torch.as_tensor(np.asarray(v), dtype=torch.float32)) for v in (x, y)]
    return float((grams[0].double() * grams[1].double()).sum())


def random_rows(n: int = 60, size: int = 12, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, size))


# --- by hand --------------------------------------------------------------------------------------


def test_cka_by_hand():
    # One feature each, centred: x = (-1, 0, 1), y = (1, -2, 1). x.y = 0: nothing in common.
    x, y = [[0], [1], [2]], [[1], [-2], [1]]
    assert cka(x, y) == pytest.approx(0, abs=1e-7)
    # x = (-1, 0, 1), z = (-1, -1, 2): (x.z)^2 / (|x|^2 |z|^2) = 9 / (2 * 6).
    assert cka(x, [[0], [0], [3]]) == pytest.approx(0.75)


def test_the_gram_form_is_the_form_over_features():
    """Fewer samples than features, and more; noise of a thousandth leaves a similarity below 1."""
    for n, size in ((20, 50), (200, 8)):
        x = random_rows(n, size)
        for scale in (1.0, 1e-3):
            y = x + scale * random_rows(n, size, seed=1)
            assert 1 - cka(x, y) == pytest.approx(1 - linear_cka(x, y), rel=1e-3, abs=1e-7)


# --- against the library's own model --------------------------------------------------------------


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("unit", ["block", "layer", "attn", "mlp"])
def test_cka_equals_numpy_on_every_family(case: str, unit: str):
    CHECKS["cka"](Similarity(), case, unit)


@pytest.mark.parametrize("text", ["cka:n_rows=10", "cka:n_rows=63", "cka:rows=sequences"])
@pytest.mark.parametrize("case", ["llama", "neox"])
def test_other_samples_equal_numpy(text: str, case: str):
    metric = parse_metric(text)
    CHECKS["cka"](metric, case)


def test_samples_are_thinned_out_evenly_over_all_windows():
    """Seven of 64 tokens: every tenth and a half, the first and the last among them."""
    seven = StreamCka(n_rows=7)
    running = seven.start(shared("llama"), (), WINDOWS)
    assert running._is_wanted.nonzero()[:, 0].tolist() == [0, 10, 21, 32, 42, 52, 63]
    all_of_them = StreamCka(n_rows=64).start(shared("llama"), (), WINDOWS)
    assert all_of_them._is_wanted.all()


@pytest.mark.parametrize("asked", [StreamCka(), StreamCka(n_rows=9), StreamCka("sequences")])
def test_the_same_samples_whatever_the_batches(asked: StreamCka):
    model = shared("gemma3")
    found = []
    for batch_tokens in (1, 1000):
        events = sweep(
            model,
            WINDOWS,
            (),
            candidates=(),
            passes={asked: model.info.units("block")},
            batch_tokens=batch_tokens,
        )
        found.append(run(events).statistics.passes[asked])
    torch.testing.assert_close(found[0]["layers"], found[1]["layers"], rtol=0, atol=1e-5)
    assert found[0]["blocks"] == pytest.approx(found[1]["blocks"], abs=1e-5)


# --- the map --------------------------------------------------------------------------------------


def test_the_map_has_every_layer_and_agrees_with_the_scores_of_layers():
    scores = scores_of(Similarity(), unit="layer")
    table = np.array(scores.matrix.values)
    assert table.shape == (5, 5) and scores.matrix.labels == ("0", "1", "2", "3", "4")
    np.testing.assert_allclose(table, table.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(table), 1, atol=1e-6)
    for layer in range(tiny.LAYERS):
        score = scores.raw[BlockId(layer, "layer")]
        assert score == pytest.approx(1 - table[layer, layer + 1], abs=1e-9)
    assert scores.stderr is None and scores.per_window is None


def test_the_map_is_the_same_for_every_unit():
    tables = {unit: scores_of(Similarity(), unit=unit).matrix for unit in ("block", "layer", "mlp")}
    assert len(set(tables.values())) == 1


# --- laws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", ["tokens", "sequences"])
@pytest.mark.parametrize("case", FAMILIES)
def test_t_cka_1_it_is_1_with_itself_and_from_0_to_1(case: str, rows: str):
    scores = scores_of(Similarity(rows=rows), case)
    table = np.array(scores.matrix.values)
    np.testing.assert_allclose(np.diag(table), 1, atol=1e-6)
    assert table.min() >= 0 and table.max() <= 1
    assert all(0 <= v <= 1 for v in scores.raw.values())
    x = random_rows()
    assert cka(x, x) == pytest.approx(1, abs=1e-7)
    assert 0 < cka(x, random_rows(seed=1)) < 0.5


@pytest.mark.parametrize("case", FAMILIES)
def test_t_cka_1_a_block_that_adds_nothing_changes_nothing(case: str):
    block = BlockId(1, "mlp")
    with tiny.zeroed(shared(case), case, (block,)):
        scores = scores_of(Similarity(), case)
    assert scores.raw[block] == pytest.approx(0, abs=1e-6)
    assert min(v for b, v in scores.raw.items() if b != block) > 1e-4


def test_t_cka_2_turns_scales_and_shifts_are_not_seen():
    x, y = random_rows(), random_rows(seed=1) + 0.5 * random_rows()
    turn, _ = np.linalg.qr(random_rows(12, 12, seed=2))
    before = cka(x, y)
    for changed in (x @ turn, 7 * x, x + np.arange(12) * 3.0, -x):
        assert cka(changed, y) == pytest.approx(before, abs=1e-5)
        assert cka(y, changed) == pytest.approx(before, abs=1e-5)
    stretched = x * np.linspace(0.1, 5, 12)  # every channel by another factor: this is seen
    assert abs(cka(stretched, y) - before) > 0.01
    moved = x + np.linspace(0, 5, 60)[:, None]  # another shift for every sample: this too
    assert abs(cka(moved, y) - before) > 0.01


def test_streams_that_are_all_equal_have_nothing_in_common():
    x = np.ones((9, 4))
    assert cka(x, x) == cka(x, random_rows(9, 4)) == 0


# --- what is refused ------------------------------------------------------------------------------


def cut(n_windows: int) -> CalibrationSet:
    return replace(
        WINDOWS,
        input_ids=WINDOWS.input_ids[:n_windows],
        attention_mask=WINDOWS.attention_mask[:n_windows],
    )


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_windows_to_compare(n: int):
    """Two centred samples are each other's negative: every stream would look like any other."""
    with pytest.raises(BadInput, match=rf"with sequences as samples\. Their number is {n}, .*3"):
        scores_of(Similarity(rows="sequences"), windows=cut(n))
    assert scores_of(Similarity(), windows=cut(n)).raw
    assert len(rows(cut(n))) == n


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cka:rows=words", r"Use tokens, sequences\."),
        ("cka:n_rows=2", r"n_rows must be from 3 to 8192\."),
        ("cka:n_rows=8193", r"n_rows must be from 3 to 8192\."),
    ],
)
def test_other_settings_are_refused(text: str, message: str):
    with pytest.raises(BadInput, match=message):
        parse_metric(text)


@pytest.mark.parametrize("rows", ["tokens", "sequences"])
def test_a_model_that_gives_no_numbers_is_refused(rows: str):
    weight = shared("llama").part(BlockId(1, "mlp")).down_proj.weight
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] = math.nan
        with pytest.raises(BadInput, match=r"cka is not finite for 1\.mlp, 2\.attn"):
            scores_of(Similarity(rows=rows))
    finally:
        with torch.no_grad():
            weight.copy_(before)
