"""Which weights become zero and how the rest makes up for them: by hand, by brute force, by law."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from blockviz.corrections.sparse import (
    SCORES,
    Inputs,
    Magnitude,
    Pattern,
    Wanda,
    compensated,
    dropped,
)
from blockviz.errors import BadInput, UnknownName
from blockviz.metrics.cvr import weight_scores
from blockviz.session.sparsify_space import CalibratedScore
from blockviz.settings import label_of, parse_method

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(*shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- moments --


def test_moments_of_inputs_are_numpy_s_whatever_the_batches():
    rows = drawn(700, 5) * torch.tensor([1.0, 1e-3, 50.0, 1.0, 0.0]) + torch.tensor(
        [0, 3, 1e3, -2, 7]
    )
    wide = rows.double().numpy()
    for sizes in ([700], [1, 699], [0, 300, 400], [7] * 100):
        found = Inputs.of(rows[:0])
        for part in rows.split(sizes):
            found = found.joined(Inputs.of(part))
        assert found.n == 700
        np.testing.assert_allclose(found.mean, wide.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.variance, wide.var(axis=0), rtol=1e-9, atol=1e-20)
        np.testing.assert_allclose(found.norm, np.sqrt((wide**2).sum(axis=0)), rtol=1e-12)
    many = drawn(9000, 2)
    np.testing.assert_allclose(Inputs.of(many).variance, many.double().var(0, unbiased=False))


# -- scores --


def test_wanda_by_hand_on_two_rows_of_four():
    # Positions (1, 0, 0, 2), (2, 0, 3, 1), (2, 1, 4, 2): the channels' lengths are 3, 1, 5, 3.
    read = Inputs.of(torch.tensor([[1.0, 0, 0, 2], [2, 0, 3, 1], [2, 1, 4, 2]]))
    weight = torch.tensor([[1.0, -4, 0.5, 2], [-3, 20, 1, -0.1]])
    found = Wanda().scores(weight, read)
    np.testing.assert_allclose(found, [[3, 4, 2.5, 6], [9, 20, 5, 0.3]], rtol=1e-6)
    # Row by row the two lowest go: 2.5 and 3; 0.3 and 5.
    gone = dropped(found, Pattern.parse("0.5"), Wanda().group)
    assert gone.tolist() == [[True, False, True, False], [False, False, True, True]]
    # Of the whole matrix 0.3, 2.5, 3 and 4 go: three of them in the first row.
    gone = dropped(found, Pattern.parse("0.5"), "matrix")
    assert gone.tolist() == [[True, True, True, False], [False, False, False, True]]
    # By size alone 0.1, 0.5, 1 and 1 go.
    gone = dropped(Magnitude().scores(weight, None), Pattern.parse("0.5"), Magnitude().group)
    assert gone.tolist() == [[True, False, True, False], [False, False, True, True]]


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.3])
def test_t_cvr_1_and_2_calibrated_scores_see_the_variance_of_what_is_read(alpha: float) -> None:
    weight, rows = drawn(6, 8), drawn(50, 8, seed=4) * torch.arange(1, 9) + 5
    score = CalibratedScore(alpha=alpha)
    found = score.scores(weight, Inputs.of(rows))
    w, x = weight.double().numpy(), rows.double().numpy()
    expected = np.abs(w) * x.var(axis=0) ** 0.25 * (w.var(axis=0) + 1e-8) ** (-alpha / 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert torch.equal(found, weight_scores(weight, Inputs.of(rows).variance, alpha))
    # Inputs that are 9 times as large count 3 times as much; their mean has no say.
    np.testing.assert_allclose(score.scores(weight, Inputs.of(9 * rows)), 3 * found, rtol=1e-5)
    np.testing.assert_allclose(score.scores(weight, Inputs.of(rows + 40)), found, rtol=1e-4)


def test_scores_have_names_settings_and_groups_of_their_own():
    assert {"cvr", "wanda", "magnitude"} == set(SCORES.names())
    groups = {name: SCORES.get(name)().group for name in SCORES.names()}
    assert groups == {"wanda": "row", "magnitude": "matrix", "cvr": "row"}
    found = parse_method(SCORES, "cvr:alpha=0.3:group=matrix:tokens=all:is_sequential=no")
    assert found == CalibratedScore("matrix", "all", is_sequential=False, alpha=0.3)
    assert label_of(found) == "cvr:group=matrix:tokens=all:is_sequential=False:alpha=0.3"
    assert parse_method(SCORES, label_of(found)) == found
    for bad in ("cvr:alpha=3", "wanda:group=column", "magnitude:tokens=all", "cvr:tokens=last"):
        with pytest.raises(BadInput):
            parse_method(SCORES, bad)
    with pytest.raises(UnknownName, match="Did you mean 'wanda'"):
        parse_method(SCORES, "wandaa")


# -- patterns and masks --


def test_patterns_are_read_and_written():
    for text, pattern in (
        ("0.5", Pattern(share=0.5)),
        (".25", Pattern(share=0.25)),
        ("2:4", Pattern(n_kept=2, n_of=4)),
        (" 4:8 ", Pattern(n_kept=4, n_of=8)),
        ("1:2", Pattern(n_kept=1, n_of=2)),
    ):
        assert Pattern.parse(text) == pattern == Pattern.parse(str(pattern))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1",
        "0.0",
        "1.0",
        "-0.5",
        "0%",
        "100%",
        "5%%",
        "nan",
        "1e-2",
        "4:4",
        "0:4",
        "4:2",
        "2:",
        "a",
    ],
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        Pattern.parse(text)
    assert refused.value.asked == f"Zeros in the pattern {text!r} were asked for."
    assert "N kept of every M inputs in a row" in refused.value.found
    assert refused.value.todo == "Write 0.5, 50%, 2:4 or 4:8, for example."


@pytest.mark.parametrize("text", ["2:4", "4:8", "1:4", "3:4", "1:2"])
def test_n_of_m_keeps_the_largest_n_of_every_m_inputs(text: str) -> None:
    """Against every choice of n: none keeps more of the score."""
    pattern, scores = Pattern.parse(text), drawn(5, 16).abs()
    gone = dropped(scores, pattern, "row")
    assert torch.equal(gone, dropped(scores, pattern, "matrix"))
    for row, start in itertools.product(range(5), range(0, 16, pattern.n_of)):
        piece, kept = scores[row, start : start + pattern.n_of].tolist(), set()
        best = max(itertools.combinations(range(pattern.n_of), pattern.n_kept),
                   key=lambda chosen, p=piece: sum(p[i] for i in chosen))  # fmt: skip
        kept = {i for i in range(pattern.n_of) if not gone[row, start + i]}
        assert kept == set(best)
    assert int(gone.sum()) == 80 // pattern.n_of * (pattern.n_of - pattern.n_kept)


def test_two_of_four_run_along_the_inputs():
    scores = torch.tensor([[1.0, 2, 3, 4, 8, 7, 6, 5]]).expand(4, 8).contiguous()
    kept = ~dropped(scores, Pattern.parse("2:4"), "row")
    assert kept.unflatten(1, (2, 4)).sum(dim=-1).unique().tolist() == [2]
    assert kept[0].tolist() == [False, False, True, True, True, True, False, False]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.77])
@pytest.mark.parametrize("group", ["row", "matrix"])
def test_a_share_is_exact_to_rounding_and_takes_the_lowest(share: float, group: str) -> None:
    scores = drawn(7, 13).abs()
    gone = dropped(scores, Pattern(share=share), group)
    rows = list(zip(scores, gone, strict=True)) if group == "row" else [(scores, gone)]
    for values, lost in rows:
        assert abs(int(lost.sum()) - share * lost.numel()) <= 0.5
        lowest = sorted(values.flatten().tolist())[: int(lost.sum())]
        assert sorted(values[lost].tolist()) == lowest


def test_equal_scores_do_not_change_the_share():
    """A threshold would take all of them, or none."""
    same = torch.ones(4, 10)
    for group in ("row", "matrix"):
        assert int(dropped(same, Pattern(share=0.3), group).sum()) == 12
    assert dropped(same, Pattern(share=0.3), "row")[:, :3].all()


# -- energy --


def energy(weight: np.ndarray, mean: np.ndarray, axis: int) -> np.ndarray:
    return ((weight - mean) ** 2).sum(axis=axis, keepdims=True)


def slow(w: np.ndarray, gone: np.ndarray, axes: list[int], low: float, high: float) -> np.ndarray:
    """Column by column and row by row, as the formula reads."""
    out = np.where(gone, 0.0, w)
    for axis in axes:
        for i in range(w.shape[1 - axis]):
            place = (slice(None), i) if axis == 0 else (i, slice(None))
            mean = w[place].mean()
            full, left = ((w[place] - mean) ** 2).sum(), ((out[place] - mean) ** 2).sum()
            ratio = min(max(np.sqrt(full / left), low), high)
            out[place] = np.where(gone[place], 0.0, mean + ratio * (out[place] - mean))
    return out


@pytest.mark.parametrize(
    ("axes", "order"),
    [(("column",), [0]), (("row",), [1]), (("row", "column"), [0, 1]), (("column", "row"), [0, 1])],
)
@pytest.mark.parametrize("clip", [(0.5, 2.0), (0.9, 1.02)])
def test_energy_is_what_a_plain_loop_gives_columns_first(axes, order, clip) -> None:
    weight = drawn(9, 12) + drawn(12, seed=8)
    gone = dropped(weight.abs(), Pattern(share=0.5), "row")
    found = compensated(weight, gone, axes, clip)
    expected = slow(weight.double().numpy(), gone.numpy(), order, *clip)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert (found[gone] == 0).all() and found.dtype == weight.dtype
    assert not torch.equal(found, compensated(weight, gone))


def test_energy_by_hand():
    # Column (3, 1, -4): mean 0, energy 26. Without the 1: 25, so the rest grows by sqrt(26/25).
    weight = torch.tensor([[3.0], [1.0], [-4.0]])
    gone = torch.tensor([[False], [True], [False]])
    found = compensated(weight, gone, ("column",))
    np.testing.assert_allclose(found[:, 0], [3 * 1.0198039, 0, -4 * 1.0198039], rtol=1e-6)
    # Without the -4: 10, sqrt(2.6) = 1.612, and no more than the upper bound.
    gone = torch.tensor([[False], [False], [True]])
    found = compensated(weight, gone, ("column",), (0.5, 1.5))
    np.testing.assert_allclose(found[:, 0], [4.5, 1.5, 0])


@pytest.mark.parametrize("axes", [(), ("column",), ("row",), ("row", "column")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_t_ec_1_an_empty_mask_changes_nothing(axes: tuple[str, ...], dtype: torch.dtype) -> None:
    weight = (drawn(8, 12) * torch.logspace(-6, 2, 12)).to(dtype)
    found = compensated(weight, torch.zeros(8, 12, dtype=torch.bool), axes)
    assert torch.equal(found, weight) and found.dtype == dtype


def test_t_ec_2_after_the_column_pass_the_energies_match() -> None:
    """Where nothing is gone as it is; elsewhere before the gone weights are zero once more."""
    weight = (drawn(10, 6) + 0.3).double()
    gone = torch.zeros(10, 6, dtype=torch.bool)
    gone[:4, ::2] = True
    found = compensated(weight, gone, ("column",), (1e-6, 1e6)).numpy()
    w = weight.numpy()
    mean = w.mean(axis=0, keepdims=True)
    whole = energy(w, mean, 0)
    np.testing.assert_array_equal(found[:, 1::2], w[:, 1::2])
    np.testing.assert_allclose(energy(found, mean, 0)[:, 1::2], whole[:, 1::2], rtol=1e-12)
    # A gone weight was at mean + ratio (0 - mean) before it became zero again.
    ratio = ((found - mean) / (np.where(gone, 0, w) - mean))[5]
    stretched = np.where(gone, mean * (1 - ratio), found)
    np.testing.assert_allclose(energy(stretched, mean, 0), whole, rtol=1e-12)
    assert not np.allclose(ratio[::2], 1) and (found[gone.numpy()] == 0).all()


def test_energy_of_what_does_not_vary_is_no_nan():
    weight = torch.zeros(4, 4)
    weight[:, 1], weight[2] = 5.0, 0.0
    gone = torch.ones(4, 4, dtype=torch.bool)
    gone[0] = False
    for mask in (gone, ~gone, torch.ones(4, 4, dtype=torch.bool)):
        found = compensated(weight, mask, ("column", "row"))
        assert found.isfinite().all() and (found[mask] == 0).all()
