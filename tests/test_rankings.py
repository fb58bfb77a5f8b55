"""What several rankings say together: ties, agreement, stability, and who is right."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from blockviz.errors import BadInput
from blockviz.rankings import (
    Between,
    MetricVerdict,
    Stability,
    agreement,
    between,
    disagreement,
    rank_intervals,
    tau_b,
    tied_with,
    unit_of,
    verdicts,
    window_stability,
)
from blockviz.types import BlockId, Judgement, Measured, Provenance, Scores, ScoreTable

MODEL = Provenance(None, "small", "abc", "", "float32", "cpu", 2, {})


def ids(n: int) -> list[BlockId]:
    """n blocks in order of depth: 0.attn, 0.mlp, 1.attn, ..."""
    return [BlockId(i // 2, ("attn", "mlp")[i % 2]) for i in range(n)]


def layers(n: int) -> list[BlockId]:
    return [BlockId(i, "layer") for i in range(n)]


def scored(values: Sequence[float], blocks: Sequence[BlockId] | None = None, **more) -> Scores:
    named = dict(zip(blocks or ids(len(values)), map(float, values), strict=True))
    return Scores(metric="m", title="M", values=named, raw=named, **more)


def from_windows(rows: Sequence[Sequence[float]] | np.ndarray) -> Scores:
    """Scores of (block, window) numbers: each block's value is the mean of its windows."""
    rows = np.asarray(rows, dtype=float)
    per_window = {b: tuple(row.tolist()) for b, row in zip(ids(len(rows)), rows, strict=True)}
    return scored(rows.mean(axis=1).tolist(), per_window=per_window)


def table(provenance: Provenance = MODEL, **metrics: Scores) -> ScoreTable:
    named = {n: replace(s, metric=n, title=n.upper()) for n, s in metrics.items()}
    return ScoreTable(provenance, named)


def refused(error: BadInput) -> bool:
    """Has it three sentences, each of which ends?"""
    return all(text.strip().endswith((".", "?")) for text in (error.asked, error.found, error.todo))


# --- Kendall's tau-b ------------------------------------------------------------------------------


def test_tau_by_hand():
    """1 2 3 against 1 3 2: pairs (1,2) and (1,3) alike, (2,3) not, so (2 - 1) / 3."""
    assert tau_b(np.array([[1.0, 2, 3]]), np.array([[1.0, 3, 2]]))[0, 0] == pytest.approx(1 / 3)


def test_tau_with_a_tie_by_hand():
    """1 1 2 against 1 2 3: two pairs alike, one tied on one side: 2 / sqrt(2 * 3)."""
    tau = tau_b(np.array([[1.0, 1, 2]]), np.array([[1.0, 2, 3]]))[0, 0]
    assert tau == pytest.approx(2 / math.sqrt(6))


def test_tau_is_scipy_s_for_ties_and_for_gaps():
    draw = np.random.default_rng(0)
    one = draw.integers(0, 6, size=(6, 31)).astype(float)
    other = draw.normal(size=(5, 31)).round(1)
    one[draw.random(one.shape) < 0.2] = np.nan
    other[draw.random(other.shape) < 0.2] = np.nan
    found = tau_b(one, other)
    for i, x in enumerate(one):
        for j, y in enumerate(other):
            both = np.isfinite(x) & np.isfinite(y)
            assert found[i, j] == pytest.approx(stats.kendalltau(x[both], y[both]).statistic)


def test_a_loss_beyond_all_numbers_is_the_largest():
    assert tau_b(np.array([[1.0, 2, 3]]), np.array([[5.0, 6, np.inf]]))[0, 0] == 1


def test_what_orders_nothing_has_no_tau():
    flat, short, rising = [2.0, 2, 2, 2], [1.0, 2, np.nan, np.nan], [1.0, 2, 3, 4]
    found = tau_b(np.array([flat, short, rising]), np.array([rising]))[:, 0]
    assert np.isnan(found[:2]).all()
    assert found[2] == 1


# --- rank intervals -------------------------------------------------------------------------------


def test_separated_blocks_have_one_rank_each():
    rows = [[3.0, 3.1, 3.2], [1.0, 1.1, 1.0], [2.0, 2.1, 2.05]]
    assert rank_intervals(from_windows(rows)) == dict(
        zip(ids(3), [(3, 3), (1, 1), (2, 2)], strict=True)
    )


