"""Text files as people have them: tables with gaps, JSON, CSV and TSV, byte order marks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch

from blockviz.cli.insight_commands import read_table
from blockviz.cli.recipes import read_recipe
from blockviz.cli.requests import read_plan
from blockviz.data import Texts, build, hub, load_tasks, load_texts, public_name
from blockviz.errors import BadCalibration, BlockvizError
from blockviz.metrics import parse_metrics
from blockviz.session import ScoreRequest
from blockviz.session.export_views import ExportRequest
from blockviz.session.opening import open_model
from blockviz.session.recipe_file import recipe_to_json
from blockviz.session.scoring import score_windows
from blockviz.sources.pasted import text_name
from blockviz.types import TEXT_ENDINGS, Progress, run
from blockviz.ui import inputs

MARK = b"\xef\xbb\xbf"
GAPS = "whole file, 2 rows without text left out"


def read(path: Path, **how: str) -> Texts:
    return run(load_texts(str(path), "calibration", **how))


def refusal(path: Path, **how: str) -> BlockvizError:
    with pytest.raises(BadCalibration) as caught:
        read(path, **how)
    return caught.value


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# rows without text


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.jsonl", '{"text": "one"}\n{"text": null}\n{"text": "two"}\n{"text": " "}'),
        ("a.json", '[{"text": "one"}, {"text": null},\n {"text": "two"}, {"text": ""}]'),
        ("a.json", '{"text": "one"}\n{"text": null}\n\n{"text": "two"}\n{"text": ""}\n'),
        ("a.csv", "n,text\r\n1,one\r\n2,\r\n3,two\r\n4,\r\n"),
        ("a.tsv", "text\tn\none\t1\n\t2\ntwo\t3\n \t4\n"),
    ],
)
def test_rows_without_text_are_left_out_and_counted(tmp_path, name, content):
    path = put(tmp_path, name, content)
    assert read(path) == Texts(("one", "two"), name, GAPS)
    *_, note, _ = load_texts(str(path), "calibration")
    assert isinstance(note, Progress) and "2 rows without text left out" in note.note


def test_rows_without_text_of_a_parquet_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, "two", ""]}), path)
    assert read(path) == Texts(("one", "two"), "a.parquet", GAPS)
    pq.write_table(pa.table({"text": ["one", None]}), path)
    assert read(path).split == "whole file, 1 row without text left out"


def test_the_windows_say_what_was_left_out(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"text": "w1 w2"}\n{"text": null}\n{"text": ""}')
    windows = build(read(path), tiny.tokenizer(), n_samples=1, seq_len=2)
    assert windows.origin.split == GAPS


def test_a_file_whose_rows_are_all_empty_is_refused(tmp_path):
    path = put(tmp_path, "a.jsonl", '{"text": null}\n{"text": ""}')
    assert refusal(path).found == "It is empty."


def test_a_file_with_every_row_filled_says_nothing_of_it(tmp_path):
    assert read(put(tmp_path, "a.jsonl", '{"text": "one"}')).split == "whole file"


# what is no text is refused, with its row and what is there


@pytest.mark.parametrize(
    "name, content, found",
    [
        ("a.jsonl", '{"text": "a"}\n{"text": 5}', "Line 2 has 5 in 'text', which is a number."),
        ("a.jsonl", '{"text": false}', "Line 1 has false in 'text', which is true or false."),
        ("a.jsonl", '{"text": [1, 2]}', "Line 1 has [1, 2] in 'text', which is a list."),
        ("a.json", '[{"text": "a"}, {"text": {}}]', "Row 2 has {} in 'text', which is an object."),
        ("a.json", '[{"text": "a"}, "b"]', "Row 2 is not a JSON object."),
        ("a.json", '[{"text": "a"}, {"body": "b"}]', "Row 2 has 'body'."),
        ("a.json", '{"body": "a", "n": 1}', "Line 1 has 'body', 'n'."),
        ("a.json", '{\n "body": "a"\n}', "Row 1 has 'body'."),
        ("a.json", '[{"text": "a"},', "It is not valid JSON"),
        ("a.json", "[" * 100_000, "It is not valid JSON"),
        ("a.jsonl", "[" * 100_000, "Line 1 is not valid JSON"),
        ("a.jsonl", '{"text": "a"}\n{"text": "\\ud83d"}', "Line 2 has half a character"),
        ("a.csv", "id,body\n1,a\n", "It has 'id', 'body'."),
        ("a.tsv", "id\tbody\n1\ta\n", "It has 'id', 'body'."),
        ("a.csv", "id,text\n1,a\n2,b,c\n", "Row 2 has 3 columns, and the header 2."),
        ("a.csv", 'id,text\n1,a\n2,"b\n3,c\n', "Row 2"),
        ("a.csv", "text,text\na,b\n", "It has 2 columns of that name."),
        ("a.csv", "text\n", "It is empty."),
        ("a.csv", b"text\nna\xefve\n", "byte 7 on line 2"),
    ],
)
def test_what_is_no_text_is_refused_by_its_row(tmp_path, name, content, found):
    error = refusal(put(tmp_path, name, content))
    assert found in error.found and error.todo
    assert str(tmp_path) not in str(error)


def test_numbers_and_lists_of_a_parquet_file(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [None, 7]}), path)
    assert refusal(path).found == "Row 2 has 7 in 'text', which is a number."
    pq.write_table(pa.table({"text": [["a"], ["b"]]}), path)
    assert "Row 1 has [\"a\"] in 'text', which is a list." in refusal(path).found


# tables


def test_cells_keep_their_commas_quotes_and_line_ends(tmp_path):
    long = "x" * 300_000
    path = put(tmp_path, "a.csv", f'n,body\n1,"a, ""b""\r\nc"\n\n2,null\n3,NA\n4,"{long}"\n')
    assert read(path, text_column="body").texts == ('a, "b"\r\nc', "null", "NA", long)


def test_a_tsv_may_be_written_with_or_without_quotes(tmp_path):
    quoted = put(tmp_path, "a.tsv", 'n\ttext\n1\t"a\tb ""c"""\n2\td\n')
    assert read(quoted).texts == ('a\tb "c"', "d")
    plain = put(tmp_path, "b.tsv", 'n\ttext\n1\t"Come in," she said.\n2\td "e" f\n')
    assert read(plain).texts == ('"Come in," she said.', 'd "e" f')


