"""How fast models read a prompt and write after it, timed in turns."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from blockviz.types import Done, Events, Progress

N_DRAWS = 2000


@dataclass(frozen=True)
class Speed:
    """Seconds of every repeat: to read n_prompt tokens at once, and to write n_new with a cache.

    kv_bytes: what the cache held for one token of the prompt.
    """

    n_prompt: int
    n_new: int
    prefill_seconds: tuple[float, ...]
    decode_seconds: tuple[float, ...]
    kv_bytes: float

    @property
    def prefill_rate(self) -> float:
        """Tokens a second, at the median."""
        return self.n_prompt / float(np.median(self.prefill_seconds))

    @property
    def decode_rate(self) -> float:
        return self.n_new / float(np.median(self.decode_seconds))

    def to_json(self) -> dict[str, object]:
        quartiles = {
            name: [float(q) for q in np.percentile(seconds, (25, 50, 75))]
            for name, seconds in (
                ("prefill_seconds", self.prefill_seconds),
                ("decode_seconds", self.decode_seconds),
            )
        }
        return {
            "n_prompt": self.n_prompt,
            "n_new": self.n_new,
            "repeats": len(self.decode_seconds),
            **{f"{name}_quartiles": values for name, values in quartiles.items()},
            "kv_bytes_per_token_held": self.kv_bytes,
        }


def speedup(before: tuple[float, ...], after: tuple[float, ...]) -> tuple[float, float, float]:
    """(median of before / after, its 95 % interval): repeats are paired, since a machine that
    slows down slows the whole turn. The interval is of 2000 draws of repeats, seeded."""
    ratios = np.asarray(before) / np.asarray(after)
    draws = np.random.default_rng(0).integers(len(ratios), size=(N_DRAWS, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), (2.5, 97.5))
    return float(np.median(ratios)), float(low), float(high)


def measure_speed(
    models: Mapping[str, nn.Module], *, n_prompt: int = 64, n_new: int = 128, repeats: int = 10
) -> Events:
    """Done({name: Speed}): each model once to warm up, then all of them in turn, `repeats` times.

    Greedy, batch 1, no end token ends a text; the prompt is drawn by a seed, which costs no less
    time than words do.
    """
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    total = len(models) * (repeats + 1)
    for turn in range(repeats + 1):
        for n, (name, module) in enumerate(models.items()):
            yield Progress("timing", turn * len(models) + n, total, name)
            timed = _timed(module, n_prompt, n_new)
            if turn:
                found[name].append(timed)
    yield Done({name: _speed(n_prompt, n_new, rows) for name, rows in found.items()})


def _speed(n_prompt: int, n_new: int, rows: list[tuple[float, float, float]]) -> Speed:
    prefill, decode, held = zip(*rows, strict=True)
    return Speed(n_prompt, n_new, tuple(prefill), tuple(decode), held[-1])


@torch.inference_mode()
def _timed(module: nn.Module, n_prompt: int, n_new: int) -> tuple[float, float, float]:
    device = module.device
    n_words = module.get_input_embeddings().weight.shape[0]
    ids = torch.randint(n_words, (1, n_prompt), generator=torch.Generator().manual_seed(0))
    ids = ids.to(device)
    started = _now(device)
    output = module(input_ids=ids, use_cache=True, logits_to_keep=1)
    read = _now(device)
    held = _held_bytes(output.past_key_values) / n_prompt
    for _ in range(n_new):
        step = output.logits[:, -1:].argmax(dim=-1)
        output = module(input_ids=step, past_key_values=output.past_key_values, use_cache=True)
    return read - started, _now(device) - read, held


def _held_bytes(cache: object) -> int:
    tensors = (t for layer in cache.layers for t in (layer.keys, layer.values))
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
