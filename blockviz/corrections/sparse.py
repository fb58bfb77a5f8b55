"""Weights that become zero: which, by what score, and how the rest makes up for them.

Every matrix is (out, in) here, its columns being the inputs. These are functions of one matrix and
of the moments of what it reads; the way through a model is in corrections/sparsifying.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from blockviz.corrections.base import TOKENS
from blockviz.errors import BadInput
from blockviz.registry import Registry
from blockviz.settings import check_settings, parse_share

SCORES: Registry[type[WeightScore]] = Registry("score")

GROUP = {"label": "Weights that are compared", "choices": ("row", "matrix")}
# Always in this order, whichever way round they are named.
AXES = {"column": 0, "row": 1}
# Rows that are widened to float64 at once.
CHUNK = 4096


@dataclass(frozen=True)
class Inputs:
    """(in,) float64 mean and population variance of what a matrix read at n positions."""

    n: int
    mean: torch.Tensor
    variance: torch.Tensor

    @classmethod
    def of(cls, rows: torch.Tensor) -> Inputs:
        """Those of (token, in) rows of any float dtype."""
        size = rows.shape[1]
        found = cls(0, *torch.zeros(2, size, dtype=torch.float64))
        for part in rows.split(CHUNK):
            if len(part):
                wide = _wide(part)
                mean = wide.mean(dim=0)
                found = found.joined(cls(len(wide), mean, (wide - mean).square().mean(dim=0)))
        return found

    def joined(self, other: Inputs) -> Inputs:
        """Those of both sets of positions."""
        if not self.n or not other.n:
            return self if self.n else other
        n = self.n + other.n
        share, step = other.n / n, other.mean - self.mean
        between = step.square() * share * (1 - share)
        variance = self.variance * (1 - share) + other.variance * share + between
        return Inputs(n, self.mean + step * share, variance)

    @property
    def norm(self) -> torch.Tensor:
        """(in,) the length of each channel over all positions."""
        return (self.n * (self.variance + self.mean.square())).sqrt()


@dataclass(frozen=True)
class WeightScore:
    """How much a weight is worth: of those that are compared, the lowest become zero.

    group: an unstructured share is taken of every output row, or of the whole matrix. Under N:M it
    has no say.
    """

    group: str = field(default="row", metadata=GROUP)

    name: ClassVar[str]
    title: ClassVar[str]

    def __post_init__(self) -> None:
        check_settings(self)

    def scores(self, weight: torch.Tensor, inputs: Inputs | None) -> torch.Tensor:
        """(out, in) float32 of (out, in) weights and what they read, if this score looks at it."""
        raise TypeError(f"{self.name} does not say what a weight is worth")


@dataclass(frozen=True)
class InputScore(WeightScore):
    """A score that looks at what the matrix reads.

    tokens: the first position of a window is left out by default, since the few channels that are
    huge there would decide alone. is_sequential: the layers in front are sparse already.
    """

    tokens: str = field(default="skip_first", metadata=TOKENS)
    is_sequential: bool = field(default=True, metadata={"label": "One layer after the other"})


@SCORES.register
@dataclass(frozen=True)
class Wanda(InputScore):
    """S_ij = |W_ij| |x_j|_2, compared within each output row; Sun et al., arXiv 2306.11695.

    The paper reads every position: tokens=all.
    """

    name = "wanda"
    title = "Wanda"

    def scores(self, weight: torch.Tensor, inputs: Inputs | None) -> torch.Tensor:
        return weight.float().abs() * inputs.norm.float().to(weight.device)


@SCORES.register
@dataclass(frozen=True)
class Magnitude(WeightScore):
    """S_ij = |W_ij|, compared within the matrix. Needs no text."""

    group: str = field(default="matrix", metadata=GROUP)

    name = "magnitude"
    title = "Magnitude"

    def scores(self, weight: torch.Tensor, inputs: Inputs | None) -> torch.Tensor:
        return weight.float().abs()


@dataclass(frozen=True)
class Pattern:
    """What becomes zero: a share of the weights, or all but `n_kept` of every `n_of` inputs."""

    share: float = 0.0
    n_kept: int = 0
    n_of: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern of `0.5`, `50%` or `2:4`; BadInput otherwise."""
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", text.strip())
        if found and 0 < int(found[1]) < int(found[2]):
            return cls(n_kept=int(found[1]), n_of=int(found[2]))
        is_share = re.fullmatch(r"0?\.\d+|\d{1,2}(\.\d+)? ?%", text.strip())
        if is_share and 0 < parse_share(text) < 1:
            return cls(share=parse_share(text))
        raise BadInput(
            f"Zeros in the pattern {text!r} were asked for.",
            "It must be a share of zeros between 0 and 1, or N:M with 0 < N < M, N kept of every "
            "M inputs in a row.",
            "Write 0.5, 50%, 2:4 or 4:8, for example.",
        )

    def __str__(self) -> str:
        return f"{self.n_kept}:{self.n_of}" if self.n_of else f"{self.share:g}"


def dropped(scores: torch.Tensor, pattern: Pattern, group: str) -> torch.Tensor:
    """(out, in) bool: the lowest of each group, exactly as many as the pattern says.

    Of equal scores those further left, and further up, go first. A share is rounded to weights.
    """
    if pattern.n_of:
        groups, n = scores.unflatten(1, (-1, pattern.n_of)), pattern.n_of - pattern.n_kept
    else:
        groups = scores if group == "row" else scores.flatten()
        n = round(pattern.share * groups.shape[-1])
    lowest = groups.argsort(dim=-1, stable=True)[..., :n]
    gone = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, lowest, value=True)
    return gone.reshape(scores.shape)


def compensated(
    weight: torch.Tensor,
    gone: torch.Tensor,
    axes: tuple[str, ...] = (),
    clip: tuple[float, float] = (0.5, 2.0),
) -> torch.Tensor:
    """(out, in) in the weight's dtype: zero where `gone`, the rest with the energy it had.

    Energy of a column, or of a row, is the sum of squares around the mean that it had when it was
    whole. What is left is stretched around that mean by the root of whole over left, within `clip`,
    and what is gone becomes zero again. Columns come first; the rows then move them a little. After
    Yu et al., arXiv 2602.07375; the bounds are ours.
    """
    whole = _wide(weight)
    gone = gone.to(whole.device)
    sparse = whole.masked_fill(gone, 0.0)
    for dim in (dim for axis, dim in AXES.items() if axis in axes):
        mean = whole.mean(dim=dim, keepdim=True)
        energy = (whole - mean).square().sum(dim=dim, keepdim=True)
        left = (sparse - mean).square().sum(dim=dim, keepdim=True)
        ratio = torch.where(left > 0, (energy / left).sqrt().clamp(*clip), 1.0)
        # So written, a ratio of 1 changes no bit.
        sparse = (sparse + (ratio - 1) * (sparse - mean)).masked_fill(gone, 0.0)
    return sparse.to(weight.dtype).to(weight.device)


def _wide(values: torch.Tensor) -> torch.Tensor:
    """In float64, which Apple's accelerators have not."""
    values = values.detach()
    return (values.cpu() if values.device.type == "mps" else values).double()
