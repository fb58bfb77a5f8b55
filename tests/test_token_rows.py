"""Tokens that a tokenizer has and the model's embedding does not: padding, texts, questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from tokenizers.models import WordLevel

from blockviz.cli import main
from blockviz.data import Texts, build, letter_prompts
from blockviz.errors import BadInput, BlockvizError, UnsupportedModel
from blockviz.evaluate import check_questions, score_choices
from blockviz.models.generate import prompt_ids
from blockviz.models.load import wrap
from blockviz.models.model import BlockModel
from blockviz.session import ScoreRequest
from blockviz.session.evaluation import evaluate_request
from blockviz.session.opening import open_model, open_windows
from blockviz.types import TaskRow, TaskSet, run

FOUND = "It holds the token '<x>' (id 64), and the model's embedding has rows for ids 0 to 63."
QUESTIONS = TaskSet(
    "toy", "none", (TaskRow("q0", "choices", "w1", ("w2", "w3"), 0),
                    TaskRow("q1", "choices", "w1 <x>", ("w2", "w3 w4"), 0)),
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> BlockModel:
    """64 rows; the tokenizer has the letters A and B, knows <x> as id 64, and pads with id 65."""
    tokenizer = tiny.tokenizer()
    words = {**{f"w{i}": i for i in range(62)}, "A": 62, "B": 63}
    tokenizer.backend_tokenizer.model = WordLevel(words, unk_token="w0")
    tokenizer.add_tokens(["<x>"])
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert tokenizer.pad_token_id == 65
    return wrap(tiny.module(*tiny.CASES["llama"]), tokenizer, name="tiny")


def put(folder: Path, name: str, *texts: str) -> str:
    path = folder / name
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return str(path)


def test_padding_takes_a_token_that_has_a_row(model, tmp_path):
    """The rows that are padded read as they do alone."""
    text = put(tmp_path, "a.jsonl", "w1 w2 w3 w4 w5", "w6 w7")
    asked = ScoreRequest(calibration=text, n_samples=2, seq_len=8, mode="per_sample")
    windows = run(open_windows(model, asked))
    assert windows.input_ids.tolist() == [[1, 2, 3, 4, 5], [6, 7, 0, 0, 0]]
    (batch,) = windows.batches(2)
    alone = model.logits(tiny.CalibrationBatch(torch.tensor([[6, 7]]), torch.ones(1, 2).bool()))
    assert tiny.distance(model.logits(batch)[1:, :2], alone) < 1e-5


def test_the_tokenizer_s_own_padding_stays_where_it_has_a_row(model):
    texts = Texts(("w1 w2 w3", "w4 w5"), "toy", "all")
    found = build(texts, model.tokenizer, mode="per_sample", n_samples=2, seq_len=8, n_rows=66)
    assert found.input_ids.tolist() == [[1, 2, 3], [4, 5, 65]]


@pytest.mark.parametrize("mode", ["stream", "per_sample"])
def test_a_text_with_a_token_without_a_row_is_refused_by_its_name(model, tmp_path, mode):
    text = put(tmp_path, "a.jsonl", "w1 w2 <x>", "w4 w5 w6", "w7 w8 w9")
    asked = ScoreRequest(calibration=text, n_samples=2, seq_len=3, mode=mode)
    with pytest.raises(BadInput) as caught:
        run(open_windows(model, asked))
    assert caught.value.asked == "The text a.jsonl was to be read."
    assert caught.value.found == FOUND and "Take that token out" in caught.value.todo


def test_what_is_not_read_is_not_refused(model, tmp_path):
    text = put(tmp_path, "a.jsonl", "w1 w2 w3 w4", "<x>")
    windows = run(open_windows(model, ScoreRequest(calibration=text, n_samples=1, seq_len=4)))
    assert windows.input_ids.tolist() == [[1, 2, 3, 4]]


def test_prompts_and_questions_are_refused_too(model):
    for run_it in (
        lambda: prompt_ids(model, "w1 <x>", is_chat=False),
        lambda: run(score_choices(model, QUESTIONS)),
        lambda: check_questions(model, QUESTIONS),
        lambda: letter_prompts(QUESTIONS, model.tokenizer, max_seq_len=64, n_rows=64),
    ):
        with pytest.raises(BadInput) as caught:
            run_it()
        assert caught.value.found == FOUND
    check_questions(model, QUESTIONS.head(1))


def test_a_question_is_refused_before_any_forward(model, tmp_path, monkeypatch):
    def forward(*_: object, **__: object) -> None:
        raise AssertionError("a forward was run")

    text = put(tmp_path, "a.jsonl", "w1 w2 w3 w4")
    monkeypatch.setattr(model.module.base_model, "forward", forward)
    asked = ScoreRequest(calibration=text, n_samples=1, seq_len=4)
    with pytest.raises(BadInput) as caught:
        run(evaluate_request(model, asked, None, (QUESTIONS,)))
    assert caught.value.asked == "The row q1 of toy was to be scored."


# what a config says of its padding


@pytest.mark.parametrize("pad, found", [([0, 1], "pad_token_id"), (64, "pad_token_id 64")])
def test_an_impossible_padding_of_a_config_is_refused_in_one_sentence(tmp_path, capsys, pad, found):
    tiny.module(*tiny.CASES["llama"]).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": pad}))
    with pytest.raises(BlockvizError) as caught:
        run(open_model(str(tmp_path), dtype="float32"))
    assert isinstance(caught.value, UnsupportedModel)
    assert found in caught.value.found and "\n" not in str(caught.value)
    assert main(["info", "--model", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
