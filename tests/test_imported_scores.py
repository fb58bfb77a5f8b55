"""Scores of elsewhere: what is read from them, and that nothing unfit comes through."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from blockviz.errors import BadInput
from blockviz.rankings import read_scores
from blockviz.types import (
    Block,
    BlockId,
    DataOrigin,
    ModelInfo,
    Provenance,
    Scores,
    ScoreTable,
)

ORIGIN = DataOrigin("wikitext", "train", "stream", 4, 16, 64, seed=42, token_hash="0" * 64)


def info(n_layers: int = 2, name: str = "owner/small") -> ModelInfo:
    blocks = tuple(
        Block(BlockId(i, part), 10, f"layers.{i}.{part}")
        for i in range(n_layers)
        for part in ("attn", "mlp")
    )
    return ModelInfo(
        name=name, revision="abc", family="llama", dtype="float32", device="cpu",
        n_layers=n_layers, hidden_size=8, vocab_size=16, max_seq_len=32, n_parameters=1000,
        blocks=blocks, quantisation="Q4_1",
    )  # fmt: skip


def values(n_layers: int = 2, **changed: object) -> dict[str, object]:
    """Importance 0, 1, 2, ... by depth; `changed` as `b0_attn=...`."""
    names = [f"{i}.{part}" for i in range(n_layers) for part in ("attn", "mlp")]
    found: dict[str, object] = {name: float(i) for i, name in enumerate(names)}
    return found | {k[1:].replace("_", "."): v for k, v in changed.items()}


def entry(**more: object) -> dict[str, object]:
    return {"metrics": {"mine": {"values": values(), **more}}}


def refusal(data: object, model: ModelInfo | None = None) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read_scores(data, model or info(), name="theirs.json")
    error = caught.value
    assert type(error) is BadInput
    assert error.asked == "The scores of 'theirs.json' were to be imported."
    assert error.found.endswith(".")
    assert error.todo.endswith(".")
    assert len(str(error)) < 1000
    return error


# --- what is read ---------------------------------------------------------------------------------


def test_the_values_alone_are_one_metric_named_after_the_import():
    table = read_scores(values(), info(), name="theirs.json")
    scores = table.metrics["imported:theirs.json"]
    assert {str(b): v for b, v in scores.values.items()} == values()
    assert scores.raw == scores.values
    assert (scores.metric, scores.title) == ("imported:theirs.json", "theirs.json")
    assert scores.parameters == {"imported_from": "theirs.json"}
    assert table.provenance == Provenance(
        None, "owner/small", "abc", "Q4_1", "", "imported", 0, {"imported": "theirs.json"}
    )


def test_an_entry_written_by_hand():
    table = read_scores(
        entry(
            title="My own",
            unit_label="nats",
            raw=values(b0_attn=7),
            stderr=values(),
            baseline=3,
            per_window={b: [1, 2.5] for b in values()},
        ),
        info(),
        name="x",
    )
    scores = table.metrics["imported:mine"]
    assert (scores.title, scores.unit_label, scores.baseline) == ("My own", "nats", 3.0)
    assert scores.raw[BlockId(0, "attn")] == 7.0
    assert scores.stderr[BlockId(1, "mlp")] == 3.0
    assert scores.per_window == {BlockId.parse(b): (1.0, 2.5) for b in values()}


def test_higher_may_mean_remove():
    """The first block has 0 and the last 3, so the last goes first; zero stays zero, not -0."""
    windows = {b: [v, 2 * v] for b, v in values().items()}
    data = entry(higher_means="remove", stderr=values(), per_window=windows)
    scores = read_scores(data, info(), name="x").metrics["imported:mine"]
    assert list(scores.values.values()) == [0, -1, -2, -3]
    assert math.copysign(1, scores.values[BlockId(0, "attn")]) == 1
    assert list(scores.raw.values()) == list(scores.stderr.values()) == [0, 1, 2, 3]
    assert scores.per_window[BlockId(1, "mlp")] == (-3, -6)
    assert scores.ranks()[BlockId(1, "mlp")] == 1


@pytest.mark.parametrize("parts", [("layer",), ("attn",), ("mlp",), ("mlp", "attn")])
def test_every_unit_can_be_scored(parts: tuple[str, ...]):
    data = {f"{i}.{part}": i for part in parts for i in range(2)}
    scores = read_scores(data, info(), name="x").metrics["imported:x"]
    assert {str(b) for b in scores.values} == set(data)


def saved() -> ScoreTable:
    blocks = {BlockId.parse(b): v for b, v in values().items()}
    scores = Scores(
        metric="bi", title="Block influence", values=blocks, raw=blocks, unit_label="1 - cosine",
        parameters={"k": 3}, stderr=blocks, baseline=1.5,
        per_window={b: (v, v) for b, v in blocks.items()}, seconds=3.0,
    )  # fmt: skip
    provenance = Provenance(
        ORIGIN, "owner/small", "abc", "Q4_1", "bfloat16", "cuda", 2, {"torch": "2"}
    )
    return ScoreTable(provenance, {"bi": scores}, is_partial=True)


def test_what_blockviz_saves_is_read_back():
    table = saved()
    found = read_scores(json.loads(json.dumps(table.to_json())), info(), name="x")
    assert found.is_partial
    assert found.provenance == replace(table.provenance, versions={"torch": "2", "imported": "x"})
    expected = replace(
        table.metrics["bi"], metric="imported:bi", parameters={"imported_from": "x"}, seconds=0.0
    )
    assert found.metrics == {"imported:bi": expected}


def test_an_import_can_be_saved_and_imported_again():
    once = read_scores(saved().to_json(), info(), name="x")
    twice = read_scores(json.loads(json.dumps(once.to_json())), info(), name="y")
    assert ScoreTable.from_json(once.to_json()) == once
    assert list(twice.metrics) == ["imported:imported:bi"]
    assert twice.metrics["imported:imported:bi"].values == once.metrics["imported:bi"].values


@pytest.mark.parametrize("name", ["small", "OTHER/Small", "owner/small"])
def test_owner_and_case_make_no_other_model(name: str):
    data = entry() | {"provenance": {"model": name}}
    scores = read_scores(data, info(), name="x").metrics["imported:mine"]
    assert "scored_on" not in scores.parameters
    assert scores.title == "mine"


def test_scores_of_another_model_that_fit_are_marked():
    data = entry(title="t" * 99) | {"provenance": {"model": "owner/other"}}
    table = read_scores(data, info(), name="x")
    scores = table.metrics["imported:mine"]
    assert scores.parameters == {"imported_from": "x", "scored_on": "owner/other"}
    assert scores.title == "t" * 46 + " (other model)"
    assert table.provenance.model == "owner/other"


def test_texts_are_cut_and_cleaned():
    title = "a\x00b\u202ec\n\t d\ud800 <b>" + "x" * 100
    scores = read_scores(entry(title=title), info(), name="n\x1b[31m").metrics["imported:mine"]
    assert scores.title == "abc d <b>" + "x" * 51
    assert scores.parameters["imported_from"] == "n[31m"
    assert list(read_scores(values(), info(), name="\x00").metrics) == ["imported:scores"]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ([1, 2], "holds a list instead of a JSON object"),
        (None, "holds null instead of"),
        ("0.attn", "holds '0.attn' instead of"),
        ({"schema": "blockviz/scores/2", "metrics": {}}, "'blockviz/scores/2' instead of"),
        ({"schema": ["blockviz/scores/1"]}, "marked as a list instead of 'blockviz/scores/1'"),
        ({"schema": "blockviz/scores/1"}, '"metrics" are null instead of an object'),
        ({"metrics": [1]}, '"metrics" are a list instead of an object'),
        ({"metrics": {}}, "has 0 metrics, and between 1 and 64"),
        ({"metrics": {f"m{i}": {"values": values()} for i in range(65)}}, "has 65 metrics"),
        ({"metrics": {"\x07 ": {"values": values()}}}, "has no name"),
        ({"metrics": {"mine": values()}}, "'mine' has no object \"values\""),
        ({"metrics": {"mine": {"values": [1.0]}}}, "'mine' has no object \"values\""),
        ({"metrics": {"a": {"values": values()}, "a\x00": {"values": values()}}}, "same name"),
        ({}, "has no score for 4 of the 4 blocks of owner/small: 0.attn, 0.mlp, 1.attn, 1.mlp"),
        (entry() | {"provenance": "gpt2"}, "\"provenance\" is 'gpt2'"),
        (entry() | {"provenance": {"model": 3}}, '"model" is a number'),
        (entry() | {"provenance": {"threads": True}}, '"threads" is true'),
        (entry() | {"provenance": {"dataset": "x", "mode": "row"}}, "\"mode\" is 'row'"),
        (entry() | {"provenance": {"dataset": "x", "seed": 1.5}}, '"seed" is 1.5'),
    ],
)
def test_a_file_that_is_none_is_refused(data: object, found: str):
    assert found in refusal(data).found


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"bhead": 1.0}, "'theirs.json' names 'head', which is no block"),
        ({"b2_mlp": 1.0}, "names 2.mlp, but owner/small has 2 layers, 0 to 1"),
        ({"b00_mlp": 1.0}, "scores 0.mlp twice"),
        ({"b0_layer": 1.0}, "scores whole layers and blocks together"),
        ({"b0_mlp": math.nan}, "at 0.mlp is nan"),
        ({"b0_mlp": -math.inf}, "at 0.mlp is -inf"),
        ({"b0_mlp": True}, "at 0.mlp is true"),
        ({"b0_mlp": "1.0"}, "at 0.mlp is '1.0'"),
        ({"b0_mlp": None}, "at 0.mlp is null"),
        ({"b0_mlp": [1.0]}, "at 0.mlp is a list"),
        ({"b0_mlp": 10**400}, "at 0.mlp is a number that is too large"),
        ({"b0_mlp": "__import__('os')"}, "at 0.mlp is \"__import__('os')\""),
    ],
)
def test_values_that_do_not_fit_are_refused(changed: dict[str, object], found: str):
    assert found in refusal(values(**changed)).found


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"higher_means": "maybe"}, "\"higher_means\" is 'maybe'"),
        ({"higher_means": None}, '"higher_means" is null'),
        ({"title": 3}, '"title" is a number'),
        ({"unit_label": ["a"]}, '"unit_label" is a list'),
        ({"baseline": "high"}, "The baseline of 'mine' is 'high'"),
        ({"stderr": values(b0_mlp=-1)}, "standard error of 'mine' is negative"),
        ({"stderr": {"0.attn": 1.0}}, "\"stderr\" of 'mine' is not of the same blocks"),
        ({"raw": [1.0]}, "\"raw\" of 'mine' is a list"),
        ({"raw": values(b1_mlp=math.inf)}, "\"raw\" of 'mine' at 1.mlp is inf"),
        ({"per_window": [1.0]}, "\"per_window\" of 'mine' has not one list"),
        ({"per_window": values()}, "\"per_window\" of 'mine' has not one list"),
        ({"per_window": {b: [] for b in values()}}, "of the same length for each block"),
        ({"per_window": {b: [1] * (1 + i) for i, b in enumerate(values())}}, "of the same length"),
        ({"per_window": {b: ["1"] for b in values()}}, "\"per_window\" of 'mine' is '1'"),
    ],
)
def test_fields_that_do_not_fit_are_refused(more: dict[str, object], found: str):
    assert found in refusal(entry(**more)).found


def test_missing_blocks_are_counted_and_named():
    data = values(8)
    for name in ("0.mlp", "3.attn", "3.mlp", "5.attn", "7.mlp"):
        del data[name]
    found = refusal(data, info(8)).found
    assert "has no score for 5 of the 16 blocks of owner/small: " in found
    assert "0.mlp, 3.attn, 3.mlp, 5.attn, ..." in found


@pytest.mark.parametrize(("n_layers", "found"), [(3, "has 2 layers"), (1, "no score for 2 of")])
def test_another_model_with_other_layers_is_refused_by_name(n_layers: int, found: str):
    data = {
        "provenance": {"model": "owner/other"},
        "metrics": {"mine": {"values": values(n_layers)}},
    }
    error = refusal(data)
    assert "'mine', scored on owner/other," in error.found
    assert found in error.found


def test_a_hostile_name_is_not_echoed_at_length():
    assert len(refusal({"x" * 100_000: 1.0}).found) < 200
    assert "\x00" not in refusal({"\x00\u202e": 1.0}).found


NASTY: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**70, 10**400, -(10**5000), math.nan, math.inf, -math.inf, "",
    "0.attn", "0.layer", "99999.mlp", "²5.attn", "\x00\u202e\ud800", "blockviz/scores/1", "remove",
    "x" * 5000, [], {}, [[]], {"": None},
]  # fmt: skip
KEYS = [
    "schema", "metrics", "provenance", "partial", "mine", "values", "raw", "stderr", "per_window",
    "baseline", "title", "unit_label", "higher_means", "model", "dataset", "seed", "versions",
    "0.attn", "0.mlp", "1.attn", "1.mlp", "0.layer", "7.attn", " 0.attn ", "", "\x00",
]  # fmt: skip


def nasty(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.random()
    if depth > 4 or kind < 0.4:
        return draw.choice(NASTY)
    if kind < 0.55:
        return [nasty(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(KEYS): nasty(draw, depth + 1) for _ in range(draw.randrange(6))}


def spoilt(draw: random.Random, data: Any) -> Any:
    """A valid file with one place at random replaced, removed or added."""
    if not isinstance(data, dict) or not data or draw.random() < 0.15:
        return nasty(draw, 3)
    key = draw.choice([*data, draw.choice(KEYS)])
    if draw.random() < 0.1:
        return {k: v for k, v in data.items() if k != key}
    return {**data, key: spoilt(draw, data.get(key))}


@pytest.mark.parametrize("seed", range(4))
def test_garbage_is_refused_and_never_breaks_the_reader(seed: int):
    draw = random.Random(seed)
    good = saved().to_json()
    n_read = 0
    for i in range(1500):
        data = nasty(draw) if i % 2 else spoilt(draw, good)
        try:
            table = read_scores(data, info(), name="garbage")
        except BadInput as error:
            assert all((error.asked, error.found, error.todo))
            assert len(str(error)) < 1000
            continue
        n_read += 1
        for key, scores in table.metrics.items():
            assert key.startswith("imported:")
            assert len(scores.values) in (2, 4)
            assert all(math.isfinite(v) for v in scores.values.values())
        # What was read can be saved and shown: valid JSON in valid UTF-8.
        json.dumps(table.to_json(), allow_nan=False, ensure_ascii=False).encode()
    assert 0 < n_read < 1500


def test_deep_nesting_is_refused():
    data: Any = []
    for _ in range(100_000):
        data = [data]
    assert "is a list" in refusal(values(b0_mlp=data)).found
