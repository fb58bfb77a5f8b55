"""A model that leaves the range of float16 is refused at the first forward; nothing is written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from test_cli import own_cache

from blockviz.cli import main
from blockviz.errors import BadInput
from blockviz.evaluate import score_choices
from blockviz.metrics import AblationMetric, parse_metrics
from blockviz.models.generate import continue_greedily
from blockviz.models.load import wrap
from blockviz.models.overflow import check_windows, is_finite
from blockviz.session import ScoreRequest
from blockviz.session.opening import open_model
from blockviz.session.scoring import score_windows
from blockviz.types import AblationTable, Scores, TaskRow, TaskSet, run

__all__ = ["own_cache"]
pytestmark = pytest.mark.usefixtures("one_thread")
# Not among the random tokens that a model is tried out on at load.
RARE = 7
REMEDY = "Load it in bfloat16 or float32"


def saved(folder: Path, module: torch.nn.Module) -> str:
    module.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def rare_module() -> torch.nn.Module:
    """One word's embedding is beyond what float16 holds."""
    module = tiny.module(*tiny.CASES["llama"])
    with torch.no_grad():
        module.model.embed_tokens.weight[RARE] = 1e5
    return module


@pytest.fixture(scope="module")
def rare(tmp_path_factory) -> str:
    return saved(tmp_path_factory.mktemp("rare"), rare_module())


@pytest.fixture
def text(tmp_path) -> str:
    path = tmp_path / "words.txt"
    path.write_text(" ".join(f"w{i % 20}" for i in range(400)))
    return str(path)


def test_a_model_that_overflows_on_any_text_is_refused_at_load(tmp_path):
    module = tiny.module(*tiny.CASES["llama"])
    with torch.no_grad():  # layer 2 writes beyond 65 504
        module.model.layers[2].mlp.down_proj.weight.mul_(3e6)
    folder = saved(tmp_path, module)
    assert run(open_model(folder, dtype="float32")).info.dtype == "float32"
    with pytest.raises(BadInput) as caught:
        run(open_model(folder, dtype="float16"))
    assert "was to be run in float16." in caught.value.asked
    assert "overflow" in caught.value.found and REMEDY in caught.value.todo


@pytest.mark.parametrize(
    "command",
    [
        ["score", "--metrics", "bi,ppl", "--calibration"],
        ["score", "--metrics", "bi", "--calibration"],
        ["search", "--blocks", "1", "--calibration"],
        ["pairs", "--calibration"],
        ["evaluate", "--remove", "1.attn", "--data"],
        ["correct", "--remove", "1.attn", "--correction", "mean", "--data"],
    ],
    ids=lambda command: " ".join(command[:3]),
)
def test_a_text_that_overflows_is_refused_and_nothing_is_written(
    rare, text, tmp_path, capsys, command
):
    out, where = tmp_path / "out.json", [*command, text, "--n-samples", "2", "--seq-len", "32"]
    if "correct" in command:
        where += ["--calibration", text, "--fit-samples", "2", "--fit-seq-len", "32"]
        where += ["--fit-held", "1"]
    assert main([*where, "--model", rare, "--out", str(out), "--dtype", "float16"]) == 2
    said = capsys.readouterr()
    assert "overflow: they are not finite on words.txt" in said.err and REMEDY in said.err
    assert not out.exists() and not said.out


def test_an_export_that_overflows_writes_no_folder(rare, text, tmp_path, capsys):
    asked = ["export", "--model", rare, "--remove", "1.layer", "--data", text, "--n-samples", "2"]
    asked += ["--seq-len", "32", "--out", str(tmp_path / "out")]
    assert main([*asked, "--dtype", "float16"]) == 2
    assert REMEDY in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_same_text_is_taken_in_float32(rare, text, tmp_path):
    out = tmp_path / "out.json"
    asked = ["evaluate", "--model", rare, "--data", text, "--n-samples", "2", "--seq-len", "32"]
    assert main([*asked, "--out", str(out), "--dtype", "float32"]) == 0
    assert json.loads(out.read_text())["rows"][0]["perplexity"]["value"] > 1


def test_a_prompt_and_questions_that_overflow_are_refused():
    model = wrap(rare_module().half(), tiny.tokenizer(), name="tiny")
    with pytest.raises(BadInput, match=r"tiny was to be run in float16\. .* on this prompt\. Load"):
        list(continue_greedily(model, [1, RARE], max_new_tokens=2))
    with pytest.raises(BadInput, match="on this prompt without these blocks"):
        list(continue_greedily(model, [1, RARE], removed=tiny.ids("1.mlp"), max_new_tokens=2))
    assert list(continue_greedily(model, [1, 2], max_new_tokens=1))
    row = TaskRow("q", "choices", f"w{RARE}", ("w2", "w3"), 0)
    with pytest.raises(BadInput, match="on the questions that it was asked"):
        run(score_choices(model, TaskSet("toy", "none", (row,))))


def test_only_float16_is_looked_through():
    """What a sound model computes is within bfloat16 and float32, which need no further pass."""
    windows = tiny.windows(2, 8, lengths=(8, 3))
    windows.input_ids[windows.input_ids == RARE] = 1
    half = wrap(rare_module().half(), tiny.tokenizer(), name="tiny")
    assert list(check_windows(half, windows))
    windows.input_ids[1, 2] = RARE
    with pytest.raises(BadInput, match="on random"):
        list(check_windows(half, windows))
    assert not list(check_windows(wrap(rare_module(), tiny.tokenizer(), name="tiny"), windows))


def test_a_word_that_cannot_follow_is_no_overflow():
    assert is_finite(torch.tensor([[0.0, -torch.inf]]))
    assert not is_finite(torch.tensor([[0.0, torch.inf]]))
    assert not is_finite(torch.tensor([[torch.nan, 0.0]]))


def test_a_removal_that_overflows_is_never_ranked(monkeypatch):
    """The whole model is finite; without one block it is not, so that its score is no number."""
    model, windows = tiny.model("llama"), tiny.windows(2, 8)
    asked, metrics = ScoreRequest(metrics=("ppl",)), parse_metrics(("ppl",))

    def score(metric: AblationMetric, table: AblationTable) -> Scores:
        values = {block: 1.0 for block in table.values} | {tiny.ids("1.mlp")[0]: math.inf}
        return Scores(metric.name, metric.title, values, values)

    monkeypatch.setattr(type(metrics["ppl"]), "score", score)
    with pytest.raises(BadInput) as caught:
        run(score_windows(model, windows, metrics, asked))
    assert caught.value.found == "ppl is not finite for 1.mlp."
    assert "bfloat16 or float32" in caught.value.todo