def test_identical_blocks_could_have_any_rank():
    rows = [[0.1, 0.7, 0.4, 0.3]] * 5
    assert set(rank_intervals(from_windows(rows)).values()) == {(1, 5)}
    assert tied_with(from_windows(rows), ids(5)[2]) == tuple(ids(5)[i] for i in (0, 4, 1, 3))


def test_the_paired_test_by_hand():
    """Differences 1, 2, 3: mean 2, deviation 1, t = 2 * sqrt(3) = 3.46.

    Limits of two degrees of freedom: 2.92 at 0.90, 3.90 at 0.94, 4.30 at 0.95.
    """
    scores = from_windows([[1.0, 2, 3], [0.0, 0, 0]])
    assert set(rank_intervals(scores, level=0.95).values()) == {(1, 2)}
    assert set(rank_intervals(scores, level=0.94).values()) == {(1, 2)}
    assert list(rank_intervals(scores, level=0.90).values()) == [(2, 2), (1, 1)]


def test_pairing_takes_the_noise_of_the_text_away():
    """Two blocks that move together from window to window by 10, and differ by 0.1 in each."""
    text = np.array([0.0, 10, 20, 5])
    paired = from_windows([text, text + 0.1 + 0.01 * np.array([1, -1, 1, -1])])
    assert list(rank_intervals(paired).values()) == [(1, 1), (2, 2)]
    errors = dict.fromkeys(paired.values, 4.0)
    alone = replace(paired, per_window=None, stderr=errors)
    assert set(rank_intervals(alone).values()) == {(1, 2)}


@pytest.mark.parametrize("gap", [0.1, 1 / 3, 1e-9])
def test_a_difference_that_never_changes_is_certain(gap: float):
    text = np.array([0.3, 0.7, 0.11, 0.5])
    assert list(rank_intervals(from_windows([text, text + gap])).values()) == [(1, 1), (2, 2)]


def test_unpaired_errors_by_hand():
    """Errors 3 and 4 make one of 5 for the difference: limit 1.96 * 5 = 9.8."""
    errors = dict(zip(ids(2), (3.0, 4.0), strict=True))
    assert list(rank_intervals(scored([0, 9.7], stderr=errors)).values()) == [(1, 2), (1, 2)]
    assert list(rank_intervals(scored([0, 9.9], stderr=errors)).values()) == [(1, 1), (2, 2)]


def test_without_an_error_there_is_no_interval():
    plain = scored([1, 2, 3])
    one_window = from_windows([[1.0], [2.0], [3.0]])
    no_error = replace(one_window, stderr=dict.fromkeys(ids(3), 0.0))
    some = replace(plain, stderr={ids(3)[0]: 1.0})
    ragged = replace(plain, per_window=dict(zip(ids(3), [(1, 1), (2, 2), (3,)], strict=True)))
    for scores in (plain, one_window, no_error, some, ragged):
        assert rank_intervals(scores) is None
        assert tied_with(scores, ids(3)[0]) is None


def test_tied_blocks_come_lowest_first_and_ties_do_not_carry_over():
    errors = dict.fromkeys(ids(3), 1.0)
    scores = scored([4.0, 0.0, 2.0], stderr=errors)  # limit 1.96 * sqrt(2) = 2.77
    first, second, third = ids(3)
    assert tied_with(scores, third) == (second, first)
    assert tied_with(scores, second) == (third,)
    assert rank_intervals(scores) == {first: (2, 3), second: (1, 2), third: (1, 3)}


def test_doubled_noise_never_narrows():
    draw = np.random.default_rng(5)
    rows = draw.normal(size=(20, 1)) + 0.6 * draw.normal(size=(20, 12))
    middle = rows.mean(axis=1, keepdims=True)
    calm, noisy = (
        rank_intervals(from_windows(middle + scale * (rows - middle))) for scale in (1, 2)
    )
    assert all(noisy[b][0] <= calm[b][0] <= calm[b][1] <= noisy[b][1] for b in calm)
    assert noisy != calm


def test_a_rank_lies_in_its_interval_even_where_windows_and_values_disagree():
    """A mean weighted by tokens may order two blocks unlike the mean of their windows."""
    scores = replace(
        from_windows([[1.0, 1.0], [2.0, 2.0]]), values={ids(2)[0]: 5.0, ids(2)[1]: 4.0}
    )
    assert set(rank_intervals(scores).values()) == {(1, 2)}


