"""Drift of the output: norm, ang, kl and js by hand, against numpy, and by their laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from metric_checks import CHECKS, FAMILIES, divergence, log_softmax, scores_of, shared

from blockviz.errors import BadInput
from blockviz.metrics import parse_metric
from blockviz.metrics.drift import JensenShannon, KullbackLeibler, LogitAngle, LogitNorm
from blockviz.types import AblationTable, BlockId, Readout

pytestmark = pytest.mark.usefixtures("one_thread")

A = BlockId(0, "attn")
DRIFTS = ("norm", "ang", "kl", "js", "js:js_variant=finercut_code")
drifts = pytest.mark.parametrize("text", DRIFTS)


def readouts(dense: object, now: object) -> tuple[Readout, Readout]:
    """(dense, masked) readouts of (position, vocab) logits; the second knows the first."""
    made = []
    for logits in (dense, now):
        z = torch.as_tensor(np.asarray(logits), dtype=torch.float32)
        n = len(z)
        nothing = torch.zeros(n)
        made.append(Readout(z, nothing, nothing.long(), torch.ones(n, dtype=torch.bool)))
    return replace(made[0], dense=made[0]), replace(made[1], dense=made[0])


def measured(metric: object, dense: object, now: object) -> list[float]:
    """The number of each position."""
    first, second = readouts(dense, now)
    return metric.per_position(second, metric.remember(first)).tolist()


def logits(*chances: list[float]) -> np.ndarray:
    """Logits of these probabilities, shifted by something else at each position."""
    return np.log(np.array(chances)) + np.arange(len(chances))[:, None] * 3.0


# --- by hand --------------------------------------------------------------------------------------


def test_norm_by_hand():
    # Window 1: differences (3, 0) and (0, 4): Frobenius norm 5. Window 2: (0, 1) and nothing: 1.
    squares = measured(
        LogitNorm(), [[1, 1], [2, 2], [0, 0], [5, 5]], [[4, 1], [2, 6], [0, 1], [5, 5]]
    )
    assert squares == [9, 16, 1, 0]
    windows = torch.tensor(squares, dtype=torch.float64).view(2, 2).mean(dim=1)
    table = AblationTable(
        baseline=torch.zeros(2, dtype=torch.float64),
        values={A: windows},
        counts=torch.tensor([2.0, 2.0], dtype=torch.float64),
    )
    scores = LogitNorm().score(table)
    assert scores.raw[A] == scores.values[A] == pytest.approx(3)
    assert scores.per_window[A] == pytest.approx((5, 1))
    assert scores.stderr[A] == pytest.approx(2)  # 5 and 1 around 3


def test_ang_by_hand():
    # (1, 1) to (0, 2): 45 degrees. (3, 0) to (-1, 0): 180 degrees, cut off at a right angle.
    found = measured(LogitAngle(), [[1, 1], [3, 0], [2, 5]], [[0, 2], [-1, 0], [20, 50]])
    assert found == pytest.approx([math.pi / 4, math.pi / 2, 0], abs=1e-6)


def test_kl_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4): KL(p | q) = ln 2 / 2 + ln(2/3) / 2; KL(q | p) is another.
    p, q = [0.5, 0.5], [0.25, 0.75]
    found = measured(KullbackLeibler(), logits(p, q), logits(q, p))
    there = (math.log(2) + math.log(2 / 3)) / 2
    back = (math.log(1 / 2) + 3 * math.log(3 / 2)) / 4
    assert found == pytest.approx([there, back], rel=1e-5)


def test_js_by_hand_in_both_variants():
    # p = (3/4, 1/4), q = (1/4, 3/4), m = (1/2, 1/2).
    p, q = [0.75, 0.25], [0.25, 0.75]
    to_middle = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    from_middle = (math.log(2 / 3) + math.log(2)) / 2
    assert measured(JensenShannon(), logits(p), logits(q)) == pytest.approx([to_middle], rel=1e-5)
    code = JensenShannon(js_variant="finercut_code")
    assert measured(code, logits(p), logits(q)) == pytest.approx([from_middle], rel=1e-5)


# --- against the library's own model, one window at a time ----------------------------------------


@drifts
@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("unit", ["block", "layer"])
def test_drift_equals_numpy_on_every_family(text: str, case: str, unit: str):
    metric = parse_metric(text)
    CHECKS[metric.name](metric, case, unit)


# --- laws -----------------------------------------------------------------------------------------


def random_logits(seed: int, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(50, 64)) * scale


@drifts
@pytest.mark.parametrize("case", FAMILIES)
def test_t_fc_1_a_block_that_adds_nothing_drifts_nowhere(text: str, case: str):
    model = shared(case)
    block = BlockId(1, "mlp")
    with tiny.zeroed(model, case, (block,)):
        scores = scores_of(parse_metric(text), case)
    # A norm after the block may add its own bias; in these families it has none.
    assert scores.raw[block] == pytest.approx(0, abs=2e-6)
    assert min(v for b, v in scores.raw.items() if b != block) > 1e-4
    assert scores.ranks()[block] == 1


@drifts
def test_t_fc_1_the_same_logits_are_no_drift(text: str):
    z = random_logits(0)
    assert max(measured(parse_metric(text), z, z)) <= 1e-6
    shifted = measured(parse_metric(text), z, z + 7)
    is_seen = text in ("norm", "ang")  # distributions do not know of a shift of all logits
    assert (max(shifted) > 0.1) == is_seen


@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_t_fc_2_js_is_symmetric_and_at_most_ln_2(scale: float):
    one, two = random_logits(1, scale), random_logits(2, scale)
    there, back = measured(JensenShannon(), one, two), measured(JensenShannon(), two, one)
    assert there == pytest.approx(back, abs=1e-6)
    assert min(there) >= 0 and max(there) <= math.log(2) + 1e-7
    sure = 60.0 * np.eye(64)[:50]
    other = 60.0 * np.eye(64)[1:51]
    assert measured(JensenShannon(), sure, other) == pytest.approx([math.log(2)] * 50, rel=1e-5)


def test_t_fc_2_the_published_variant_has_no_bound():
    code = JensenShannon(js_variant="finercut_code")
    assert max(measured(code, random_logits(1, 40.0), random_logits(2, 40.0))) > 2


@pytest.mark.parametrize("scale", [1e-4, 0.1, 3.0, 40.0])
def test_t_fc_3_kl_is_never_below_zero(scale: float):
    one, two = random_logits(3, scale), random_logits(4, scale)
    assert min(measured(KullbackLeibler(), one, two)) >= 0


def test_t_fc_4_angles_are_from_none_to_a_right_one():
    found = measured(LogitAngle(), random_logits(5), random_logits(6))
    assert min(found) >= 0 and max(found) <= math.pi / 2 + 1e-7
    assert max(found) == pytest.approx(math.pi / 2)  # some random vectors point apart


@pytest.mark.parametrize("scale", [1e-3, 1e-2, 1.0])
@pytest.mark.parametrize("variant", ["kl", "js", "js:js_variant=finercut_code"])
def test_small_divergences_of_large_logits_keep_their_digits(variant: str, scale: float):
    """Differences of entropies would be off by 1e-4 here, far more than the smallest of these."""
    one = np.float32(random_logits(8, 30.0)).astype(float)
    two = np.float32(one + scale * random_logits(9, 1.0)).astype(float)
    p, q = (np.exp(log_softmax(z)) for z in (one, two))
    m = (p + q) / 2
    exact = {
        "kl": divergence(p, q),
        "js": (divergence(p, m) + divergence(q, m)) / 2,
        "js:js_variant=finercut_code": (divergence(m, p) + divergence(m, q)) / 2,
    }[variant]
    found = measured(parse_metric(variant), one, two)
    # In KL the first order cancels between words, which costs it digits that JS keeps.
    rounding = 2e-6 if variant == "kl" else 1e-9
    assert float(np.mean(found)) == pytest.approx(float(exact.mean()), rel=1e-3, abs=rounding)


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("angle", [1e-4, 1e-3, 0.1, 1.0])
def test_a_small_angle_keeps_its_digits(angle: float, length: float):
    """Its cosine would not: cos(1e-4) is 1 in float32."""
    z = random_logits(7)
    turned = z.copy()
    turned[:, 0] = z[:, 0] * math.cos(angle) - z[:, 1] * math.sin(angle)
    turned[:, 1] = z[:, 0] * math.sin(angle) + z[:, 1] * math.cos(angle)
    exact = np.arccos(
        (z * turned).sum(-1) / np.linalg.norm(z, axis=-1) / np.linalg.norm(turned, axis=-1)
    )
    found = measured(LogitAngle(), z, length * turned)
    assert float(np.mean(found)) == pytest.approx(float(exact.mean()), rel=5e-3)


def test_an_unknown_variant_is_refused():
    with pytest.raises(BadInput, match=r"Use standard, finercut_code\."):
        parse_metric("js:js_variant=published")
