"""Scores from a JSON of elsewhere: checked against the model, never trusted, never evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockviz.errors import BadInput, BadPlan
from blockviz.rankings.checked import MAX_TEXT, Reader, clean_text, said
from blockviz.types import BlockId, DataOrigin, ModelInfo, Provenance, Scores, ScoreTable, Unit

SCHEMA = "blockviz/scores/1"
PREFIX = "imported:"
MAX_METRICS = 64
MAX_ORIGIN = 200
MAX_VERSIONS = 32
OTHER_MODEL = " (other model)"
WRITE = 'Write {"metrics": {"mine": {"values": {"0.attn": 1.0, ...}}}} with every block.'


def read_scores(data: object, info: ModelInfo, *, name: str) -> ScoreTable:
    """The metrics of a parsed scores JSON as rows `imported:...` of this model; BadInput if unfit.

    Three forms: what blockviz saves (`blockviz/scores/1`); `{"metrics": {"mine": {"values":
    {"0.attn": 1.0, ...}}}}`, where an entry may also have `title`, `unit_label`, `raw`, `stderr`,
    `baseline`, `per_window` and `higher_means` (`keep`, or `remove` to turn the signs of `values`
    and `per_window`); or the values alone, which then are one metric called `name`, as the import
    is. A metric must score every layer, every block, or every attention or MLP block.
    Scores of a model of another name whose blocks fit are kept, and marked in title and
    parameters (`scored_on`). Parameters, runs of layers and matrices are not taken over.
    """
    return _File(clean_text(name) or "scores", info).table(data)


@dataclass(frozen=True)
class _File(Reader):
    """The file `label`, to be read for the model of `info`."""

    info: ModelInfo

    def is_other(self, model: str) -> bool:
        """Is that another model's name? Owner and case aside, since the same files have both."""
        names = (clean_text(n, MAX_ORIGIN).casefold() for n in (model, self.info.name))
        one, other = (n.replace("\\", "/").rpartition("/")[2] for n in names)
        return one != other

    def table(self, data: object) -> ScoreTable:
        if not isinstance(data, Mapping):
            self.refuse(f"The file holds {said(data)} instead of a JSON object.", WRITE)
        if "schema" in data and data["schema"] != SCHEMA:
            self.refuse(
                f"It is marked as {said(data['schema'])} instead of {SCHEMA!r}.",
                "Export scores from this version, or leave the mark out.",
            )
        has_metrics = "metrics" in data or "schema" in data
        entries = data.get("metrics") if has_metrics else {self.label: {"values": data}}
        if not isinstance(entries, Mapping):
            self.refuse(f'Its "metrics" are {said(entries)} instead of an object.', WRITE)
        if not 1 <= len(entries) <= MAX_METRICS:
            self.refuse(
                f"It has {len(entries)} metrics, and between 1 and {MAX_METRICS} can be taken.",
                "Keep those that you want to compare.",
            )
        given = data.get("provenance") if has_metrics else None
        provenance = self.provenance(given)
        rows = [self.scores(key, entry, provenance.model) for key, entry in entries.items()]
        found = {row.metric: row for row in rows}
        if len(found) < len(rows):
            self.refuse(
                "Two of its metrics have the same name up to what can be shown.",
                "Give each its own name, of at most 60 characters.",
            )
        return ScoreTable(provenance, found, is_partial=data.get("partial") is True)

    def scores(self, key: object, entry: object, scored_on: str) -> Scores:
        name = clean_text(key) if isinstance(key, str) else ""
        if not name:
            self.refuse("One of its metrics has no name.", WRITE)
        if not isinstance(entry, Mapping) or not isinstance(entry.get("values"), Mapping):
            self.refuse(f'{name!r} has no object "values".', WRITE)
        origin = f", scored on {scored_on}," if self.is_other(scored_on) else ""
        given = self.numbers(entry["values"], f"{name!r}{origin}")
        self.check_blocks(given, f"{name!r}{origin}")
        turned = self.choice(entry, "higher_means", ("keep", "remove")) == "remove"
        sign = -1.0 if turned else 1.0
        raw, error = (self.same_blocks(entry, field, name, given) for field in ("raw", "stderr"))
        if error and min(error.values()) < 0:
            self.refuse(f"A standard error of {name!r} is negative.", "Write errors as 0 or more.")
        windows = self.windows(entry.get("per_window"), name, given)
        parameters = {"imported_from": self.label}
        title = self.text(entry, "title") or name
        if origin:
            parameters["scored_on"] = scored_on
            title = title[: MAX_TEXT - len(OTHER_MODEL)] + OTHER_MODEL
        base = entry.get("baseline")
        return Scores(
            metric=PREFIX + name,
            title=title,
            values={b: sign * v + 0.0 for b, v in given.items()},  # + 0.0: no -0
            raw=given if raw is None else raw,
            unit_label=self.text(entry, "unit_label"),
            parameters=parameters,
            stderr=error,
            baseline=None if base is None else self.number(base, f"The baseline of {name!r}"),
            per_window=windows and {b: tuple(sign * v for v in row) for b, row in windows.items()},
        )

    def numbers(self, given: Mapping[object, object], what: str) -> dict[BlockId, float]:
        found: dict[BlockId, float] = {}
        for key, value in given.items():
            block = self.block(key, what)
            if block in found:
                self.refuse(f"{what} scores {block} twice.", "Keep one number for each block.")
            found[block] = self.number(value, f"{what} at {block}")
        return found

    def block(self, key: object, what: str) -> BlockId:
        try:
            block = BlockId.parse(key)
        except BadPlan as error:
            raise BadInput(
                self.asked,
                f"{what} names {said(key)}, which is no block.",
                "Write LAYER.PART with attn, mlp or layer, such as 18.attn.",
            ) from error
        if block.layer >= self.info.n_layers:
            self.refuse(
                f"{what} names {block}, but {self.info.name} has {self.info.n_layers} layers, "
                f"0 to {self.info.n_layers - 1}.",
                "Open the model that was scored.",
            )
        return block

    def check_blocks(self, given: Mapping[BlockId, float], what: str) -> None:
        parts = {b.part for b in given}
        if "layer" in parts and len(parts) > 1:
            self.refuse(
                f"{what} scores whole layers and blocks together.",
                "Make it two metrics, one of layers and one of blocks.",
            )
        unit: Unit = next(iter(parts)) if len(parts) == 1 else "block"
        missing = [str(b) for b in self.info.units(unit) if b not in given]
        if missing:
            more = ", ..." if len(missing) > 4 else ""
            self.refuse(
                f"{what} has no score for {len(missing)} of the "
                f"{len(self.info.units(unit))} blocks of {self.info.name}: "
                f"{', '.join(missing[:4])}{more}.",
                "Score every block of the model that is open.",
            )

    def same_blocks(
        self, entry: Mapping[str, Any], field: str, name: str, values: Mapping[BlockId, float]
    ) -> dict[BlockId, float] | None:
        given = entry.get(field)
        if given is None:
            return None
        if not isinstance(given, Mapping):
            self.refuse(f'"{field}" of {name!r} is {said(given)}.', f'Leave "{field}" out.')
        found = self.numbers(given, f'"{field}" of {name!r}')
        if found.keys() != values.keys():
            self.refuse(
                f'"{field}" of {name!r} is not of the same blocks as its "values".',
                f'Give "{field}" of every block, or leave it out.',
            )
        return found

    def windows(
        self, given: object, name: str, values: Mapping[BlockId, float]
    ) -> dict[BlockId, tuple[float, ...]] | None:
        if given is None:
            return None
        what = f'"per_window" of {name!r}'
        rows = given if isinstance(given, Mapping) else {}
        found = {
            self.block(key, what): tuple(self.number(v, what) for v in row)
            for key, row in rows.items()
            if isinstance(row, list | tuple)
        }
        lengths = {len(row) for row in found.values()}
        is_whole = len(found) == len(rows) and found.keys() == values.keys()
        if not is_whole or len(lengths) != 1 or lengths == {0}:
            self.refuse(
                f"{what} has not one list of the same length for each block.",
                "Give as many numbers for every block, or leave it out.",
            )
        return found

    def provenance(self, given: object) -> Provenance:
        """That of the file, as far as it goes; otherwise one that says `imported`."""
        info, mark = self.info, {"imported": self.label}
        if given is None:
            return Provenance(
                None, info.name, info.revision, info.quantisation, "", "imported", 0, mark
            )
        if not isinstance(given, Mapping):
            self.refuse(f'Its "provenance" is {said(given)}.', 'Leave "provenance" out.')
        named = given.get("versions")
        pairs = named.items() if isinstance(named, Mapping) else ()
        texts = [(k, v) for k, v in pairs if isinstance(k, str) and isinstance(v, str)]
        versions = {clean_text(k): clean_text(v) for k, v in texts[:MAX_VERSIONS]}
        return Provenance(
            data=self.origin(given) if "dataset" in given else None,
            model=self.text(given, "model", MAX_ORIGIN) or info.name,
            revision=self.text(given, "revision", MAX_ORIGIN),
            quantisation=self.text(given, "quantisation", MAX_ORIGIN),
            dtype=self.text(given, "dtype", MAX_ORIGIN),
            device=self.text(given, "device", MAX_ORIGIN),
            threads=self.count(given, "threads"),
            versions={**versions, **mark},
        )

    def origin(self, given: Mapping[str, Any]) -> DataOrigin:
        return DataOrigin(
            dataset=self.text(given, "dataset", MAX_ORIGIN),
            split=self.text(given, "split", MAX_ORIGIN),
            mode=self.choice(given, "mode", ("stream", "per_sample")),
            n_samples=self.count(given, "n_samples"),
            seq_len=self.count(given, "seq_len"),
            n_tokens=self.count(given, "n_tokens"),
            seed=self.count(given, "seed"),
            token_hash=self.text(given, "token_hash", MAX_ORIGIN),
            role=self.choice(given, "role", ("calibration", "selection", "evaluation")),
        )