def test_the_true_rank_is_covered():
    """300 tables of 12 blocks in a known order, some a hair apart, some far: 95 % or more."""
    draw = np.random.default_rng(11)
    truth = np.array([0, 0.02, 0.05, 0.3, 0.32, 0.6, 1.0, 1.01, 1.5, 2.0, 2.02, 4.0])
    n_covered = np.zeros(12)
    n_points = 0
    for _ in range(300):
        text = draw.normal(size=(1, 16))
        rows = truth[:, None] + text + 0.5 * draw.normal(size=(12, 16))
        intervals = list(rank_intervals(from_windows(rows)).values())
        n_covered += [low <= i <= high for i, (low, high) in enumerate(intervals, 1)]
        n_points += sum(low == high for low, high in intervals)
    assert (n_covered / 300 >= 0.95).all(), n_covered / 300
    assert n_points > 300  # the far ones are told apart: intervals are not merely wide


def test_a_level_that_is_none_is_refused():
    for level in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(BadInput, match="between 0 and 1") as caught:
            rank_intervals(scored([1, 2]), level=level)
        assert refused(caught.value)


def test_ties_of_an_unscored_block_are_refused():
    with pytest.raises(BadInput, match=r"M has no score for 7\.mlp\..*such as 0\.attn") as caught:
        tied_with(scored([1, 2]), BlockId(7, "mlp"))
    assert refused(caught.value)


# --- agreement ------------------------------------------------------------------------------------


def test_agreement_with_itself_and_with_its_reverse():
    found = agreement(table(up=scored([1, 2, 3, 4]), down=scored([4, 3, 2, 1])))
    assert found.tau.tolist() == [[1, -1], [-1, 1]]
    assert found.n_common.tolist() == [[4, 4], [4, 4]]
    assert (found.metrics, found.titles) == (("up", "down"), ("UP", "DOWN"))
    assert found.groups == ((0,), (1,))


@pytest.mark.parametrize("names", list(permutations("aAbB")))
def test_like_metrics_stand_together(names: tuple[str, ...]):
    """Two pairs of near twins, a and A against b and B, in whatever order the table has them."""
    rankings = {
        "a": scored([1, 2, 3, 4, 5, 6]),
        "A": scored([1, 2, 3, 4, 6, 5]),
        "b": scored([6, 5, 4, 3, 2, 1]),
        "B": scored([6, 5, 4, 3, 1, 2]),
    }
    found = agreement(table(**{name: rankings[name] for name in names}))
    assert found.order == tuple(i for group in found.groups for i in group)
    together = {frozenset(found.metrics[i] for i in group) for group in found.groups}
    assert together == {frozenset("aA"), frozenset("bB")}
    assert found.order[0] < found.order[-1]


def test_the_first_metric_of_the_two_ends_comes_first():
    """A tree may be read from either end; the table's order decides."""
    draw = np.random.default_rng(1)
    for _ in range(20):
        found = agreement(table(**{name: scored(draw.normal(size=8)) for name in "abcdef"}))
        assert found.order[0] < found.order[-1]
        assert sorted(found.order) == list(range(6))


def test_agreement_is_over_the_very_blocks_both_score():
    """Over the three shared attention blocks, 2 of 3 pairs are alike: 1/3. MLPs do not count."""
    attn = [BlockId(i, "attn") for i in range(3)]
    found = agreement(table(all=scored([1, 99, 2, -99, 3, 0]), attn=scored([1, 3, 2], attn)))
    assert found.tau[0, 1] == pytest.approx(1 / 3)
    assert found.n_common.tolist() == [[6, 3], [3, 3]]


def test_layers_and_blocks_have_no_agreement():
    found = agreement(table(block=scored([1, 2, 3, 4, 5, 6]), layer=scored([1, 2, 3], layers(3))))
    assert np.isnan(found.tau[0, 1])
    assert found.n_common[0, 1] == 0
    assert sorted(found.order) == [0, 1]
    assert len(found.groups) == 2


def test_a_metric_that_ties_all_agrees_with_none():
    found = agreement(table(flat=scored([1, 1, 1]), up=scored([1, 2, 3]), two=scored([1, 2])))
    assert np.isnan(found.tau).tolist() == [[True] * 3, [True, False, True], [True] * 3]
    assert sorted(found.order) == [0, 1, 2]