def test_json_is_an_array_an_object_a_line_or_one_object(tmp_path):
    rows = [{"text": "one\u2028", "n": 1}, {"text": "two", "n": 2}]
    for content in (json.dumps(rows, indent=1), "\n".join(map(json.dumps, rows))):
        assert read(put(tmp_path, "a.json", content)).texts == ("one\u2028", "two")
    assert read(put(tmp_path, "a.json", json.dumps(rows[1], indent=1))).texts == ("two",)


def test_a_file_that_is_not_there_is_known_by_its_ending(tmp_path):
    for name in (f"none{ending}" for ending in TEXT_ENDINGS):
        with pytest.raises(BlockvizError, match="No file of that name"):
            read(tmp_path / name)
        assert public_name(str(tmp_path / name)) == name


# names as people paste them


@pytest.mark.parametrize(
    "write", ["~/my text.txt", "$HOME/my text.txt", "'{home}/my text.txt'", '"~/my text.txt"',
              "file://{home}/my%20text.txt", "{home}/my\\ text.txt", " {home}/my text.txt "]
)  # fmt: skip
def test_a_file_is_found_as_people_paste_its_name(tmp_path, monkeypatch, write):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "my text.txt").write_text("Some words.")
    name = write.format(home=tmp_path)
    assert run(load_texts(name, "evaluation")).texts == ("Some words.",)
    assert public_name(name) == "my text.txt"


@pytest.mark.parametrize(
    "write, name",
    [
        ("https://huggingface.co/datasets/owner/set", "owner/set"),
        ("hf.co/datasets/owner/set/viewer/default/train?row=1", "owner/set"),
        ("'owner/set'", "owner/set"),
        ("owner/set:part", "owner/set:part"),
    ],
)
def test_a_data_set_is_understood_as_people_paste_it(write, name):
    assert text_name(write) == name


# the byte order mark


@pytest.mark.parametrize(
    "name, content, texts",
    [
        ("a.txt", " one\r\n\n", (" one\r\n\n",)),
        ("a.jsonl", '{"text": "one"}', ("one",)),
        ("a.json", '[{"text": "one"}]', ("one",)),
        ("a.csv", "text,n\none,1\n", ("one",)),
        ("a.tsv", "text\tn\none\t1\n", ("one",)),
    ],
)
def test_a_byte_order_mark_is_never_text(tmp_path, name, content, texts):
    assert read(put(tmp_path, name, MARK + content.encode())).texts == texts
    assert read(put(tmp_path, name, content)).texts == texts


