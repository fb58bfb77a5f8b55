"""Blocks of a decoder model: their ids, their sizes, and what is known of a loaded model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from blockviz.errors import BadPlan

Part = Literal["attn", "mlp", "layer"]
Unit = Literal["block", "layer", "attn", "mlp"]
PARTS: tuple[Part, ...] = ("attn", "mlp", "layer")
UNITS: tuple[Unit, ...] = ("block", "layer", "attn", "mlp")


@dataclass(frozen=True)
class BlockId:
    """One unit of removal, `12.attn`: 0-based layer and which part of it (`layer` = both)."""

    layer: int
    part: Part

    def __post_init__(self) -> None:
        if isinstance(self.layer, bool) or not isinstance(self.layer, int) or self.layer < 0:
            raise ValueError(f"layer must be a non-negative int, not {self.layer!r}")
        if self.part not in PARTS:
            raise ValueError(f"part must be one of {PARTS}, not {self.part!r}")

    def __str__(self) -> str:
        return f"{self.layer}.{self.part}"

    def __lt__(self, other: BlockId) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[int, int]:
        return self.layer, PARTS.index(self.part)

    @property
    def parts(self) -> tuple[BlockId, ...]:
        """The attention and/or MLP block it stands for."""
        if self.part == "layer":
            return BlockId(self.layer, "attn"), BlockId(self.layer, "mlp")
        return (self,)

    @classmethod
    def parse(cls, text: str) -> BlockId:
        """BlockId of `"12.attn"`, in any case; BadPlan on anything else."""
        head, dot, part = text.strip().partition(".") if isinstance(text, str) else ("", "", "")
        part = part.lower()
        if dot and head.isascii() and head.isdigit() and len(head) < 6 and part in PARTS:
            return cls(int(head), part)
        raise BadPlan(
            f"The block {str(text)[:40]!r} was named.",
            "That is not a block id.",
            "Write LAYER.PART with a 0-based layer and attn, mlp or layer, such as 18.attn.",
        )


@dataclass(frozen=True)
class Block:
    """An attention or MLP block as found in a model. `n_parameters` includes its own norms.

    n_shared: of a norm that both blocks of a layer read through, which goes with the last of them;
    0 with one of the two, so that it counts once.
    """

    id: BlockId
    n_parameters: int
    module_path: str
    kv_bytes_per_token: int = 0
    n_shared: int = 0


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a loaded model: identity, sizes, and every removable block in order."""

    name: str
    revision: str
    family: str
    dtype: str
    device: str
    n_layers: int
    hidden_size: int
    vocab_size: int
    max_seq_len: int
    n_parameters: int
    blocks: tuple[Block, ...]
    is_parallel: bool = False
    has_chat_template: bool = False
    quantisation: str = ""
    license: str = ""
    unread: str = ""  # what its files hold besides, in words

    def __post_init__(self) -> None:
        expected = [BlockId(i, p) for i in range(self.n_layers) for p in ("attn", "mlp")]
        if [b.id for b in self.blocks] != expected:
            raise ValueError("blocks must be 0.attn, 0.mlp, 1.attn, ... for every layer")

    def units(self, unit: Unit) -> tuple[BlockId, ...]:
        """All of a unit, in order of depth."""
        if unit == "layer":
            return tuple(BlockId(i, "layer") for i in range(self.n_layers))
        return tuple(b.id for b in self.blocks if unit in ("block", b.id.part))

    def candidates(self, unit: Unit) -> tuple[BlockId, ...]:
        """Those of a unit that can be removed: not what the model lacks already."""
        return tuple(u for u in self.units(unit) if not {*u.parts} <= {*self.absent})

    @property
    def absent(self) -> tuple[BlockId, ...]:
        """The blocks that a model lacks already, such as a custom export opened again."""
        return tuple(b.id for b in self.blocks if not b.n_parameters)

    def parameters_of(self, blocks: Iterable[BlockId]) -> int:
        gone = {part for b in blocks for part in b.parts}
        alone = sum(b.n_parameters for b in self.blocks if b.id in gone)
        layers = {b.layer for b in gone if {*BlockId(b.layer, "layer").parts} <= gone}
        return alone + sum(b.n_shared for b in self.blocks if b.id.layer in layers)

    def kv_bytes_per_token(self, removed: Iterable[BlockId] = ()) -> int:
        gone = {part for b in removed for part in b.parts}
        return sum(b.kv_bytes_per_token for b in self.blocks if b.id not in gone)

    def to_json(self) -> dict[str, Any]:
        blocks = [
            {
                "id": str(b.id),
                "n_parameters": b.n_parameters,
                "module_path": b.module_path,
                "kv_bytes_per_token": b.kv_bytes_per_token,
                "n_shared": b.n_shared,
            }
            for b in self.blocks
        ]
        return {**_fields(self), "blocks": blocks}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelInfo:
        blocks = tuple(Block(**{**b, "id": BlockId.parse(b["id"])}) for b in data["blocks"])
        return cls(**{**data, "blocks": blocks})


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