@pytest.mark.parametrize("metrics", [{}, {"a": scored([1, 2, 3])}])
def test_agreement_of_one_metric_or_none(metrics: dict):
    found = agreement(table(**metrics))
    assert found.tau.shape == (len(metrics),) * 2
    assert found.order == tuple(range(len(metrics)))
    assert disagreement(table(**metrics)) == ()


def test_disagreement_by_hand():
    """Places 0, 1/2, 1 against 1, 1/2, 0, and 0, 1/2, 1 again: the ends differ by 1 in 2 of 3."""
    found = disagreement(
        table(a=scored([1, 2, 3]), b=scored([30, 20, 10]), c=scored([5, 6, 7]), d=scored([1, 1, 1]))
    )
    first, second, third = ids(3)
    assert [b for b, _ in found] == [first, third, second]
    assert [spread for _, spread in found] == pytest.approx([2 / 3, 2 / 3, 0])


def test_a_block_of_one_metric_is_not_disputed():
    attn = [BlockId(i, "attn") for i in range(2)]
    found = disagreement(table(all=scored([1, 2, 3, 4]), attn=scored([2, 1], attn)))
    assert dict(found) == pytest.approx({attn[0]: 1.0, attn[1]: 2 / 3})


# --- stability over windows -----------------------------------------------------------------------


def test_a_ranking_without_noise_is_stable_from_one_window_on():
    found = window_stability(from_windows([[i + w for w in range(8)] for i in range(5)]))
    assert found.sizes == (1, 2, 4)
    assert found.mean == found.low == found.high == (1, 1, 1)
    assert (found.n_windows, found.n_blocks, found.n_draws) == (8, 5, 20)


def test_both_sides_share_no_window():
    """Two windows in reverse order: had the rest the drawn one too, tau would not be -1."""
    found = window_stability(from_windows([[1, 30], [2, 20], [3, 10]]))
    assert (found.sizes, found.mean) == ((1,), (-1,))


def test_more_windows_are_more_stable():
    draw = np.random.default_rng(2)
    rows = draw.normal(size=(40, 1)) + 2 * draw.normal(size=(40, 64))
    found = window_stability(from_windows(rows))
    assert found.sizes == (1, 2, 4, 8, 16, 32)
    assert list(found.mean) == sorted(found.mean)
    assert all(a < b < c for a, b, c in zip(found.low, found.mean, found.high, strict=True))


def test_noise_alone_is_not_stable_whatever_the_size():
    rows = np.random.default_rng(4).normal(size=(60, 32))
    assert np.abs(window_stability(from_windows(rows), n_draws=50).mean).max() < 0.1


def test_windows_that_tie_every_block_order_nothing():
    """Three of four windows tie all blocks, so one side or the other is always without order."""
    rows = [[0, 0, 0, 1], [0, 0, 0, 2], [0, 0, 0, 3]]
    assert window_stability(from_windows(rows)).mean == (0, 0)


@pytest.mark.parametrize(
    ("n_windows", "sizes"), [(2, (1,)), (3, (1,)), (7, (1, 2)), (9, (1, 2, 4))]
)
def test_no_more_than_half_the_windows_are_drawn(n_windows: int, sizes: tuple):
    rows = np.arange(3.0)[:, None] + np.zeros((3, n_windows))
    assert window_stability(from_windows(rows)).sizes == sizes


def test_no_stability_without_windows():
    assert window_stability(scored([1, 2, 3])) is None
    assert window_stability(from_windows([[1], [2], [3]])) is None
    assert window_stability(from_windows([[1, 2], [2, 3]])) is None


def test_the_same_seed_draws_the_same_windows():
    scores = from_windows(np.random.default_rng(3).normal(size=(9, 20)))
    first = window_stability(scores, seed=7)
    assert first == window_stability(scores, seed=7)
    assert first != window_stability(scores, seed=8)


def test_window_stability_survives_json():
    found = window_stability(from_windows(np.random.default_rng(3).normal(size=(9, 20))))
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert (data["schema"], data["kind"]) == ("blockviz/stability/1", "windows")
    assert Stability.from_json(data) == found


# --- stability between runs -----------------------------------------------------------------------


def three_runs() -> list[ScoreTable]:
    same, other, reverse = scored([1, 2, 3]), scored([1, 3, 2]), scored([3, 2, 1])
    return [
        table(bi=same, ppl=same, once=same),
        table(bi=same, ppl=other),
        table(ppl=reverse),
    ]