def test_only_the_mark_at_the_start_is_one(tmp_path):
    path = put(tmp_path, "a.txt", MARK + "a\ufeffb".encode())
    assert read(path).texts == ("a\ufeffb",)
    assert "byte 5 on line 2" in refusal(put(tmp_path, "b.txt", MARK + b"a\n\xef\xbf")).found


def test_a_task_file_with_a_mark(tmp_path):
    row = {"mode": "choices", "query": "q", "choices": ["a", "b"], "answer": 0}
    path = put(tmp_path, "mine.jsonl", MARK + json.dumps(row).encode())
    assert run(load_tasks(str(path))).rows[0].query == "q"


def test_a_model_folder_whose_files_begin_with_a_mark(tmp_path):
    tiny.module(*tiny.CASES["llama"]).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    plain = run(open_model(str(tmp_path), dtype="float32"))
    marked = list(tmp_path.glob("*.json"))
    for path in marked:
        path.write_bytes(MARK + path.read_bytes())
    assert {"config.json", "tokenizer.json"} <= {path.name for path in marked}
    model = run(open_model(str(tmp_path), dtype="float32"))
    assert torch.equal(model.logits(tiny.batch()), plain.logits(tiny.batch()))
    assert model.tokenizer("w7 w9")["input_ids"] == [7, 9]
    assert all(path.read_bytes().startswith(MARK) for path in marked)


@pytest.fixture
def plan_file(tmp_path) -> Path:
    return put(tmp_path, "plan.json", MARK + json.dumps(tiny.plan("1.attn").to_json()).encode())


def test_a_plan_and_an_upload_with_a_mark(plan_file):
    asked = argparse.Namespace(remove=None, plan=plan_file)
    assert read_plan(asked).removed == tiny.ids("1.attn")
    data, name = inputs.json_file(str(plan_file), "The recipe")
    assert (data["removed"], name) == (["1.attn"], "plan")


def test_a_recipe_with_a_mark(tmp_path):
    info = tiny.model("llama").info
    request = ExportRequest(tiny.plan("1.attn"), tmp_path)
    recipe = json.dumps(recipe_to_json(info, request, "none")).encode()
    asked = argparse.Namespace(recipe=put(tmp_path, "recipe.json", MARK + recipe))
    assert read_recipe(asked).plan.removed == tiny.ids("1.attn")


def test_scores_with_a_mark(tmp_path):
    windows, metrics = tiny.windows(2, 8), parse_metrics(("bi",))
    events = score_windows(tiny.model("llama"), windows, metrics, ScoreRequest(metrics=("bi",)))
    table = run(events)
    path = put(tmp_path, "scores.json", MARK + json.dumps(table.to_json()).encode())
    assert read_table(path).to_json() == table.to_json()


# the hub's rows


@pytest.fixture
def rows_of_hub(tmp_path, monkeypatch) -> Callable[..., Texts]:
    """What is read of a data set of the hub whose one split has these values in its column."""
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path))

    def found(*values: object) -> Texts:
        rows = [{"text": value} for value in values]
        monkeypatch.setattr(hub, "_open", lambda _: {"train": rows})
        return run(hub.stream(hub.HubText("owner/name"), "calibration", n_texts=len(values)))

    return found


def test_rows_of_the_hub_without_text_are_left_out_and_empty_ones_stay(rows_of_hub):
    """An empty row is a blank line of the usual corpus; a null was never written."""
    found = rows_of_hub("one", None, "", "two", None)
    assert found == Texts(("one", "", "two"), "owner/name", "train, 2 rows without text left out")
    assert rows_of_hub("one", "").split == "train"


def test_a_row_of_the_hub_that_is_no_text_is_refused_by_its_row(rows_of_hub):
    with pytest.raises(BadCalibration) as caught:
        rows_of_hub("one", None, 5)
    assert "Row 3 has 5 in 'text', which is a number." in caught.value.found
    with pytest.raises(BadCalibration, match="It holds no text"):
        rows_of_hub(None, None)
