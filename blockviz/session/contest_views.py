"""What a front end asks of a contest, and who may enter it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockviz.data import public_name
from blockviz.registry import Registry
from blockviz.search import PRESETS, STRATEGIES
from blockviz.session.views import ScoreRequest
from blockviz.settings import parse_method
from blockviz.sources.cache import file_sha256


@dataclass(frozen=True)
class Entrant:
    """A recipe and its repairs: of several searches and repairs the best on held-out windows is
    taken.

    searches: fields of search requests beside the text and the target.
    """

    name: str
    title: str
    searches: tuple[Mapping[str, Any], ...] = ({},)
    preset: str = ""
    repairs: tuple[str, ...] = ()


# What may go behind a cut of ours: everything here changes weights that are stored anyway.
OUR_REPAIRS = ("writer_refit", "writer_refit:ridge=0.5")
OURS = (
    Entrant(
        "blockviz",
        "blockviz, swaps then repair",
        tuple(
            {"objective": "ppl", "strategy": "swap", "unit": unit} for unit in ("layer", "block")
        ),
        repairs=OUR_REPAIRS,
    ),
    Entrant(
        "blockviz_repaired",
        "blockviz, repair in the search",
        ({"objective": "ppl", "strategy": "repair_greedy", "unit": "layer"},),
        repairs=OUR_REPAIRS,
    ),
)


def _published() -> tuple[Entrant, ...]:
    """Every preset but those that go by the answers to a task, which the contest asks itself."""
    return tuple(
        Entrant(p.name, p.title, preset=p.name, repairs=(p.repair,) if p.repair else ())
        for p in PRESETS
        if p.settings.get("objective") != "acc"
    )


def entrants(names: tuple[str, ...]) -> tuple[Entrant, ...]:
    """Those of these names, or all there are; UnknownName for one that is none."""
    every: Registry[Entrant] = Registry("entrant")
    for entrant in (*_published(), *OURS):
        every.register(entrant)
    return tuple(every.get(name) for name in names or every.names())


def ends_itself(settings: Mapping[str, Any]) -> bool:
    """Whether the search goes as far as a threshold lets it, whatever the target."""
    return parse_method(STRATEGIES, settings["strategy"]).objective != ""


@dataclass(frozen=True)
class ContestRequest:
    """Which recipes meet, at which size, on which texts.

    layers: each removes at least as many parameters as so many layers hold. text: of which every
    draw takes other windows, the first ones to search on (n_samples of seq_len), those behind to
    fit on (n_fit of fit_seq_len), the next n_held to choose by. draws: seeds. evaluation: of the
    perplexities; tasks, limit: names and the first rows of each.
    """

    layers: int = 7
    names: tuple[str, ...] = ()
    draws: tuple[int, ...] = (1, 2, 3)
    text: ScoreRequest = field(default_factory=ScoreRequest)
    n_fit: int = 96
    n_held: int = 8
    fit_seq_len: int = 512
    evaluation: ScoreRequest = field(
        default_factory=lambda: ScoreRequest(n_samples=24, seq_len=512)
    )
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    memory_bytes: int | None = None

    def settings(self) -> dict[str, Any]:
        """What must be the same for entries of two runs to stand side by side."""
        path = Path(self.text.calibration)
        return {
            "layers": self.layers,
            "calibration": public_name(self.text.calibration),
            # Two files may share a name; the evaluation text has its hash in the provenance.
            "calibration_sha256": file_sha256(path) if path.is_file() else "",
            "n_samples": self.text.n_samples,
            "seq_len": self.text.seq_len,
            "fit_samples": self.n_fit,
            "fit_held": self.n_held,
            "fit_seq_len": self.fit_seq_len,
            "data": public_name(self.evaluation.calibration),
            "data_samples": self.evaluation.n_samples,
            "data_seq_len": self.evaluation.seq_len,
            "tasks": list(self.tasks),
            "limit": self.limit,
        }