def test_between_runs_by_hand():
    found = between(three_runs(), ["A", "B", "C"])
    assert (found.labels, found.metrics, found.titles) == (
        ("A", "B", "C"),
        ("bi", "ppl"),
        ("BI", "PPL"),
    )
    assert np.nan_to_num(found.tau[0], nan=9).tolist() == [[1, 1, 9], [1, 1, 9], [9, 9, 9]]
    third = 1 / 3
    expected = [[1, third, -1], [third, 1, -third], [-1, -third, 1]]
    np.testing.assert_allclose(found.tau[1], expected)
    assert found.mean.tolist() == pytest.approx([1, (1 / 3 - 1 - 1 / 3) / 3])


def test_other_parameters_are_named():
    runs = [table(lds=replace(scored([1, 2, 3]), parameters={"k": k})) for k in (100, 50)]
    assert between(runs, ["A", "B"]).differ == ("lds",)
    assert between([runs[0], runs[0]], ["A", "B"]).differ == ()


def test_stability_between_runs_survives_json():
    found = between(three_runs(), ["A", "B", "C"])
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    back = Between.from_json(data)
    assert (data["schema"], data["kind"]) == ("blockviz/stability/1", "runs")
    np.testing.assert_array_equal(back.tau, found.tau)
    np.testing.assert_array_equal(back.mean, found.mean)
    assert (back.labels, back.metrics, back.titles) == (found.labels, found.metrics, found.titles)


@pytest.mark.parametrize(
    "changed", [{"model": "gpt2"}, {"revision": "def"}, {"quantisation": "Q4_0"}]
)
def test_runs_on_other_models_are_refused(changed: dict):
    runs = [table(bi=scored([1, 2, 3])), table(replace(MODEL, **changed), bi=scored([1, 2, 3]))]
    other = next(iter(changed.values()))
    with pytest.raises(BadInput, match=rf"A is of small abc, but B is of .*{other}") as caught:
        between(runs, ["A", "B"])
    assert refused(caught.value)


def test_one_run_or_nothing_in_common_is_refused():
    for runs, found in (
        ([table(bi=scored([1, 2, 3]))], "It takes two"),
        ([table(bi=scored([1, 2, 3])), table(rm=scored([1, 2, 3]))], "No metric was computed in"),
    ):
        with pytest.raises(BadInput, match=found) as caught:
            between(runs, ["A", "B"][: len(runs)])
        assert refused(caught.value)
    with pytest.raises(ValueError, match="2 runs need as many labels"):
        between(three_runs()[:2], ["A"])


# --- who is right ---------------------------------------------------------------------------------


def judged(
    rises: Mapping[BlockId, Sequence[float]],
    *,
    whole: Sequence[float] = (2.0, 3.0),
    curves: Mapping[str, Sequence[tuple[Sequence[BlockId], float]]] | None = None,
) -> Judgement:
    """rises: block -> what its cut adds to each window; curves: (removed, rise) of each step."""

    def cut(removed: Sequence[BlockId], rise: Sequence[float]) -> Measured:
        return Measured(tuple(removed), tuple(w + r for w, r in zip(whole, rise, strict=True)))

    return Judgement(
        MODEL,
        cut([], [0.0] * len(whole)),
        {b: cut([b], rise) for b, rise in rises.items()},
        {
            name: tuple(cut(removed, [rise] * len(whole)) for removed, rise in steps)
            for name, steps in (curves or {}).items()
        },
    )


def test_tau_with_the_measured_losses_by_hand():
    """Means of the rises: 1, 2, 3. `right` has that order, `half` swaps the last two."""
    rises = dict(zip(ids(3), [(0, 2), (2, 2), (3, 3)], strict=True))
    found = verdicts(
        table(wrong=scored([3, 2, 1]), half=scored([1, 3, 2]), right=scored([7, 8, 9])),
        judged(rises),
    )
    assert [v.metric for v in found] == ["right", "half", "wrong"]
    assert [v.tau for v in found] == pytest.approx([1, 1 / 3, -1])
    assert {(v.n_blocks, v.unit, v.regret, v.n_removals) for v in found} == {(3, "block", None, 0)}


def test_windows_that_agree_leave_no_doubt():
    rises = dict(zip(ids(4), [(1, 1), (2, 2), (3, 3), (4, 4)], strict=True))
    found = verdicts(table(half=scored([1, 2, 4, 3])), judged(rises))[0]
    assert found.low == found.tau == found.high == pytest.approx(2 / 3)


