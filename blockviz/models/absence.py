"""What stands in for a removed block, for a while (mask) or for good (prune)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

CACHE_NAMES = ("past_key_values", "layer_past", "past_key_value")


def no_attention(attention: nn.Module, args: tuple, kwargs: dict) -> tuple[torch.Tensor, None]:
    """The output of an attention block that is not there: zeros, and a cache that still counts.

    The library measures how long a cached text is on one layer's cache slot. A slot that is never
    written would restart the positions, so one number per token is written in place of the keys
    and the values.
    """
    hidden = args[0] if args else kwargs["hidden_states"]
    cache = next((kwargs[n] for n in CACHE_NAMES if kwargs.get(n) is not None), None)
    if cache is not None:
        marks = hidden.new_zeros(hidden.shape[0], 1, hidden.shape[1], 1)
        cache.update(marks, marks, attention.layer_idx)
    return torch.zeros_like(hidden), None


def no_mlp(args: tuple, kwargs: dict) -> torch.Tensor:
    """The output of an MLP block that is not there."""
    return torch.zeros_like(args[0] if args else kwargs["hidden_states"])


class AbsentAttention(nn.Module):
    """Takes the place of a removed attention block; holds no weights."""

    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        return no_attention(self, args, kwargs)


class AbsentMlp(nn.Module):
    """Takes the place of a removed MLP block; holds no weights."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return no_mlp(args, kwargs)


class AbsentNorm(nn.Module):
    """Takes the place of a removed block's norm: what follows ignores its output or adds zeros."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


@contextmanager
def replaced(forwards: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Inside, each module computes the given function instead; before and after, its own."""
    with ExitStack() as stack:
        for module, forward in forwards:
            previous = module.__dict__.get("forward")
            module.forward = forward
            stack.callback(_restore, module, previous)
        yield


def _restore(module: nn.Module, previous: Callable[..., Any] | None) -> None:
    if previous is None:
        del module.forward
    else:
        module.forward = previous
