"""What a model would write if it stopped after each of its blocks, at one position of a text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from blockviz.types.data import Provenance


@dataclass(frozen=True)
class Lens:
    """Early exits at one position. Depth 0 is the embedding, then one row per block in order.

    context        tokens up to and with the position, as text
    depths         (depth,)    "embedding", "0.attn", "0.mlp", ...
    tokens         (depth, k)  the likeliest next tokens, likeliest first
    probabilities  (depth, k)  in [0, 1], falling along k
    entropy        (depth,)    nats, of the whole distribution
    rank_of_final  (depth,)    rank of the last depth's top token, 1 = on top
    kl             (depth,)    nats, from the last depth's distribution
    """

    provenance: Provenance
    context: tuple[str, ...]
    position: int
    depths: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    probabilities: tuple[tuple[float, ...], ...]
    entropy: tuple[float, ...]
    rank_of_final: tuple[int, ...]
    kl: tuple[float, ...]

    def __post_init__(self) -> None:
        n = len(self.depths)
        if n == 0:
            raise ValueError("a lens needs at least one depth")
        if self.position < 0 or len(self.context) != self.position + 1:
            raise ValueError("context must hold the tokens up to and with the position")
        for name in ("tokens", "probabilities", "entropy", "rank_of_final", "kl"):
            if len(getattr(self, name)) != n:
                raise ValueError(f"{name} must have one entry for each of the {n} depths")
        k = len(self.tokens[0])
        if k == 0 or any(len(row) != k for row in (*self.tokens, *self.probabilities)):
            raise ValueError(f"tokens and probabilities must be (depth, k) = ({n}, {k}), k > 0")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if not all(0 <= p <= 1 for row in self.probabilities for p in row):
            raise ValueError("probabilities must lie in [0, 1]")
        if not all(a >= b for row in self.probabilities for a, b in pairwise(row)):
            raise ValueError("the likeliest token of each depth comes first")
        if not all(math.isfinite(x) for x in (*self.entropy, *self.kl)):
            raise ValueError("entropy and kl must be finite")
        if not all(rank >= 1 for rank in self.rank_of_final):
            raise ValueError("ranks begin at 1")

    def to_json(self) -> dict[str, Any]:
        names = [n for n in self.__dataclass_fields__ if n != "provenance"]
        head = {"schema": "blockviz/lens/1", "provenance": self.provenance.to_json()}
        return {**head, **{name: _plain(getattr(self, name)) for name in names}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Lens:
        names = [n for n in cls.__dataclass_fields__ if n != "provenance"]
        values = {name: _frozen(data[name]) for name in names}
        return cls(provenance=Provenance.from_json(data["provenance"]), **values)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value
