"""The metric of README.md: ten lines that register, and score like the built-in ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
import warm

from blockviz.errors import UnknownName
from blockviz.metrics import METRICS, parse_metrics
from blockviz.session import ScoreRequest
from blockviz.session.opening import open_model
from blockviz.session.scoring import score_windows
from blockviz.types import run

ROOT = Path(__file__).parents[1]


def python_of(name: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (found,) = re.findall(
        rf"<!-- {name}:begin -->\n```python\n(.*?)```\n<!-- {name}:end -->", text, re.DOTALL
    )
    return found


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The README's class in a registry that is as it was afterwards."""
    monkeypatch.setattr(METRICS, "_classes", dict(METRICS._classes))
    space: dict[str, object] = {"__name__": "readme"}
    exec(compile(python_of("own-metric-use"), "use", "exec", dont_inherit=True), space)
    exec(compile(python_of("own-metric"), "own", "exec", dont_inherit=True), space)
    yield


def favourite_loss(model: object, ids: torch.Tensor, name: str) -> float:
    """Mean over a window's positions of how much probability the dense favourite loses."""
    with torch.no_grad():
        dense = model.module(input_ids=ids[None]).logits[0].double().softmax(dim=-1)
        with model.masked(tiny.ids(name)):
            cut = model.module(input_ids=ids[None]).logits[0].double().softmax(dim=-1)
    top = dense.argmax(dim=-1)
    rows = torch.arange(len(ids))
    return (dense[rows, top] - cut[rows, top]).mean().item()


def test_it_is_at_most_ten_lines():
    assert len(python_of("own-metric").splitlines()) <= 10


@pytest.mark.usefixtures("one_thread", "registered")
@pytest.mark.parametrize("case", ["llama", "neox"])
def test_it_scores_beside_the_built_in_ones_as_its_formula_says(case: str):
    model, windows = tiny.model(case), tiny.windows(3, 12, lengths=(12, 5, 9))
    metrics = parse_metrics(["top_word", "ppl", "bi"])
    table = run(score_windows(model, windows, metrics, ScoreRequest()))
    assert list(table.metrics) == ["top_word", "ppl", "bi"]
    found = table.metrics["top_word"]
    for block in model.info.units("block"):
        expected = [
            favourite_loss(model, ids[: int(mask.sum())], str(block))
            for ids, mask in zip(windows.input_ids, windows.attention_mask, strict=True)
        ]
        assert found.values[block] == pytest.approx(sum(expected) / 3, rel=1e-3, abs=1e-6)
        assert found.per_window[block] == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found.baseline == pytest.approx(0, abs=1e-7)
    assert found.to_json()["higher_means"] == "keep"


@pytest.mark.usefixtures("registered")
def test_its_name_is_known_and_taken():
    assert METRICS.get("top_word").title == "Top word"
    assert "top_word" in parse_metrics(["all"])
    with pytest.raises(ValueError, match="twice"):
        METRICS.register(METRICS.get("top_word"))


def test_the_registry_is_as_it_was():
    with pytest.raises(UnknownName):
        METRICS.get("top_word")


def test_the_program_runs_as_it_stands(tmp_path: Path):
    folder, words = tmp_path / "tiny-llama", tmp_path / "words.txt"
    tiny.module(*tiny.CASES["llama"]).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    ids = tiny.windows(2, 16).input_ids
    words.write_text(" ".join(f"w{i}" for i in ids.flatten().tolist()), encoding="utf-8")
    how = {"model": str(folder), "calibration": str(words), "n_samples": 2, "seq_len": 16}
    program = (
        f"{python_of('own-metric-use')}\n{python_of('own-metric')}\nimport json\n"
        f"print(json.dumps({{str(b): v for b, v in scores(**{how!r}).items()}}))\n"
    )
    done = warm.run(program)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    model = run(open_model(str(folder)))  # in the dtype that the program takes
    assert found.keys() == {str(b) for b in model.info.units("block")}
    for name, value in found.items():
        expected = sum(favourite_loss(model, row, name) for row in ids) / 2
        assert value == pytest.approx(expected, rel=0.05, abs=3e-3)
