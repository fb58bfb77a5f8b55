"""How well a correction meets the whole model's stream: moments of channels as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from blockviz.corrections import Fit
from blockviz.stats.pairs import ChannelMoments
from blockviz.types import CHANNELS, PlaceFit


def place_fits(fits: Sequence[Fit], *, with_channels: bool) -> tuple[PlaceFit, ...]:
    """How well each place was met; with CHANNELS for those behind which a gap lies.

    A place at which a stream grew beyond numbers is left out.
    """
    found = (_place_fit(f, with_channels=with_channels and bool(f.gap)) for f in fits)
    return tuple(f for f in found if math.isfinite(f.before + f.after + f.size_after))


def _place_fit(found: Fit, *, with_channels: bool) -> PlaceFit:
    before, after = found.before, found.after
    return PlaceFit(
        block=found.block,
        gap=found.gap,
        before=_share(before),
        after=_share(after),
        held_before=None if found.held_before is None else _share(found.held_before),
        held_after=None if found.held_after is None else _share(found.held_after),
        size_before=_size(before.mean_u, before.var_u),
        size_after=_size(after.mean_u, after.var_u),
        size_whole=_size(before.mean_y, before.var_y),
        channels=_channels(before, after) if with_channels else {},
    )


def _share(found: ChannelMoments) -> float:
    """Mean square of the distance as a share of the whole model's variance, all channels added."""
    error, spread = float(found.mse.sum()), float(found.var_y.sum())
    return error / spread if spread > 0 else error


def _size(mean: torch.Tensor, variance: torch.Tensor) -> float:
    return math.sqrt(float((mean.square() + variance).mean()))


def _channels(before: ChannelMoments, after: ChannelMoments) -> dict[str, tuple[float, ...]]:
    rows = {
        "mean_before": before.mean_u,
        "mean_after": after.mean_u,
        "mean_whole": before.mean_y,
        "std_before": before.var_u.sqrt(),
        "std_after": after.var_u.sqrt(),
        "std_whole": before.var_y.sqrt(),
        "rho_before": before.rho,
        "rho_after": after.rho,
    }
    return {name: tuple(float(f"{x:.5g}") for x in rows[name].tolist()) for name in CHANNELS}
