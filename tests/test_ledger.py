"""The record of evaluations: what comes back, what makes another file, and what damage costs."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import numpy as np
import pytest
import tiny
import torch
import warm

from blockviz.json_files import sealed, unsealed
from blockviz.metrics.parsing import parse_metric
from blockviz.session import identity
from blockviz.session.ledger import ledger_on_disk, open_ledger, window_names
from blockviz.types import RemovedSet

PPL = parse_metric("ppl")
A, B = "a" * 16, "b" * 16


def gone(*names: str) -> RemovedSet:
    return frozenset(tiny.ids(*names))


@pytest.fixture(scope="module")
def model():
    return tiny.model("llama")


def the_file(folder: Path) -> Path:
    (found,) = folder.glob("*.jsonl")
    return found


def test_what_was_put_comes_back_and_the_rest_is_nan(model, tmp_path):
    ledger = open_ledger(model, PPL, folder=tmp_path)
    ledger.put(gone("1.attn", "0.mlp"), [A], np.array([0.1 + 0.2]))
    ledger.put(gone(), [A, B], [1e-300, 3.0])
    for again in (ledger, open_ledger(model, PPL, folder=tmp_path)):
        found = again.get(gone("0.mlp", "1.attn"), [B, A, "c" * 16])
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [math.nan, 0.1 + 0.2, math.nan])
        assert again.get(gone(), [B, A]).tolist() == [3.0, 1e-300]
        assert np.isnan(again.get(gone("1.attn"), [A])).all()


def test_a_line_is_the_blocks_the_windows_and_the_values(model, tmp_path):
    open_ledger(model, PPL, folder=tmp_path).put(gone("3.mlp", "0.attn"), [A, B], [2.5, -0.5])
    lines = [line for line in the_file(tmp_path).read_text().splitlines() if line]
    expected = {"removed": ["0.attn", "3.mlp"], "windows": [A, B], "values": [2.5, -0.5]}
    assert [unsealed(line) for line in lines] == [expected]


def test_the_last_word_on_a_window_holds(model, tmp_path):
    ledger = open_ledger(model, PPL, folder=tmp_path)
    ledger.put(gone(), [A, B], [1.0, 2.0])
    ledger.put(gone(), [B], [4.0])
    assert open_ledger(model, PPL, folder=tmp_path).get(gone(), [A, B]).tolist() == [1.0, 4.0]


def test_what_is_not_finite_is_not_written_and_nan_is_not_known(model, tmp_path):
    ledger = open_ledger(model, PPL, folder=tmp_path)
    ledger.put(gone("0.attn"), [A, B, "c" * 16], [math.inf, 2.0, math.nan])
    ledger.put(gone("1.attn"), [A], [math.nan])
    found = ledger.get(gone("0.attn"), [A, B, "c" * 16])
    np.testing.assert_array_equal(found, [math.inf, 2.0, math.nan])
    later = open_ledger(model, PPL, folder=tmp_path)
    np.testing.assert_array_equal(later.get(gone("0.attn"), [A, B]), [math.nan, 2.0])
    text = the_file(tmp_path).read_text()
    assert "1.attn" not in text and "nan" not in text.lower() and "inf" not in text.lower()


DAMAGE = [
    b'{"removed": ["1.attn"], "windows": ["%s"], "val' % A.encode(),
    b"\x00\x00\x00\xff{}",
    b"[]",
    b"7",
    b"null",
    b'{"removed": ["1.norm"], "windows": ["%s"], "values": [1.0]}' % A.encode(),
    b'{"removed": [["1.attn"]], "windows": ["%s"], "values": [1.0]}' % A.encode(),
    b'{"removed": ["1.attn"], "windows": ["%s"], "values": [1.0, 2.0]}' % A.encode(),
    b'{"removed": ["1.attn"], "windows": ["%s"], "values": [NaN]}' % A.encode(),
    b'{"removed": ["1.attn"], "windows": ["%s"], "values": ["1"]}' % A.encode(),
    b'{"removed": ["1.attn"], "windows": ["%s"], "values": [true]}' % A.encode(),
    b'{"removed": ["1.attn"], "windows": [7], "values": [1.0]}',
    b'{"removed": ["1.attn"], "windows": [["x"]], "values": [1.0]}',
    b'{"removed": null, "windows": [], "values": []}',
    b"[" * 100_000,
]
# The same with a sum that is right: some other program's, or an older one's.
DAMAGE += [sealed(json.loads(line)).encode() for line in DAMAGE[2:8] + DAMAGE[9:14]]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_costs_itself_only(model, tmp_path, damage):
    """In the middle, and as a torn last one that has no line break to end it."""
    ledger = open_ledger(model, PPL, folder=tmp_path)
    ledger.put(gone("0.attn"), [A], [1.0])
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes() + damage + b"\n" + damage)
    again = open_ledger(model, PPL, folder=tmp_path)
    assert again.get(gone("0.attn"), [A]) == [1.0]
    assert np.isnan(again.get(gone("1.attn"), [A])).all()
    again.put(gone("2.attn"), [A], [3.0])
    last = open_ledger(model, PPL, folder=tmp_path)
    assert last.get(gone("2.attn"), [A]) == [3.0]
    assert last.get(gone("0.attn"), [A]) == [1.0]


def test_a_file_that_was_cut_anywhere_gives_what_is_whole(model, tmp_path):
    ledger = open_ledger(model, PPL, folder=tmp_path)
    blocks = [f"{layer}.{part}" for layer in range(4) for part in ("attn", "mlp")]
    for i, block in enumerate(blocks):
        ledger.put(gone(block), [A], [float(i)])
    path = the_file(tmp_path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        again = open_ledger(model, PPL, folder=tmp_path)
        found = [again.get(gone(block), [A])[0] for block in blocks]
        n = sum(not math.isnan(v) for v in found)
        np.testing.assert_array_equal(found, [*range(n), *[math.nan] * (8 - n)])
        assert n >= whole[:cut].count(b"]}}\n")


def test_a_changed_digit_is_measured_anew(model, tmp_path):
    open_ledger(model, PPL, folder=tmp_path).put(gone("0.attn"), [A, B], [1.25, 2.5])
    path = the_file(tmp_path)
    whole = path.read_text()
    for changed in (whole.replace("1.25", "1.26"), whole.replace("0.attn", "1.attn")):
        assert changed != whole
        path.write_text(changed)
        again = open_ledger(model, PPL, folder=tmp_path)
        for block in ("0.attn", "1.attn"):
            assert np.isnan(again.get(gone(block), [A, B])).all()


def test_windows_go_by_what_is_in_them():
    """The first windows of a longer text are those of the shorter one; padding counts."""
    few, many = tiny.windows(4, 16), tiny.windows(8, 16)
    many = replace(many, input_ids=torch.cat([few.input_ids, many.input_ids[4:]]))
    assert window_names(many)[:4] == window_names(few)
    assert len(set(window_names(many))) == 8
    padded = replace(few, attention_mask=few.attention_mask.clone())
    padded.attention_mask[2, -1] = False
    same = [a == b for a, b in zip(window_names(padded), window_names(few), strict=True)]
    assert same == [True, True, False, True]
    ids = few.input_ids.clone()
    ids[1, 0] = (ids[1, 0] + 1) % tiny.VOCAB
    same = zip(window_names(replace(few, input_ids=ids)), window_names(few), strict=True)
    assert [a == b for a, b in same] == [True, False, True, True]
    cut = replace(few, input_ids=few.input_ids[:, :8], attention_mask=few.attention_mask[:, :8])
    assert not set(window_names(cut)) & set(window_names(few))


def test_a_search_on_more_windows_finds_those_of_the_first(model, tmp_path):
    many = window_names(tiny.windows(6, 16))
    open_ledger(model, PPL, folder=tmp_path).put(gone("1.mlp"), many[:3], [1.0, 2.0, 3.0])
    found = open_ledger(model, PPL, folder=tmp_path).get(gone("1.mlp"), many)
    np.testing.assert_array_equal(found, [1, 2, 3, math.nan, math.nan, math.nan])


def test_another_model_metric_engine_or_formula_is_another_file(model, tmp_path, monkeypatch):
    def known() -> list[bool]:
        asked = [
            open_ledger(model, PPL, folder=tmp_path),
            open_ledger(model, parse_metric("lds"), folder=tmp_path),
            open_ledger(model, PPL, engine="reference", folder=tmp_path),
            open_ledger(tiny.model("llama", seed=1), PPL, folder=tmp_path),
            open_ledger(tiny.model("mistral"), PPL, folder=tmp_path),
        ]
        return [not np.isnan(ledger.get(gone(), [A])).any() for ledger in asked]

    assert not any(known())
    open_ledger(model, PPL, folder=tmp_path).put(gone(), [A], [1.0])
    assert known() == [True] + [False] * 4
    lds = [parse_metric("lds:k=5"), parse_metric("lds:k=6")]
    open_ledger(model, lds[0], folder=tmp_path).put(gone(), [A], [1.0])
    assert np.isnan(open_ledger(model, lds[1], folder=tmp_path).get(gone(), [A])).all()

    monkeypatch.setattr(identity, "_code", lambda: "another formula")
    assert not any(known())


def test_a_changed_weight_is_another_file(tmp_path):
    model = tiny.model("llama")
    open_ledger(model, PPL, folder=tmp_path).put(gone(), [A], [1.0])
    with torch.no_grad():
        next(model.module.parameters()).add_(1e-3)
    assert np.isnan(open_ledger(model, PPL, folder=tmp_path).get(gone(), [A])).all()


def test_a_metric_that_cannot_be_told_from_another_leaves_no_file(model, tmp_path):
    class Mine(type(PPL)):
        name = "mine"

    for ledger in (
        open_ledger(model, Mine(), folder=tmp_path),
        open_ledger(model, PPL, folder=None),
    ):
        ledger.put(gone(), [A], [1.0])
        assert ledger.get(gone(), [A]) == [1.0]
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_holds_it(model, tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path))
    ledger_on_disk(model, "lds:k=5").put(gone(), [A], [1.0])
    assert ledger_on_disk(model, "lds:k=5").get(gone(), [A]) == [1.0]
    assert len(list(tmp_path.rglob("*.jsonl"))) == 1


@pytest.mark.parametrize("fails", ["write", "half", "open"])
def test_a_full_disk_is_said_once_and_costs_no_run(model, tmp_path, monkeypatch, caplog, fails):
    ledger = open_ledger(model, PPL, folder=tmp_path / "new")
    write = os.write

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "open":
        (tmp_path / "new").write_text("a file where the folder should be")
    else:
        half = lambda file, line: write(file, line[: len(line) // 2])  # noqa: E731
        monkeypatch.setattr(os, "write", full if fails == "write" else half)
    with caplog.at_level(logging.WARNING):
        for i in range(3):
            ledger.put(gone("0.attn"), [f"{i}" * 16], [float(i)])
    monkeypatch.undo()
    assert [r.message.startswith("Evaluations are not kept") for r in caplog.records] == [True]
    assert ledger.get(gone("0.attn"), ["2" * 16]) == [2.0]
    if fails == "half":
        again = open_ledger(model, PPL, folder=tmp_path / "new")
        assert np.isnan(again.get(gone("0.attn"), ["0" * 16])).all()


WRITER = """
import sys
from pathlib import Path
from blockviz.session.ledger import Ledger
from blockviz.types import BlockId
ledger, who = Ledger(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
for i in range(10**6 if who == 9 else 300):
    windows = [f"{who}{i:09d}{j:06d}" for j in range(40)]
    ledger.put(frozenset([BlockId(who, "attn")]), windows, [i + j / 7 for j in range(40)])
"""


def writer(path: Path, who: int, folder: Path) -> tuple[int, TextIO]:
    """(process, what it prints) of a writer that has begun."""
    pipe = folder / f"pipe{who}"
    os.mkfifo(pipe)
    return warm.start(WRITER, str(path), str(who), stdout=pipe), pipe.open()


def test_processes_that_write_at_once_and_one_that_is_killed_lose_nothing(
    model, tmp_path, tmp_path_factory
):
    open_ledger(model, PPL, folder=tmp_path).put(gone(), [A], [1.0])
    path = the_file(tmp_path)
    apart = tmp_path_factory.mktemp("pipes")
    (one, of_one), (killed, of_killed) = writer(path, 1, apart), writer(path, 9, apart)
    try:
        with of_one, of_killed:
            assert [out.readline() for out in (of_one, of_killed)] == ["ready\n"] * 2
        assert warm.wait(one) == 0
    finally:
        os.kill(killed, signal.SIGKILL)
        assert warm.wait(killed) == -signal.SIGKILL
    ledger = open_ledger(model, PPL, folder=tmp_path)
    for i in range(300):
        found = ledger.get(gone("1.attn"), [f"1{i:09d}{j:06d}" for j in range(40)])
        np.testing.assert_array_equal(found, [i + j / 7 for j in range(40)])
    assert ledger.get(gone(), [A]) == [1.0]
    torn = [line for line in path.read_bytes().split(b"\n") if line and not line.endswith(b"]}}")]
    assert len(torn) <= 1
    ledger.put(gone("3.mlp"), [A], [5.0])
    assert open_ledger(model, PPL, folder=tmp_path).get(gone("3.mlp"), [A]) == [5.0]
