"""Running moments and least squares over pairs of rows, held against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blockviz.stats import pairs
from blockviz.stats.pairs import ChannelPairs, LeastSquares

pytestmark = pytest.mark.usefixtures("one_thread")

N, SIZE, TARGETS = 500, 12, 5


def rows(seed: int, n: int, size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    made = torch.randn(n, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (made * (torch.arange(size) + 1) + torch.arange(size)).to(dtype)


def correlated(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    u = rows(1, N, SIZE, dtype)
    return u, (0.5 * u.double() + rows(2, N, SIZE).double() + 3).to(dtype)


def moments(*parts: tuple[torch.Tensor, torch.Tensor]) -> pairs.ChannelMoments:
    sums = ChannelPairs(parts[0][0].shape[1])
    for u, y in parts:
        sums.add(u, y)
    return sums.result()


def squares(x: torch.Tensor, t: torch.Tensor, *, at: tuple[int, ...] = ()) -> LeastSquares:
    """The sums of all rows, added in pieces that are cut at these rows."""
    sums = LeastSquares(x.shape[1], t.shape[1])
    for a, b in zip(x.tensor_split(at), t.tensor_split(at), strict=True):
        sums.add(a, b)
    return sums


def test_moments_by_hand():
    """u = 1, 3 and y = 2, 8: means 2 and 5, variances 1 and 9, covariance 3, (1 + 25) / 2."""
    found = moments((torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [8.0]])))
    assert (found.n, float(found.mean_u), float(found.mean_y)) == (2, 2, 5)
    assert (float(found.var_u), float(found.var_y), float(found.cov)) == (1, 9, 3)
    assert (float(found.rho), float(found.mse)) == (1, 13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_moments_are_numpys_on_the_widened_rows(dtype: torch.dtype):
    u, y = correlated(dtype)
    found, a, b = moments((u, y)), u.double().numpy(), y.double().numpy()
    assert found.mean_u.dtype == torch.float64
    np.testing.assert_allclose(found.mean_u, a.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.mean_y, b.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.var_u, a.var(0), rtol=1e-12)
    np.testing.assert_allclose(found.var_y, b.var(0), rtol=1e-12)
    expected = [np.corrcoef(a[:, c], b[:, c])[0, 1] for c in range(SIZE)]
    np.testing.assert_allclose(found.rho, expected, rtol=1e-12)
    np.testing.assert_allclose(found.mse, ((b - a) ** 2).mean(0), rtol=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_moments_do_not_hang_on_how_the_rows_come(monkeypatch: pytest.MonkeyPatch, chunk: int):
    u, y = correlated()
    expected = moments((u, y))
    monkeypatch.setattr(pairs, "CHUNK", chunk)
    parts = [slice(0, 3), slice(3, 3), slice(3, 200), slice(200, N)]
    found = moments(*[(u[p], y[p]) for p in parts])
    assert found.n == N
    for name in ("mean_u", "mean_y", "var_u", "var_y", "cov", "rho", "mse"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-11, atol=1e-12
        )


def test_a_small_spread_around_a_large_mean_is_kept_over_a_million_rows():
    """Float64 rows, so that what is lost is lost by the sums: mean 1000, spread 1e-3."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1_000_000, 2, generator=generator, dtype=torch.float64)
    found = moments((1000 + 1e-3 * noise, -1000 + 1e-3 * noise.flip(1)))
    expected = 1e-6 * noise.numpy().var(0)
    np.testing.assert_allclose(found.var_u, expected, rtol=1e-6)
    np.testing.assert_allclose(found.var_y, expected[::-1], rtol=1e-6)


def test_channels_that_do_not_vary_have_no_variance_and_no_correlation():
    """0.1 is no binary fraction: the mean of many is not quite it."""
    u = torch.full((N, 3), 0.1)
    u[:, 2] = torch.linspace(-1, 1, N)
    found = moments((u[:7], u[:7].flip(1)), (u[7:], u[7:].flip(1)))
    assert found.var_u[:2].tolist() == [0, 0] and found.rho.tolist() == [0, 0, 0]
    assert float(found.var_u[2]) > 0.3


def test_one_float32_step_is_a_spread():
    u = torch.full((1000, 1), 1000.0)
    u[0] = torch.nextafter(u[0], torch.tensor(2000.0))
    assert float(moments((u, u)).var_u) == pytest.approx(u.double().numpy().var(), rel=1e-6)