def test_the_interval_holds_the_tau_and_widens_with_noise():
    draw = np.random.default_rng(6)
    truth = draw.normal(size=30)
    values = truth + 0.3 * draw.normal(size=30)
    widths = []
    for noise in (0.2, 1.0, 4.0):
        noisy = truth[:, None] + noise * draw.normal(size=(30, 24))
        judgement = judged(dict(zip(ids(30), noisy.tolist(), strict=True)), whole=[0.0] * 24)
        found = verdicts(table(m=scored(values)), judgement)[0]
        assert -1 <= found.low < found.tau < found.high <= 1
        widths.append(found.high - found.low)
    assert widths == sorted(widths)


def test_the_interval_is_about_as_wide_as_other_texts_scatter():
    """100 texts of 32 windows: 90 % intervals that hold the mean tau, 75 to 100 % of the time."""
    draw = np.random.default_rng(9)
    truth = draw.normal(size=20)
    scores = table(m=scored(truth + 0.5 * draw.normal(size=20)))
    found = []
    for _ in range(100):
        rises = truth[:, None] + draw.normal(size=(20, 32))
        judgement = judged(dict(zip(ids(20), rises.tolist(), strict=True)), whole=[0.0] * 32)
        found.append(verdicts(scores, judgement, n_boot=100)[0])
    middle = np.mean([v.tau for v in found])
    assert 75 <= sum(v.low <= middle <= v.high for v in found) < 100


def test_bootstrap_tau_is_scipy_s_of_every_resample():
    """Both roads draw the same windows: their 5th and 95th percentile, moved onto the tau."""
    draw = np.random.default_rng(8)
    values, rises = draw.normal(size=12), draw.normal(size=(12, 6))
    judgement = judged(dict(zip(ids(12), rises.tolist(), strict=True)), whole=[0.0] * 6)
    found = verdicts(table(m=scored(values)), judgement, n_boot=50, seed=3)[0]
    counts = np.random.default_rng(3).multinomial(6, [1 / 6] * 6, size=50)
    drawn = [stats.kendalltau(values, rises @ c).statistic for c in counts]
    shift = stats.kendalltau(values, rises.sum(axis=1)).statistic - np.median(drawn)
    assert found.low == pytest.approx(np.percentile(drawn, 5) + shift)
    assert found.high == pytest.approx(np.percentile(drawn, 95) + shift)


def test_a_cut_that_ruins_the_model_is_the_costliest():
    rises = dict(zip(ids(4), [(1, 1), (2, 2), (3, 3), (math.inf, 4)], strict=True))
    found = verdicts(table(m=scored([1, 2, 3, 4])), judged(rises))[0]
    assert (found.tau, found.n_blocks) == (1, 4)


def test_one_window_gives_no_interval():
    rises = dict(zip(ids(3), [(1,), (2,), (3,)], strict=True))
    found = verdicts(table(m=scored([1, 2, 3])), judged(rises, whole=[1.0]))[0]
    assert (found.tau, found.low, found.high) == (1, None, None)


def test_layers_are_judged_by_cuts_of_layers():
    tables = table(deep=scored([1, 2, 3], layers(3)), block=scored([1, 2, 3, 4, 5, 6]))
    blocks_only = {b: (i, i) for i, b in enumerate(ids(6))}
    found = {v.metric: v for v in verdicts(tables, judged(blocks_only))}
    assert (found["deep"].tau, found["deep"].n_blocks, found["deep"].unit) == (None, 0, "layer")
    both = blocks_only | {b: (-i, -i) for i, b in enumerate(layers(3))}
    found = {v.metric: v for v in verdicts(tables, judged(both))}
    assert (found["deep"].tau, found["deep"].n_blocks) == (-1, 3)
    assert (found["block"].tau, found["block"].n_blocks) == (1, 6)


def test_regret_by_hand():
    """Means of two steps: (0.1 + 0.3) / 2 = 0.2 for a, (0.2 + 0.8) / 2 = 0.5 for b."""
    first, second, third = ids(3)
    curves = {
        "a": [([first], 0.1), ([first, second], 0.3)],
        "b": [([third], 0.2), ([third, second], 0.8)],
    }
    judgement = judged({b: (0, 0) for b in ids(3)}, curves=curves)
    tables = table(b=scored([3, 2, 1]), a=scored([1, 2, 3]), none=scored([1, 3, 2]))
    found = verdicts(tables, judgement)
    assert [v.metric for v in found] == ["a", "b", "none"]
    assert [v.tau for v in found] == [None, None, None]
    assert [v.n_removals for v in found] == [2, 2, 0]
    assert [found[0].rise, found[1].rise] == pytest.approx([0.2, 0.5])
    assert [found[0].regret, found[1].regret] == pytest.approx([0, 0.3])
    assert (found[2].rise, found[2].regret) == (None, None)


