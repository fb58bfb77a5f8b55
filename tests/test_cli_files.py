"""What the command line reads and writes: devices, links, full disks, names and files of others."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from test_cli import folder, own_cache, refusal, score, text

from blockviz.cli import main
from blockviz.cli.out_file import check_out, write_json
from blockviz.errors import BadInput, BadPlan, OverLimit
from blockviz.json_files import NotJson, read_json
from blockviz.session.recipe_file import recipe_from_json
from blockviz.session.repair_state import STATE, check_state
from blockviz.types import PruningPlan
from blockviz.whole_files import is_stream, write_whole

__all__ = ["folder", "own_cache", "text"]

DEEP = "[" * 100_000
LONG = "n" * 300
FIT = ("--fit-samples", "6", "--fit-seq-len", "32", "--fit-held", "0", "--n-samples", "3",
       "--seq-len", "24", "--dtype", "float32", "--remove", "1.attn")  # fmt: skip


def correct(folder: Path, text: Path, *more: str) -> list[str]:
    how = ["--model", str(folder), "--calibration", str(text), "--data", str(text)]
    return ["correct", *how, *FIT, "--correction", "mean", *more]


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# -- where a result goes --


def test_a_file_is_replaced_whole_and_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.json", tmp_path / "link.json"
    for old in (None, "old"):
        if old is not None:
            real.write_text(old)
        link.unlink(missing_ok=True)
        link.symlink_to(real)
        check_out(link)
        write_json(link, {"a": 1})
        assert link.is_symlink() and json.loads(real.read_text()) == {"a": 1}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["link.json", "real.json", "there"]


def test_a_device_is_written_to_and_is_one_still(tmp_path, capsys):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        check_out(path)
        write_json(path, {"a": 1})
        assert json.loads(os.read(reader, 100)) == {"a": 1}
    os.close(reader)
    assert is_stream(pipe) and is_stream(link) and link.is_symlink()
    assert is_stream(Path(os.devnull)) and not is_stream(tmp_path)
    assert not is_stream(tmp_path / "new")
    check_out(Path(os.devnull))
    write_json(Path(os.devnull), {"a": 1})
    assert is_stream(Path(os.devnull))


def test_names_of_any_length_that_a_disk_takes_are_taken(tmp_path):
    longest = tmp_path / f"{'n' * 250}.json"
    write_whole(longest, b"1")
    assert longest.read_bytes() == b"1"
    with pytest.raises(BadInput, match="That name cannot be used"):
        check_out(tmp_path / LONG)
    with pytest.raises(BadInput, match="That name cannot be used"):
        check_state(tmp_path / LONG)
    for wrong in (tmp_path, tmp_path / "no" / "out.json"):
        with pytest.raises(BadInput, match="Its folder is missing"):
            check_out(wrong)


def test_room_is_looked_for_before_the_work(folder, text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OverLimit, match="free on that disk"):
        check_out(tmp_path / "out.json")
    monkeypatch.setattr("blockviz.cli.repair_commands.open_model", full)
    asked = correct(folder, text, "--state", str(tmp_path / "state"))
    assert "free on that disk" in refusal(capsys, *asked)


def test_a_result_that_cannot_be_written_is_printed(folder, text, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.json"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert score(folder, text, out, "--metrics", "mag") == 2
    shown = capsys.readouterr()
    assert "No space left on device" in shown.err and "printed above" in shown.err
    assert "Traceback" not in shown.err and not out.exists()
    printed = json.loads(shown.out[shown.out.index("{") :])
    assert printed["schema"] == "blockviz/scores/1"


def test_a_repair_that_cannot_be_saved_is_kept_and_the_table_written(
    folder, text, tmp_path, own_cache, capsys, monkeypatch
):
    out, state = tmp_path / "out.json", tmp_path / "state"
    real = Path.write_bytes

    def fails_there(self: Path, data: bytes) -> int:
        return full() if self.parent == state else real(self, data)

    monkeypatch.setattr(Path, "write_bytes", fails_there)
    said = refusal(capsys, *correct(folder, text, "--state", str(state), "--out", str(out)))
    (kept,) = (own_cache / "unsaved").iterdir()
    assert str(kept) in said and (kept / STATE).is_file()
    assert json.loads(out.read_text())["rows"]
    monkeypatch.setattr(Path, "write_bytes", full)
    said = refusal(capsys, *correct(folder, text, "--state", str(state), "--out", str(out)))
    assert "printed above" in said


def test_whatever_else_the_system_refuses_has_no_traceback(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("blockviz.cli.commands.metrics_json", full)
    assert "No space left on device" in refusal(capsys, "info", "--metrics")


def test_a_full_standard_output_is_said_and_the_file_is_written(tmp_path, capsys, monkeypatch):
    class Full(io.StringIO):
        write = full

        def fileno(self) -> int:
            return output.fileno()

    with (tmp_path / "stdout").open("w") as output:
        monkeypatch.setattr(sys, "stdout", Full())
        assert main(["info", "--presets", "--out", str(tmp_path / "out.json")]) == 2
    assert capsys.readouterr().err.count("standard output takes no more (No space left") == 1
    assert json.loads((tmp_path / "out.json").read_text())["presets"]


# -- what is read --

COMMANDS = (
    ("evaluate", "--plan"), ("evaluate", "--recipe"), ("score", "--recipe"),
    ("judge", "--scores"), ("stability",),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_files_of_any_content_and_name_are_refused_in_words(command, tmp_path, capsys):
    path = tmp_path / "given.json"
    contents = (
        (DEEP, "nested too deeply"),
        (f'{{"schema": {"9" * 5000}}}', "a number in it is too long"),
        ("{", "It is not JSON: see line 1, column 2."),
        ("\udcff", "It is not UTF-8: byte 0"),
    )
    for content, said in contents:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        assert said in refusal(capsys, *command, str(path))
    for name, said in (
        (tmp_path, "That is a folder."),
        (tmp_path / "missing.json", "There is no such file."),
        (tmp_path / LONG, "It cannot be read (File name too long)."),
    ):
        assert said in refusal(capsys, *command, str(name))


def test_what_has_no_end_is_read_no_further_than_its_limit(tmp_path, capsys):
    endless = Path("/dev/zero")
    if not endless.exists():
        pytest.skip("no endless device here")
    with pytest.raises(NotJson, match="It holds more than 16 MiB"):
        read_json(endless)
    assert "more than 16 MiB" in refusal(capsys, "evaluate", "--plan", str(endless))
    small = tmp_path / "small.json"
    small.write_text("[1, 2, 3]")
    assert read_json(small, most_bytes=9) == [1, 2, 3]
    with pytest.raises(NotJson, match="more than"):
        read_json(small, most_bytes=8)


@pytest.mark.parametrize("name", ["blockviz_recipe.json", "config.json"])
def test_folders_with_such_files_are_refused_in_words(folder, tmp_path, capsys, name):
    place = tmp_path / "place"
    shutil.copytree(folder, place)
    path = place / name
    path.unlink(missing_ok=True)
    command = ("verify", str(place)) if "recipe" in name else ("info", "--model", str(place))
    path.write_text(DEEP)
    refusal(capsys, *command)
    path.unlink()
    if Path("/dev/zero").exists():
        path.symlink_to("/dev/zero")
        refusal(capsys, *command)


def test_questions_are_read_from_files_only(folder, tmp_path, capsys):
    (tmp_path / "mine.jsonl").mkdir()
    given = ("evaluate", "--model", str(folder), "--tasks", str(tmp_path / "mine.jsonl"))
    assert "That is no file" in refusal(capsys, *given)


WRONG = (None, 5, "x", [1], {"a": 1}, [[]], True, 1e400)


@pytest.mark.parametrize("field", ["removed", "model", "revision", "provenance", "trace",
                                   "baseline"])  # fmt: skip
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_fields_of_a_plan_of_another_type_are_refused_or_read(field, value):
    plan = {"schema": "blockviz/plan/1", "removed": ["1.attn"], field: value}
    try:
        found = PruningPlan.from_json(plan)
    except BadPlan:
        return
    assert isinstance(found.model, str) and isinstance(found.revision, str)
    assert found.baseline is None or isinstance(found.baseline, int | float)
    assert all(isinstance(step, dict) for step in found.trace)
    assert PruningPlan.from_json(json.loads(json.dumps(found.to_json()))) == found


RECIPE = {
    "schema": "blockviz/recipe/1", "plan": tiny.plan("1.attn").to_json(), "correction": "none",
    "is_from_state": False, "fit": {"text": "own", "n_samples": 6}, "evaluation": {},
    "export": {"mode": "custom", "as_llama": False}, "scoring": {"metrics": ["bi"]},
    "results": {"perplexities": {"original": 2.0}, "data": "own"},
}  # fmt: skip


@pytest.mark.parametrize("field", RECIPE)
@pytest.mark.parametrize("value", [*WRONG, {"metrics": 5}, {"perplexities": {"a": 10**400}},
                                   {"mode": []}], ids=lambda v: str(v)[:20])  # fmt: skip
def test_fields_of_a_recipe_of_another_type_are_refused_or_read(field, value):
    try:
        found = recipe_from_json({**RECIPE, field: value}, "mine")
    except BadInput:
        return
    assert isinstance(found.plan, PruningPlan)


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "x", "", "1e3", "٣"])
def test_a_port_that_is_none_is_refused(port, capsys, monkeypatch):
    assert "from 0 to 65535" in refusal(capsys, "app", f"--port={port}")
    monkeypatch.setenv("GRADIO_SERVER_PORT", port)
    assert "from 0 to 65535" in refusal(capsys, "app")
    # Other commands do not look at it.
    assert main(["info", "--presets"]) == 0


@pytest.mark.parametrize(
    "given",
    [
        ("--seed", str(10**30), "--shuffle"), ("--seed", str(-(2**63)), "--shuffle"),
        ("--correction", f"writer_distilled:seed={10**30}"), ("--memory", "9" * 400 + "GiB"),
    ],
    ids=lambda given: given[0],
)  # fmt: skip
def test_numbers_that_no_machine_holds_are_refused(folder, text, capsys, given):
    assert "seed" in (said := refusal(capsys, *correct(folder, text, *given))) or "size" in said


@pytest.mark.parametrize("option", ["--calibration", "--model", "--data", "--state", "--out"])
def test_a_long_name_of_anything_is_refused_in_words(folder, text, tmp_path, capsys, option):
    given = correct(folder, text, "--out", str(tmp_path / "x.json"),
                    "--state", str(tmp_path / "s"))  # fmt: skip
    given[given.index(option) + 1] = str(tmp_path / f"{LONG}.txt")
    assert "no file" in (said := refusal(capsys, *given).lower()) or "name" in said
