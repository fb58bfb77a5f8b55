"""Token windows and where they come from; the provenance that every number carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

# How the names of files end that hold texts: one a row of a column, or the whole file.
TABLE_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
TEXT_ENDINGS = (".txt", ".raw", *TABLE_ENDINGS)


@dataclass(frozen=True)
class DataOrigin:
    """Where the tokens of a CalibrationSet come from. `token_hash`: sha256 over ids and mask."""

    dataset: str
    split: str
    mode: Literal["stream", "per_sample"]
    n_samples: int
    seq_len: int
    n_tokens: int
    seed: int
    token_hash: str
    role: Literal["calibration", "selection", "evaluation"] = "calibration"

    @property
    def part(self) -> str:
        """`evaluation part`; the one that choices are made by is the validation part."""
        return f"{'validation' if self.role == 'selection' else self.role} part"

    def describe(self) -> str:
        """Text, part and windows: two parts of one text have two perplexities."""
        return f"{self.dataset}, {self.part}, {self.n_samples} × {self.seq_len} tokens"


def short_revision(revision: str) -> str:
    """The first seven digits of a commit; any other name as it is."""
    is_commit = len(revision) >= 12 and set(revision) <= set("0123456789abcdef")
    return revision[:7] if is_commit else revision


@dataclass(frozen=True)
class Provenance:
    """Everything needed to repeat a number. Every result carries one; caches are keyed by it."""

    data: DataOrigin | None
    model: str
    revision: str
    quantisation: str
    dtype: str
    device: str
    threads: int
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Flat dict: the data's fields beside the model's and the run's."""
        flat = {**asdict(self)}
        data = flat.pop("data") or {}
        return {**data, **flat}

    @classmethod
    def from_json(cls, flat: Mapping[str, Any]) -> Provenance:
        names = set(DataOrigin.__dataclass_fields__)
        data = {k: v for k, v in flat.items() if k in names}
        rest = {k: v for k, v in flat.items() if k not in names}
        return cls(data=DataOrigin(**data) if data else None, **rest)


@dataclass(frozen=True)
class CalibrationBatch:
    """input_ids (batch, seq) int64; attention_mask (batch, seq) bool, False on right padding."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor


@dataclass(frozen=True)
class CalibrationSet:
    """Token windows: input_ids (n_samples, seq) int64, attention_mask same shape bool, origin."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    origin: DataOrigin

    def __post_init__(self) -> None:
        if self.input_ids.ndim != 2 or self.input_ids.shape != self.attention_mask.shape:
            raise ValueError(
                "input_ids and attention_mask must both be (n_samples, seq); got "
                f"{tuple(self.input_ids.shape)} and {tuple(self.attention_mask.shape)}"
            )

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def batches(self, batch_size: int) -> Iterator[CalibrationBatch]:
        for i in range(0, len(self), batch_size):
            rows = slice(i, i + batch_size)
            yield CalibrationBatch(self.input_ids[rows], self.attention_mask[rows])

    def rows(self, wanted: Sequence[int]) -> CalibrationBatch:
        """Some of the windows, in the order given."""
        rows = list(wanted)
        return CalibrationBatch(self.input_ids[rows], self.attention_mask[rows])
