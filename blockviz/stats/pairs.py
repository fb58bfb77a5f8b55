"""Running moments over pairs of rows, in float64: what moment matching and least squares need.

Each is kept around the mean so far: sums of squares of a stream whose mean is large beside its
spread would lose the spread. Products are in float64 too: of ill-conditioned features, 1536 wide
and with a ridge of 1e-3, float32 products moved the solution by 3e-4, where the rounding of a
float32 stream moves it by 2e-6. Rows are summed on the device that they come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Rows that are widened to float64 at once.
CHUNK = 4096
# Columns of a symmetric product that are computed at once; what lies below them is its mirror.
PANEL = 384
EPS = torch.finfo(torch.float64).eps


class ChannelPairs:
    """Means, variances and covariance of two streams, channel by channel.

    add(u, y): (token, channel) each, of any float dtype.
    """

    def __init__(self, size: int) -> None:
        self.n = 0
        self._means = torch.zeros(2, size, dtype=torch.float64)
        # Sums of (u - mean)^2, (y - mean)^2 and their product.
        self._sums = torch.zeros(3, size, dtype=torch.float64)

    def add(self, u: torch.Tensor, y: torch.Tensor) -> None:
        for rows in zip(u.split(CHUNK), y.split(CHUNK), strict=True):
            if not len(rows[0]):
                continue
            wide = torch.stack([_wide(part) for part in rows])
            self._means = self._means.to(wide.device)
            self._sums = self._sums.to(wide.device)
            means = wide.mean(dim=1)
            around = wide - means[:, None]
            step = means - self._means
            share = len(rows[0]) / (self.n + len(rows[0]))
            self._sums = (
                self._sums + _products(around).sum(dim=1) + _products(step) * self.n * share
            )
            self._means = self._means + step * share
            self.n += len(rows[0])

    def result(self) -> ChannelMoments:
        means, sums = self._means.cpu(), self._sums.cpu() / max(1, self.n)
        # What rounding leaves of a channel that does not vary: far below the least that float32
        # rows can differ by.
        noise = (16 * EPS * means).square()
        variances = torch.where(sums[:2] > noise, sums[:2], 0.0)
        return ChannelMoments(self.n, *means, *variances, sums[2])


def _products(pair: torch.Tensor) -> torch.Tensor:
    """(3, ...) of (2, ...): both squares and the product."""
    return torch.stack([pair[0] * pair[0], pair[1] * pair[1], pair[0] * pair[1]])


def _wide(rows: torch.Tensor) -> torch.Tensor:
    """In float64, which Apple's accelerators have not."""
    rows = rows.detach()
    return (rows.cpu() if rows.device.type == "mps" else rows).double()


@dataclass(frozen=True)
class ChannelMoments:
    """(channel,) float64 moments of n pairs, by 1/n."""

    n: int
    mean_u: torch.Tensor
    mean_y: torch.Tensor
    var_u: torch.Tensor
    var_y: torch.Tensor
    cov: torch.Tensor

    @property
    def rho(self) -> torch.Tensor:
        """(channel,) correlation, 0 where a channel does not vary."""
        size = self.var_u.sqrt() * self.var_y.sqrt()
        return torch.where(size > 0, self.cov / size.clamp_min(1e-300), 0.0)

    @property
    def mse(self) -> torch.Tensor:
        """(channel,) mean square of y - u."""
        spread = (self.var_u + self.var_y - 2 * self.cov).clamp_min(0)
        return spread + (self.mean_y - self.mean_u).square()


def varies(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """(channel,) bool: whether a channel moves by more than the last bit of a float32."""
    return variance > (torch.finfo(torch.float32).eps * mean).square()


class LeastSquares:
    """Moments for the regression of targets on features: add((token, feature), (token, target)).

    anchor() adds rows that the solution is to fit as well, but that neither the means nor the size
    of the ridge know of: a few rows far larger than all others.
    """

    def __init__(self, n_features: int, n_targets: int) -> None:
        self.n = 0
        self._x = torch.zeros(n_features, dtype=torch.float64)
        self._t = torch.zeros(n_targets, dtype=torch.float64)
        # Around the means; of the first no more than the upper triangle is kept up.
        self._xx = torch.zeros(n_features, n_features, dtype=torch.float64)
        self._xt = torch.zeros(n_features, n_targets, dtype=torch.float64)
        self._anchors: list[tuple[torch.Tensor, torch.Tensor]] = []

    def anchor(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        self._anchors.append((_wide(features).cpu(), _wide(targets).cpu()))

    def add(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        for x, t in zip(features.split(CHUNK), targets.split(CHUNK), strict=True):
            if len(x):
                self._chunk(_wide(x), _wide(t))

    def _chunk(self, x: torch.Tensor, t: torch.Tensor) -> None:
        for name in ("_x", "_t", "_xx", "_xt"):
            setattr(self, name, getattr(self, name).to(x.device))
        mean_x, mean_t = x.mean(dim=0), t.mean(dim=0)
        x, t = x - mean_x, t - mean_t
        for start in range(0, x.shape[1], PANEL):
            panel = slice(start, start + PANEL)
            self._xx[panel, start:].addmm_(x[:, panel].T, x[:, start:])
        self._xt.addmm_(x.T, t)
        share = len(x) / (self.n + len(x))
        step_x, step_t = mean_x - self._x, mean_t - self._t
        if self.n:
            self._xx.addr_(step_x, step_x, alpha=self.n * share)
            self._xt.addr_(step_x, step_t, alpha=self.n * share)
        self._x += step_x * share
        self._t += step_t * share
        self.n += len(x)

    @property
    def mean_x(self) -> torch.Tensor:
        return self._x.cpu()

    @property
    def mean_t(self) -> torch.Tensor:
        return self._t.cpu()

    def gram(self, *, is_centred: bool) -> torch.Tensor:
        """(feature, feature) X^T X."""
        upper = self._xx.triu().cpu()
        if not is_centred:
            upper.addr_(self.mean_x, self.mean_x, alpha=self.n)
        return upper.triu() + upper.triu(1).T

    def cross(self, *, is_centred: bool) -> torch.Tensor:
        """(feature, target) X^T T."""
        cross = self._xt.cpu()
        return cross if is_centred else cross.addr(self.mean_x, self.mean_t, alpha=self.n)

    def solve(self, ridge: float, *, is_centred: bool) -> torch.Tensor:
        """(feature, target) A of the least |T - X A|^2 + ridge tr(X^T X) / n_features |A|^2.

        Without a ridge the shortest of the best; without a sample, or features that are all 0, 0.
        """
        gram, cross = self.gram(is_centred=is_centred), self.cross(is_centred=is_centred)
        n, size = len(gram), float(gram.diagonal().mean())
        for x, t in self._anchors:
            if is_centred:
                x, t = x - self.mean_x, t - self.mean_t
            gram.addmm_(x.T, x)
            cross.addmm_(x.T, t)
        if not size > 0:
            return torch.zeros_like(cross)
        # The largest eigenvalue is below n * size: rounding leaves the factor of this positive.
        if ridge > n * n * EPS:
            gram.diagonal().add_(ridge * size)
            return torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
        values, vectors = torch.linalg.eigh(gram)
        usable = values > values[-1] * n * EPS
        vectors, values = vectors[:, usable], values[usable] + ridge * size
        return vectors @ ((vectors.T @ cross) / values[:, None])
