"""The finished example that the app opens on: results of our own command line, kept in assets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blockviz.evaluate import Perplexity
from blockviz.session.views import Continuation, ScoreRequest
from blockviz.types import (
    BlockId,
    Contest,
    DataOrigin,
    Interactions,
    Judgement,
    Lens,
    ModelInfo,
    RepairTable,
    ScoreTable,
    SearchRun,
)

ASSETS = Path(__file__).parents[2] / "assets"
EXAMPLE_PATH = ASSETS / "example.json"
CONTEST_PATH = ASSETS / "contest.json"
TASK, TASK_ROWS = "arc_easy", 48


@dataclass(frozen=True)
class Example:
    """Scores, live perplexities and texts of the demo model.

    live: removed block ids (sorted, as text) -> Perplexity on the live windows `origin`.
    """

    info: ModelInfo
    table: ScoreTable
    origin: DataOrigin
    live: Mapping[tuple[str, ...], Perplexity]
    removed: tuple[str, ...]
    continuation: Continuation
    judgement: Judgement | None = None
    lens: Lens | None = None
    search: SearchRun | None = None
    interactions: Interactions | None = None
    repair: RepairTable | None = None

    @property
    def request(self) -> ScoreRequest:
        """What its scores are the answer to."""
        return ScoreRequest(metrics=tuple(self.table.metrics), tasks=TASK, limit=TASK_ROWS)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": "blockviz/example/1",
            "info": self.info.to_json(),
            "scores": self.table.to_json(),
            "live": {
                "origin": asdict(self.origin),
                "windows": [
                    {"removed": list(k), "nll": list(v.window_nll), "n_tokens": v.n_tokens}
                    for k, v in self.live.items()
                ],
            },
            "removed": list(self.removed),
            "continuation": asdict(self.continuation),
            "judgement": self.judgement.to_json() if self.judgement else None,
            "lens": self.lens.to_json() if self.lens else None,
            "search": self.search.to_json() if self.search else None,
            "pairs": self.interactions.to_json() if self.interactions else None,
            "repair": self.repair.to_json() if self.repair else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Example:
        live = {
            live_key(BlockId.parse(b) for b in row["removed"]): Perplexity(
                tuple(row["nll"]), row["n_tokens"]
            )
            for row in data["live"]["windows"]
        }
        return cls(
            info=ModelInfo.from_json(data["info"]),
            table=ScoreTable.from_json(data["scores"]),
            origin=DataOrigin(**data["live"]["origin"]),
            live=live,
            removed=tuple(data["removed"]),
            continuation=Continuation(**data["continuation"]),
            judgement=Judgement.from_json(data["judgement"]) if data.get("judgement") else None,
            lens=Lens.from_json(data["lens"]) if data.get("lens") else None,
            search=SearchRun.from_json(data["search"]) if data.get("search") else None,
            interactions=Interactions.from_json(data["pairs"]) if data.get("pairs") else None,
            repair=RepairTable.from_json(data["repair"]) if data.get("repair") else None,
        )

    @classmethod
    def load(cls, path: Path = EXAMPLE_PATH) -> Example:
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))


def load_contest(path: Path = CONTEST_PATH) -> Contest | None:
    """The contest of recipes on the demo model; None where this copy has none."""
    if not path.exists():
        return None
    return Contest.from_json(json.loads(path.read_text(encoding="utf-8")))


def live_key(removed: Any) -> tuple[str, ...]:
    """Attention and MLP block ids in order of depth: the same for every order of removal."""
    return tuple(str(b) for b in sorted({part for b in removed for part in b.parts}))
