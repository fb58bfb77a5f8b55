"""What pairs foretell: exact where it must be, fitted as a loop would, silent where unknown."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from blockviz.rankings import StandIn, Surrogate, clustered, is_clear, stand_ins
from blockviz.types import BlockId, Interactions, Provenance

PROVENANCE = Provenance(None, "tiny", "1", "", "float32", "cpu", 1, {})
A, B, C, D = (BlockId(i, part) for i in (0, 1) for part in ("attn", "mlp"))


def measured_by(loss, blocks, stderr=0.0) -> Interactions:
    """Interactions of a loss over sets, by their definition."""
    whole = loss(frozenset())
    return Interactions(
        PROVENANCE,
        whole,
        {b: loss(frozenset([b])) - whole for b in blocks},
        {
            (a, b): loss(frozenset([a, b])) - loss(frozenset([a])) - loss(frozenset([b])) + whole
            for a, b in combinations(sorted(blocks), 2)
        },
        dict.fromkeys(combinations(sorted(blocks), 2), stderr),
        8,
    )


def by_hand(**more) -> Interactions:
    singles = {A: 0.1, B: 0.2, C: 0.3}
    pairs = {(A, B): 0.01, (A, C): -0.02, (B, C): 0.04}
    stderr = {(A, B): 0.003, (A, C): 0.004, (B, C): 0.0}
    return replace(Interactions(PROVENANCE, 2.0, singles, pairs, stderr, 8), **more)


def sets_of(blocks, n: int, seed: int = 0) -> list[frozenset[BlockId]]:
    draw = np.random.default_rng(seed)
    found: dict[frozenset[BlockId], None] = {}
    while len(found) < n:
        size = int(draw.integers(3, 6))
        picked = draw.choice(len(blocks), size=size, replace=False)
        found[frozenset(blocks[i] for i in picked)] = None
    return list(found)


def random_interactions(seed: int = 0) -> tuple[Interactions, list[BlockId]]:
    draw = np.random.default_rng(seed)
    blocks = [BlockId(i, part) for i in range(4) for part in ("attn", "mlp")]
    both = list(combinations(blocks, 2))
    return (
        Interactions(
            PROVENANCE, 2.5, {b: float(draw.uniform(0, 0.3)) for b in blocks},
            {p: float(draw.normal(0, 0.1)) for p in both}, dict.fromkeys(both, 0.01), 8,
        ),
        blocks,
    )  # fmt: skip


# Predictions


@pytest.mark.parametrize(
    ("removed", "nll", "stderr"),
    [
        ((), 2.0, 0.0),
        ((B,), 2.2, 0.0),
        ((C, A), 2.0 + 0.1 + 0.3 - 0.02, 0.004),
        # Errors of pairs 0.003 and 0.004 make 0.005; unfitted, all of 0.01 + 0.02 + 0.04 is doubt.
        ((A, B, C), 2.0 + 0.6 + 0.03, math.hypot(0.005, 0.07)),
    ],
)
def test_a_prediction_worked_by_hand(removed, nll, stderr):
    found = Surrogate(by_hand()).predict(frozenset(removed))
    assert found.nll == pytest.approx(nll)
    assert found.stderr == pytest.approx(stderr)
    assert found.perplexity == pytest.approx(math.exp(nll))
    assert found.perplexity_at(-2) == pytest.approx(math.exp(nll - 2 * stderr))


def test_a_loss_of_second_order_is_foretold_exactly_for_every_set():
    draw = np.random.default_rng(3)
    blocks = [BlockId(i, part) for i in range(3) for part in ("attn", "mlp")]
    linear, square = draw.normal(size=6), draw.normal(size=(6, 6))

    def loss(removed):
        x = np.array([b in removed for b in blocks], dtype=float)
        return float(4 + linear @ x + x @ square @ x)

    surrogate = Surrogate(measured_by(loss, blocks))
    for n in range(7):
        for removed in combinations(blocks, n):
            assert surrogate.predict(removed).nll == pytest.approx(loss(frozenset(removed)))


def test_layers_are_units_of_their_own():
    layers = [BlockId(i, "layer") for i in range(3)]
    surrogate = Surrogate(measured_by(lambda s: 1.0 + len(s) ** 2, layers))
    both = frozenset(part for layer in layers[:2] for part in layer.parts)
    assert surrogate.predict(both).nll == pytest.approx(5)
    assert surrogate.predict(layers[:2]).nll == pytest.approx(5)
    assert surrogate.predict([*layers[0].parts, BlockId(2, "attn")]) is None


def test_what_was_not_measured_is_not_foretold():
    assert Surrogate(by_hand()).predict([A, D]) is None
    partial = by_hand(pairs={(A, B): 0.01}, stderr={(A, B): 0.003}, is_partial=True)
    assert Surrogate(partial).predict([A, B]) is not None
    assert Surrogate(partial).predict([A, B, C]) is None


def test_a_ruinous_prediction_stays_a_number():
    ruin = Surrogate(by_hand(singles={A: 5000.0, B: 0.0, C: 0.0})).predict([A])
    assert math.isfinite(ruin.perplexity)


# The fit


def test_the_scale_of_pairs_is_found_again():
    known, blocks = random_interactions()
    plain = Surrogate(known)
    half = {}
    for removed in sets_of(blocks, 12):
        first = known.whole + sum(known.singles[b] for b in removed)
        half[removed] = first + 0.5 * (plain.predict(removed).nll - first)
    found = plain.fitted(half)
    assert found.scale == pytest.approx(0.5)
    assert found.spread == pytest.approx(0, abs=1e-12)
    assert found.n_sets == 12
    for removed, loss in half.items():
        assert found.predict(removed).nll == pytest.approx(loss)
    pair = blocks[:2]
    assert found.predict(pair) == plain.predict(pair)


def test_the_errors_are_those_of_fits_without_the_set():
    known, blocks = random_interactions(1)
    draw = np.random.default_rng(1)
    plain = Surrogate(known)
    measured = {s: plain.predict(s).nll + float(draw.normal(0, 0.2)) for s in sets_of(blocks, 9)}
    shares, nats = [], []
    for left_out, loss in measured.items():
        rest = {s: v for s, v in measured.items() if s != left_out}
        miss = loss - plain.fitted(rest).predict(left_out).nll
        stake = sum(abs(known.pairs[p]) for p in combinations(sorted(left_out), 2))
        shares.append(miss / stake)
        nats.append(miss)
    found = plain.fitted(measured)
    assert found.spread == pytest.approx(np.sqrt(np.mean(np.square(shares))))
    assert found.error == pytest.approx(np.sqrt(np.mean(np.square(nats))))
    removed = next(iter(measured))
    pairs = list(combinations(sorted(removed), 2))
    stake = sum(abs(known.pairs[p]) for p in pairs)
    of_pairs = found.scale * 0.01 * math.sqrt(len(pairs))
    assert found.predict(removed).stderr == pytest.approx(
        math.hypot(of_pairs, found.spread * stake)
    )


def test_a_fit_passes_over_what_says_nothing():
    known, blocks = random_interactions(2)
    plain = Surrogate(known)
    good = {s: plain.predict(s).nll + 0.1 * len(s) for s in sets_of(blocks, 6)}
    useless = {
        frozenset(blocks[:2]): 99.0,
        frozenset(blocks[:3]): math.inf,
        frozenset(blocks[:4]): math.nan,
        frozenset([*blocks[:2], BlockId(40, "attn")]): 99.0,
    }
    good = {s: v for s, v in good.items() if s not in useless}
    assert plain.fitted({**good, **useless}) == plain.fitted(good)


def test_too_few_sets_fit_nothing():
    known, blocks = random_interactions(4)
    two = dict.fromkeys(sets_of(blocks, 2), 3.0)
    assert Surrogate(known).fitted(two) == Surrogate(known)
    additive = measured_by(lambda s: 1.0 + len(s), blocks)
    many = dict.fromkeys(sets_of(blocks, 5), 3.0)
    assert Surrogate(additive).fitted(many).scale == 1


# Orders


def test_orders_are_compared_as_scipy_does():
    known, blocks = random_interactions(5)
    draw = np.random.default_rng(5)
    surrogate = Surrogate(known)
    measured = {s: surrogate.predict(s).nll + float(draw.normal()) for s in sets_of(blocks, 15)}
    foretold = [surrogate.predict(s).nll for s in measured]
    found = surrogate.rank_agreement(measured)
    assert found.n_sets == 15
    assert found.tau == pytest.approx(kendalltau(foretold, [*measured.values()]).statistic)
    assert found.rho == pytest.approx(spearmanr(foretold, [*measured.values()]).statistic)
    perplexities = {s: math.exp(v) for s, v in measured.items()}
    assert surrogate.rank_agreement(perplexities) == found


def test_an_infinite_loss_is_the_worst_and_the_unknown_is_left_out():
    surrogate = Surrogate(by_hand())
    rising = {frozenset([A]): 1.0, frozenset([B]): 2.0, frozenset([A, B, C]): math.inf}
    unknown = {frozenset([D]): 0.0, frozenset([C]): math.nan}
    found = surrogate.rank_agreement({**rising, **unknown})
    assert (found.n_sets, found.tau, found.rho) == (3, 1.0, pytest.approx(1.0))
    assert surrogate.rank_agreement(dict.fromkeys(rising, 1.0)).tau is None
    assert surrogate.rank_agreement({frozenset([A]): 1.0}).tau is None
    assert surrogate.rank_agreement({}).n_sets == 0


# Who stands in for whom


@pytest.mark.parametrize(
    ("value", "stderr", "clear"),
    [(0.2, 0.1, True), (-0.2, 0.1, True), (0.19, 0.1, False), (0.0, 0.0, False),
     (0.1, math.nan, False), (0.1, math.inf, False), (0.1, 0.0, True)],
)  # fmt: skip
def test_two_errors_from_0_is_clear(value, stderr, clear):
    assert is_clear(value, stderr) is clear


def test_stand_ins_are_the_strongest_clear_positive_pairs():
    known = by_hand(
        singles=dict.fromkeys((A, B, C, D), 0.1),
        pairs={(A, B): 0.1, (A, C): 0.3, (A, D): -0.5, (B, C): 0.4, (B, D): 0.1, (C, D): 0.2},
        stderr={(A, B): 0.05, (A, C): 0.01, (A, D): 0.01, (B, C): 0.3, (B, D): 0.01, (C, D): 0.1},
    )
    assert stand_ins(known, 9) == (
        StandIn(A, C, 0.3, 0.01),
        StandIn(C, D, 0.2, 0.1),
        StandIn(A, B, 0.1, 0.05),
        StandIn(B, D, 0.1, 0.01),
    )
    assert stand_ins(known, 1) == (StandIn(A, C, 0.3, 0.01),)


def test_blocks_that_stand_in_for_each_other_stand_side_by_side():
    blocks = [BlockId(i, "mlp") for i in range(9)]
    draw = np.random.default_rng(0)
    pairs = {
        (a, b): float(draw.normal(0, 0.01)) + (0.5 if a.layer % 3 == b.layer % 3 else 0)
        for a, b in combinations(blocks, 2)
    }
    known = Interactions(
        PROVENANCE, 2.0, dict.fromkeys(blocks, 0.1), pairs, dict.fromkeys(pairs, 0.0), 8
    )
    order = clustered(known)
    assert sorted(order) == blocks
    groups = [{b.layer % 3 for b in order[i : i + 3]} for i in (0, 3, 6)]
    assert all(len(group) == 1 for group in groups)
    assert order[0] < order[-1]
    doubled = replace(known, pairs={p: 2 * v for p, v in pairs.items()})
    assert clustered(doubled) == order


def test_clusters_of_a_partial_run_hold_every_block_once():
    assert clustered(by_hand(pairs={(A, B): 0.5}, stderr={(A, B): 0.1})) in ((A, B, C), (B, A, C))
    assert clustered(by_hand(singles={A: 1.0}, pairs={}, stderr={})) == (A,)
