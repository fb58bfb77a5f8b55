"""The commands export and verify, and --speed, on a tiny model in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from export_checks import check_here
from test_cli import folder, own_cache, refusal, text
from transformers import AutoModelForCausalLM

from blockviz.cli import main

__all__ = ["folder", "own_cache", "text"]

DATA = ("--n-samples", "3", "--seq-len", "24", "--dtype", "float32")
FIT = ("--fit-samples", "6", "--fit-seq-len", "32")
PLAN = ("--remove", "1.attn,2.mlp")


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    check_here(monkeypatch)


def asked(folder: Path, text: Path, out: Path, *more: str) -> list[str]:
    names = ["--model", str(folder), "--calibration", str(text), "--data", str(text)]
    return ["export", *names, *DATA, *FIT, *more, "--out", str(out)]


def export(*args: Path | str) -> int:
    return main(asked(*args))


def test_an_export_is_written_verified_and_timed(folder, text, tmp_path, capsys):
    out, report = tmp_path / "smaller", tmp_path / "report.json"
    assert export(folder, text, out, *PLAN, "--correction", "writer_refit") == 0
    said = capsys.readouterr().out
    assert "passed   logits" in said and "the file does without" in said
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 4
    assert main(["verify", str(out), "--out", str(tmp_path / "checks.json")]) == 0
    found = json.loads((tmp_path / "checks.json").read_text())
    assert found["schema"] == "blockviz/verify/1" and found["passed"]
    assert [row["name"] for row in found["rows"]][-1] == "cache"
    capsys.readouterr()
    timed = ["--model", str(folder), "--data", str(text), *DATA, *PLAN, "--speed-repeats", "2"]
    assert main(["evaluate", *timed, "--exported", str(out), "--out", str(report)]) == 0
    assert "exported smaller" in capsys.readouterr().out
    assert set(json.loads(report.read_text())["speed"]) == {
        "original", "pruned", "exported smaller"
    }  # fmt: skip


def test_verify_exits_with_1_and_names_the_check(folder, text, tmp_path, capsys):
    out = tmp_path / "smaller"
    assert export(folder, text, out, *PLAN, "--mode", "custom") == 0
    (out / "how_to_load.md").write_text("changed")
    capsys.readouterr()
    assert main(["verify", str(out)]) == 1
    said = capsys.readouterr().out
    assert "FAILED   sums" in said and "how_to_load.md was changed" in said
    assert "passed   logits" in said


def test_a_saved_correction_brings_its_plan(folder, text, tmp_path):
    state, out = tmp_path / "state", tmp_path / "out"
    names = ["--model", str(folder), "--calibration", str(text), "--data", str(text)]
    fixed = ["correct", *names, *DATA, *FIT, *PLAN, "--fit-held", "0"]
    assert main([*fixed, "--correction", "replaceme", "--state", str(state)]) == 0
    assert export(folder, text, out, "--state", str(state)) == 0
    recipe = json.loads((out / "blockviz_recipe.json").read_text())
    assert recipe["plan"]["removed"] == ["1.attn", "2.mlp"]
    assert recipe["correction"].startswith("replaceme")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "No plan was given"),
        ((*PLAN, "--mode", "zip"), "no such mode"),
        ((*PLAN, "--correction", "asc,mean"), "one correction"),
        ((*PLAN, "--correction", "asc", "--state", "x"), "not allowed with"),
        (("--remove", "9.attn"), "has layers 0 to 3"),
        ((*PLAN, "--correction", "ridge"), "custom"),
    ],
)
def test_what_cannot_be_written_is_refused(folder, text, tmp_path, capsys, more, said):
    assert said in refusal(capsys, *asked(folder, text, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_export_is_not_verified(folder, capsys):
    assert "blockviz_recipe.json" in refusal(capsys, "verify", str(folder))


def test_a_recipe_repeats_an_export(folder, text, tmp_path, capsys):
    first, again = tmp_path / "first", tmp_path / "again"
    fix = ("--correction", "writer_refit:ridge=0.02", "--mode", "custom")
    assert export(folder, text, first, *PLAN, *fix) == 0
    recipe = first / "blockviz_recipe.json"
    assert export(folder, text, again, "--recipe", str(recipe)) == 0
    weights = [(f / "model.safetensors").read_bytes() for f in (first, again)]
    assert weights[0] == weights[1]
    out = tmp_path / "third"
    both = asked(folder, text, out, *PLAN, "--recipe", str(recipe))
    assert "holds its own" in refusal(capsys, *both)
    recipe.write_text("{}")
    spoilt = asked(folder, text, out, "--recipe", str(recipe))
    assert "not one that an export has written" in refusal(capsys, *spoilt)
