"""Perplexity: by hand, by numpy, and by the library's own loss."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from blockviz.evaluate import Perplexity, measure_perplexity, next_token_nll
from blockviz.evaluate.perplexity import next_tokens
from blockviz.models.model import BlockModel
from blockviz.types import CalibrationBatch, CalibrationSet, Done, Progress, run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_loss_by_hand():
    # p = (1/2, 1/4, 1/4): -ln of the target's.
    logits = torch.tensor([[2.0, 1, 1], [2.0, 1, 1]]).log()
    loss = next_token_nll(logits, torch.tensor([0, 2]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log(4)])


def test_the_loss_is_taken_in_float32():
    """In bfloat16 the sum over a large vocabulary would be off by percents."""
    logits = torch.zeros(1, 50_000, dtype=torch.bfloat16)
    assert next_token_nll(logits, torch.tensor([0])).item() == pytest.approx(
        math.log(50_000), rel=1e-6
    )


def test_the_loss_of_impossible_logits_stays_finite():
    logits = torch.tensor([[1000.0, -1000.0]])
    assert next_token_nll(logits, torch.tensor([1])).item() == 2000


def test_which_positions_have_a_next_token():
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0], [5, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()
    targets, has_target = next_tokens(CalibrationBatch(ids, mask))
    assert has_target.int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert targets[has_target].tolist() == [6, 7, 8, 6]


def test_perplexity_and_its_error_by_hand():
    # Window means ln 2 and ln 8: mean 2 ln 2, perplexity 4. Deviation sqrt(2) ln 2, error of the
    # mean ln 2, of the perplexity 4 ln 2.
    found = Perplexity((math.log(2), math.log(8)), 10)
    assert found.value == pytest.approx(4)
    assert found.nll_stderr == pytest.approx(math.log(2))
    assert found.stderr == pytest.approx(4 * math.log(2))
    # Paired with ln 2 and ln 4 the windows rise by 0 and ln 2: error ln(2) / 2.
    baseline = Perplexity((math.log(2), math.log(4)), 10)
    assert found.rise_stderr(baseline) == pytest.approx(math.log(2) / 2)


def test_the_error_is_numpys_and_that_of_one_window_is_zero():
    values = np.random.default_rng(0).normal(3, 1, 20)
    found = Perplexity(tuple(values), 1)
    assert found.nll_stderr == pytest.approx(values.std(ddof=1) / np.sqrt(20))
    assert Perplexity((3.0,), 1).stderr == 0


def test_pairs_of_unequal_runs_are_refused():
    with pytest.raises(ValueError, match="zip"):
        Perplexity((1.0, 2.0), 1).rise_stderr(Perplexity((1.0,), 1))


@pytest.mark.parametrize("case", tiny.CASES)
@pytest.mark.parametrize("names", [(), ("0.attn", "2.layer")], ids=["whole", "pruned"])
def test_it_equals_the_librarys_own_loss(case: str, names: tuple[str, ...]):
    model, windows = tiny.model(case), tiny.windows(3, 16)
    found = run(measure_perplexity(model, windows, removed=tiny.ids(*names), batch_tokens=32))
    for i in range(3):
        ids = windows.input_ids[i : i + 1]
        with model.masked(tiny.ids(*names)), torch.inference_mode():
            loss = model.module(input_ids=ids, labels=ids, use_cache=False).loss.item()
        assert found.window_nll[i] == pytest.approx(loss, rel=1e-5)
    assert found.n_tokens == 3 * 15


@pytest.mark.parametrize("case", ["llama", "gemma3", "gpt2", "neox"])
def test_padding_and_batches_change_nothing(case: str):
    lengths = (16, 3, 9, 2)
    model, windows = tiny.model(case), tiny.windows(4, 16, lengths=lengths)
    at_once = run(measure_perplexity(model, windows, batch_tokens=64))
    one_by_one = run(measure_perplexity(model, windows, batch_tokens=1))
    assert at_once.n_tokens == one_by_one.n_tokens == 15 + 2 + 8 + 1
    for i, length in enumerate(lengths):
        ids = windows.input_ids[i : i + 1, :length]
        with torch.inference_mode():
            expected = model.module(input_ids=ids, labels=ids, use_cache=False).loss.item()
        assert at_once.window_nll[i] == pytest.approx(expected, rel=1e-5)
        assert one_by_one.window_nll[i] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_tokens", [1, 40, 64])
@pytest.mark.parametrize("n_kept", [0, 1, 3, 9])
def test_the_losses_of_tokens_are_kept_of_the_first_windows(batch_tokens: int, n_kept: int):
    lengths = (16, 3, 9, 2)
    model, windows = tiny.model("llama"), tiny.windows(4, 16, lengths=lengths)
    found = run(
        measure_perplexity(
            model, windows, removed=tiny.ids("1.mlp"), batch_tokens=batch_tokens, n_kept=n_kept
        )
    )
    assert [len(row) for row in found.token_nll] == [n - 1 for n in lengths[:n_kept]]
    for row, ids, mean in zip(found.token_nll, windows.input_ids, found.window_nll, strict=False):
        with model.masked(tiny.ids("1.mlp")), torch.inference_mode():
            logits = model.module(input_ids=ids[None, : len(row) + 1], use_cache=False).logits[0]
        nll = -logits.float().log_softmax(-1)[range(len(row)), ids[1 : len(row) + 1]]
        assert row == pytest.approx(nll.tolist(), rel=1e-4)
        assert mean == pytest.approx(sum(row) / len(row))


def test_uniform_logits_give_the_size_of_the_vocabulary():
    model = tiny.model("llama")
    with torch.no_grad():
        model.module.lm_head.weight.zero_()
    assert run(measure_perplexity(model, tiny.windows())).value == pytest.approx(tiny.VOCAB)


def test_each_batch_gives_a_partial_result():
    model, windows = tiny.model("llama"), tiny.windows(5, 8)
    *steps, last = measure_perplexity(model, windows, batch_tokens=16)
    partial = [s.partial for s in steps if s.partial is not None]
    assert [len(p.window_nll) for p in partial] == [2, 4, 5]
    assert [p.n_tokens for p in partial] == [14, 28, 35]
    assert all(isinstance(s, Progress) and s.total == 5 for s in steps)
    assert isinstance(last, Done) and last.result == partial[-1]
    assert partial[0].window_nll == last.result.window_nll[:2]


def test_other_plans_may_run_between_two_batches():
    model, windows = tiny.model("gemma3"), tiny.windows(4, 16)
    removed = tiny.ids("1.attn")
    expected = run(measure_perplexity(model, windows, removed=removed, batch_tokens=16))
    whole = model.logits(tiny.batch())
    for event in measure_perplexity(model, windows, removed=removed, batch_tokens=16):
        assert torch.equal(model.logits(tiny.batch()), whole)
        if isinstance(event, Done):
            assert event.result == expected


OWN = Path(__file__).parents[1] / "assets/text/own.jsonl"


@pytest.mark.network
def test_the_demo_models_perplexity_is_a_plain_loops(demo_float32: BlockModel):
    """4 windows of 128 tokens of our own text, with the library's shifted cross entropy."""
    texts = [json.loads(line)["text"] for line in OWN.read_text(encoding="utf-8").splitlines()]
    ids = demo_float32.tokenizer("\n\n".join(texts), return_tensors="pt")["input_ids"][0, : 4 * 128]
    ids = ids.view(4, 128)
    windows = CalibrationSet(ids, torch.ones_like(ids, dtype=torch.bool), tiny.windows().origin)
    found = run(measure_perplexity(demo_float32, windows, batch_tokens=256))
    losses = []
    with torch.inference_mode():
        for row in ids:
            losses.append(demo_float32.module(input_ids=row[None], labels=row[None]).loss.item())
    assert found.window_nll == pytest.approx(losses, rel=1e-5)
    assert found.value == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert found.n_tokens == 4 * 127
    assert 5 < found.value < 60  # a language model on English prose, not noise