def test_layers_are_no_cheaper_than_layers():
    """A cut of a layer takes two blocks, so its loss is not held against that of a block."""
    curves = {"block": [([ids(3)[0]], 0.1)], "deep": [([layers(3)[0]], 0.9)]}
    tables = table(block=scored([1, 2, 3]), deep=scored([1, 2, 3], layers(3)))
    found = verdicts(tables, judged({b: (0, 0) for b in ids(3)}, curves=curves))
    assert [v.regret for v in found] == [0, 0]


def test_a_layer_may_be_written_as_its_two_blocks():
    deep = scored([2, 1], layers(2))
    curves = {"deep": [([BlockId(1, "attn"), BlockId(1, "mlp")], 0.5)]}
    found = verdicts(table(deep=deep), judged({}, curves=curves))[0]
    assert (found.n_removals, found.rise) == (1, pytest.approx(0.5))


def test_a_curve_of_another_ranking_gives_no_regret():
    first, second, third = ids(3)
    curves = {"m": [([first], 0.1), ([first, third], 0.2), ([first, second, third], 0.3)]}
    rises = {b: (0, 0) for b in ids(3)}
    whole = verdicts(table(m=scored([1, 3, 2])), judged(rises, curves=curves))[0]
    begun = verdicts(table(m=scored([1, 2, 3])), judged(rises, curves=curves))[0]
    alien = verdicts(table(m=scored([3, 1, 2])), judged(rises, curves=curves))[0]
    tied = verdicts(table(m=scored([1, 2, 2])), judged(rises, curves=curves))[0]
    assert [v.n_removals for v in (whole, begun, alien, tied)] == [3, 1, 0, 3]
    assert alien.regret is None


def test_a_cancelled_run_uses_the_most_measured_points():
    """Curves of 3, 3, 1 steps: 2 * 3 = 6 points at three, 3 * 1 at one. Of 3, 1, 1, 1: 3 and 4."""
    blocks = ids(3)
    steps = [(blocks[:k], 0.1 * k) for k in (1, 2, 3)]
    curves = {"a": steps, "b": steps, "c": steps[:1]}
    tables = table(a=scored([1, 2, 3]), b=scored([1, 2, 3]), c=scored([1, 2, 3]))
    found = verdicts(tables, judged({b: (0, 0) for b in blocks}, curves=curves))
    assert [(v.metric, v.n_removals) for v in found] == [("a", 3), ("b", 3), ("c", 0)]
    curves = {"a": steps, "b": steps[:1], "c": steps[:1], "d": steps[:1]}
    tables = table(**{name: scored([1, 2, 3]) for name in curves})
    found = verdicts(tables, judged({b: (0, 0) for b in blocks}, curves=curves))
    assert [v.n_removals for v in found] == [1, 1, 1, 1]


def test_metrics_of_another_model_are_not_judged():
    with pytest.raises(BadInput, match=r"metrics of gpt2 abc.*cuts are of small abc") as caught:
        verdicts(table(replace(MODEL, model="gpt2"), m=scored([1, 2, 3])), judged({}))
    assert refused(caught.value)


def test_nothing_to_judge_by_is_no_error():
    assert verdicts(table(), judged({})) == ()
    found = verdicts(table(m=scored([1, 2, 3])), judged({}))[0]
    assert (found.tau, found.low, found.high, found.n_blocks) == (None, None, None, 0)


def test_verdicts_survive_json():
    rises = dict(zip(ids(3), [(0, 2), (2, 2), (3, 3)], strict=True))
    for found in verdicts(table(a=scored([1, 3, 2]), b=scored([1, 1, 1])), judged(rises)):
        data = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert MetricVerdict.from_json(data) == found


def test_what_a_metric_ranks():
    assert unit_of(scored([1, 2])) == "block"
    assert unit_of(scored([1, 2], layers(2))) == "layer"
    assert unit_of(scored([1], [BlockId(3, "mlp")])) == "mlp"