def test_without_rows_everything_is_0():
    found = moments((torch.zeros(0, 2), torch.zeros(0, 2)))
    assert found.n == 0 and found.mse.tolist() == [0, 0] and found.rho.tolist() == [0, 0]
    assert not LeastSquares(3, 2).solve(0.1, is_centred=True).any()


# --- least squares --------------------------------------------------------------------------------


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = rows(3, N, SIZE)
    return x, x @ rows(4, SIZE, TARGETS) + rows(5, N, TARGETS)


def ridged(x: np.ndarray, t: np.ndarray, ridge: float) -> np.ndarray:
    """Least squares with one more row a feature, which asks for 0: Tikhonov by stacking."""
    weight = np.sqrt(ridge * (x**2).sum() / x.shape[1])
    more = np.vstack([x, weight * np.eye(x.shape[1])])
    return np.linalg.lstsq(more, np.vstack([t, np.zeros((x.shape[1], t.shape[1]))]), rcond=None)[0]


@pytest.mark.parametrize("ridge", [0.0, 1e-14, 1e-3, 0.1, 10.0])
@pytest.mark.parametrize("is_centred", [False, True])
def test_solve_is_numpys_least_squares(data, ridge: float, is_centred: bool):  # noqa: FBT001
    x, t = (part.double().numpy() for part in data)
    if is_centred:
        x, t = x - x.mean(0), t - t.mean(0)
    found = squares(*data, at=(1, 130)).solve(ridge, is_centred=is_centred)
    np.testing.assert_allclose(found, ridged(x, t, ridge), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 1e-16])
def test_without_a_unique_solution_it_is_the_shortest(data, ridge: float):
    x, t = data
    x = torch.cat([x, x[:, :4]], dim=1)
    expected = np.linalg.lstsq(x.double().numpy(), t.double().numpy(), rcond=None)[0]
    found = squares(x, t).solve(ridge, is_centred=False)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


def test_features_that_are_0_get_0(data):
    _, t = data
    for ridge in (0.0, 0.1):
        assert not squares(torch.zeros(N, 3), t).solve(ridge, is_centred=False).any()
        found = squares(torch.ones(N, 3), t).solve(ridge, is_centred=True)
        assert found.isfinite().all()


def test_a_huge_ridge_leaves_nothing(data):
    assert squares(*data).solve(1e12, is_centred=False).abs().max() < 1e-9


@pytest.mark.parametrize("is_centred", [False, True])
def test_gram_and_cross_are_the_products(
    monkeypatch: pytest.MonkeyPatch,
    data,
    is_centred: bool,  # noqa: FBT001
):
    """Panels and chunks that do not divide the sizes; the mean is large beside the spread."""
    monkeypatch.setattr(pairs, "PANEL", 5)
    monkeypatch.setattr(pairs, "CHUNK", 64)
    x, t = data[0] + 50, data[1] - 70
    sums = squares(x, t, at=(0, 10, 11))
    a, b = x.double().numpy(), t.double().numpy()
    np.testing.assert_allclose(sums.mean_x, a.mean(0), rtol=1e-12)
    np.testing.assert_allclose(sums.mean_t, b.mean(0), rtol=1e-12)
    if is_centred:
        a, b = a - a.mean(0), b - b.mean(0)
    gram = sums.gram(is_centred=is_centred)
    assert torch.equal(gram, gram.T)
    np.testing.assert_allclose(gram, a.T @ a, rtol=1e-10, atol=1e-7)
    np.testing.assert_allclose(sums.cross(is_centred=is_centred), a.T @ b, rtol=1e-10, atol=1e-7)


def test_reading_changes_nothing_and_more_rows_may_follow(data):
    x, t = data
    sums = squares(x[:100], t[:100])
    for is_centred in (False, True, False):
        sums.gram(is_centred=is_centred).zero_()
        sums.solve(0.1, is_centred=is_centred)
    sums.add(x[100:], t[100:])
    torch.testing.assert_close(
        sums.solve(0.1, is_centred=False), squares(x, t).solve(0.1, is_centred=False), rtol=1e-10,
        atol=1e-12,
    )  # fmt: skip


def test_a_centred_regression_survives_a_mean_of_a_million_spreads():
    """t = 2 x on float64 rows around 1e6: plain sums would have lost six digits more."""
    x = 1e6 + rows(7, N, 2, torch.float64)
    found = squares(x, 2 * x).solve(0.0, is_centred=True)
    np.testing.assert_allclose(found, 2 * np.eye(2), atol=1e-9)
