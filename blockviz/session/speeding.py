"""Rows of a report timed in turns: the original, the plan, its repairs, and written exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from blockviz.errors import BadInput
from blockviz.evaluate import Speed, measure_speed, speedup
from blockviz.models.model import BlockModel
from blockviz.models.reload import reload
from blockviz.types import Done, Events, Progress, PruningPlan, passing


@dataclass(frozen=True)
class SpeedRequest:
    """exported: folders of written models, timed beside the rows, as they are loaded elsewhere."""

    repeats: int = 10
    n_prompt: int = 64
    n_new: int = 128
    exported: tuple[Path, ...] = ()

    def check(self) -> None:
        for value, least, what in (
            (self.repeats, 2, "repeats"), (self.n_prompt, 1, "tokens of a prompt"),
            (self.n_new, 1, "new tokens"),
        ):  # fmt: skip
            if value < least:
                raise BadInput(
                    f"Speed with {value} {what} was asked for.", f"The least is {least}.",
                    "Ask for more.",
                )  # fmt: skip
        for folder in self.exported:
            if not (folder / "config.json").is_file():
                raise BadInput(
                    f"The export in {folder.name} was to be timed.",
                    "There is no config.json in it.",
                    "Give a folder that blockviz export has written.",
                )


def skipping(model: BlockModel, plan: PruningPlan) -> nn.Module:
    """The model without the plan's blocks, as fast as that can be."""
    return model.module if not plan.removed else model.prune(plan).module


def time_rows(model: BlockModel, modules: Mapping[str, nn.Module], request: SpeedRequest) -> Events:
    """Done({name: entry}) of every module and export, each held against the first."""
    timed = dict(modules)
    for folder in request.exported:
        name = folder.resolve().name
        yield Progress("loading", 0, 1, name)
        timed[f"exported {name}"] = reload(folder).module.to(model.device)
    found: dict[str, Speed] = yield from passing(
        measure_speed(timed, n_prompt=request.n_prompt, n_new=request.n_new,
                      repeats=request.repeats)
    )  # fmt: skip
    first = next(iter(found.values()))
    yield Done({name: _entry(speed, first) for name, speed in found.items()})


def _entry(speed: Speed, first: Speed) -> dict[str, Any]:
    return {
        "prefill_tokens_per_second": speed.prefill_rate,
        "decode_tokens_per_second": speed.decode_rate,
        "prefill_speedup": _interval(speedup(first.prefill_seconds, speed.prefill_seconds)),
        "decode_speedup": _interval(speedup(first.decode_seconds, speed.decode_seconds)),
        **speed.to_json(),
    }


def _interval(found: Sequence[float]) -> dict[str, float]:
    return dict(zip(("median", "low", "high"), found, strict=True))
