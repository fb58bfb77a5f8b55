"""The commands on scores that are there already: judge and stability."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import folder, own_cache, refusal, score, text

from blockviz.cli import main
from blockviz.types import Judgement

__all__ = ["folder", "own_cache", "text"]


def test_judge_measures_and_says_which_metric_was_right(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, out = tmp_path / "s.json", tmp_path / "j.json"
    assert score(folder, text, scores) == 0
    common = ["--model", str(folder), "--dtype", "float32", "--data", str(text), "--blocks", "2"]
    sizes = ["--n-samples", "3", "--seq-len", "32"]
    assert main(["judge", "--scores", str(scores), *common, *sizes, "--out", str(out)]) == 0
    data = json.loads(out.read_text())
    assert data["schema"] == "blockviz/judgement/1"
    assert len(data["singles"]) == 8 and len(data["whole"]) == 3
    assert {name: len(curve) for name, curve in data["curves"].items()} == dict.fromkeys(
        ("bi", "rm", "ppl", "lds"), 2
    )
    assert Judgement.from_json(data).whole.nll == tuple(data["whole"])
    taus = [v["tau"] for v in data["verdicts"]]
    assert len(taus) == 4 and taus == sorted(taus, reverse=True)
    shown = capsys.readouterr().out
    assert (
        "Perplexity when cut" in shown
        and "words.txt, evaluation part, 3 × 32 tokens, float32" in shown
    )


def test_stability_compares_runs(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, out = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"
    assert score(folder, text, one) == 0
    assert score(folder, text, two, "--shuffle", "--seed", "5") == 0
    capsys.readouterr()
    assert main(["stability", str(one), str(two), "--out", str(out)]) == 0
    data = json.loads(out.read_text())
    assert data["schema"] == "blockviz/stability/1"
    assert data["runs"]["runs"] == ["a.json", "b.json"]
    assert set(data["runs"]["metrics"]) == {"bi", "rm", "ppl", "lds"}
    assert {row["metric"] for row in data["windows"]} == {"bi", "rm", "ppl", "lds"}
    assert "mean tau-b between the runs" in capsys.readouterr().out
    assert main(["stability", str(one)]) == 0
    assert "between the runs" not in capsys.readouterr().out


def test_what_is_no_scores_file_is_refused(
    folder: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    for content in ("{", "[]", '{"schema": "blockviz/plan/1"}', '{"schema": "blockviz/scores/1"}'):
        bad.write_text(content)
        found = "It is not JSON" if content == "{" else "what blockviz score writes"
        assert found in refusal(capsys, "stability", str(bad))
        assert "bad.json" in refusal(capsys, "judge", "--scores", str(bad))
    assert "bad.json" not in refusal(capsys, "stability", str(tmp_path / "none.json"))
    scores = tmp_path / "s.json"
    assert score(folder, text, scores) == 0
    message = refusal(capsys, "judge", "--scores", str(scores), "--blocks", "0")
    assert "Set --blocks to 1 or more" in message


def test_a_reader_that_has_gone_stops_the_lines_and_not_the_work(
    folder: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "s.json"
    options = ["--model", str(folder), "--calibration", str(text), "--n-samples", "2"]
    command = [sys.executable, "-m", "blockviz", "score", "--metrics", "mag", *options]
    reader, writer = os.pipe()
    os.close(reader)
    more = ["--seq-len", "32", "--out", str(out)]
    done = subprocess.run([*command, *more], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    assert json.loads(out.read_text())["schema"] == "blockviz/scores/1"
