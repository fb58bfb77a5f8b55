"""Greedy continuation: what is written with a cache is what the bare model would write."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch

from blockviz.errors import BadInput
from blockviz.models.generate import continue_greedily, end_tokens, prompt_ids
from blockviz.models.load import wrap
from blockviz.models.model import BlockModel
from blockviz.types import BlockId

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPT = [7, 1, 33, 12, 5, 60]
PLANS = (
    (),
    ("0.attn",),
    ("0.layer", "2.layer"),
    ("1.layer", "3.layer"),
    ("1.attn", "2.mlp"),
    ("0.attn", "1.attn", "2.attn", "3.attn"),
)

shared = functools.cache(tiny.model)


@pytest.fixture(params=tiny.CASES)
def model(request: pytest.FixtureRequest) -> BlockModel:
    return shared(request.param)


def without_cache(model: BlockModel, removed: tuple[BlockId, ...], n: int) -> list[int]:
    """The new ids, the whole text read again for each of them."""
    ids = list(PROMPT)
    with model.masked(removed), torch.inference_mode():
        for _ in range(n):
            logits = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    return ids[len(PROMPT) :]


def words(ids: list[int]) -> str:
    return " ".join(f"w{i}" for i in ids)


@pytest.mark.parametrize("names", PLANS, ids=lambda names: "+".join(names) or "none")
def test_t_mech_1_text_with_a_cache_is_text_without(model: BlockModel, names: tuple[str, ...]):
    """12 tokens behind 6: beyond the sliding windows of 8."""
    removed = tiny.ids(*names)
    expected = without_cache(model, removed, 12)
    texts = list(continue_greedily(model, PROMPT, removed=removed, max_new_tokens=12))
    assert texts == [words(expected[: i + 1]) for i in range(12)]


def test_plans_write_different_texts():
    """Else the comparison above would pass on a mask that does nothing."""
    model = shared("llama")
    texts = {words(without_cache(model, tiny.ids(*names), 12)) for names in PLANS}
    assert len(texts) == len(PLANS)


def test_masked_and_pruned_write_the_same(model: BlockModel):
    names = ("0.attn", "2.layer", "3.mlp")
    pruned = model.prune(tiny.plan(*names))
    masked = continue_greedily(model, PROMPT, removed=tiny.ids(*names), max_new_tokens=12)
    assert list(masked) == list(continue_greedily(pruned, PROMPT, max_new_tokens=12))


def test_it_writes_what_the_librarys_generate_writes(model: BlockModel):
    ids = model.module.generate(
        input_ids=torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long),
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
    )[0, len(PROMPT) :]
    *_, text = continue_greedily(model, PROMPT, max_new_tokens=12)
    assert text == words(ids.tolist())


def test_two_texts_in_turns_do_not_see_each_other(model: BlockModel):
    plans = ((), tiny.ids("0.attn", "2.mlp"))
    alone = [list(continue_greedily(model, PROMPT, removed=p, max_new_tokens=8)) for p in plans]
    turns = [continue_greedily(model, PROMPT, removed=p, max_new_tokens=8) for p in plans]
    for step in range(8):
        for texts, expected in zip(turns, alone, strict=True):
            assert next(texts) == expected[step]
            assert not any("forward" in m.__dict__ for m in model.module.modules())


def test_a_text_that_is_closed_leaves_no_mark():
    model = shared("gemma3")
    texts = continue_greedily(model, PROMPT, removed=tiny.ids("1.layer"), max_new_tokens=8)
    next(texts)
    texts.close()
    assert not any("forward" in m.__dict__ for m in model.module.modules())


@pytest.mark.parametrize("holder", ["generation_config", "config", "tokenizer"])
@pytest.mark.parametrize("is_list", [True, False])
def test_an_end_token_ends_the_text_and_is_not_shown(holder: str, is_list: bool):  # noqa: FBT001
    model = tiny.model("llama")
    expected = without_cache(model, (), 12)
    end = next(i for i in expected if i != expected[0])
    stop = expected.index(end)
    if holder == "tokenizer":
        model.tokenizer.eos_token = f"w{end}"
    else:
        target = getattr(model.module, holder)
        target.eos_token_id = [63, end] if is_list else end
    assert end in end_tokens(model)
    texts = list(continue_greedily(model, PROMPT, max_new_tokens=12))
    assert texts == [words(expected[: i + 1]) for i in range(stop)]


def test_the_context_is_never_overrun():
    model = shared("llama")
    *_, text = continue_greedily(model, PROMPT, max_new_tokens=tiny.CONTEXT - 6)
    assert len(text.split()) == tiny.CONTEXT - 6
    with pytest.raises(
        BadInput, match=r"59 tokens after a prompt of 6.*at most 64 tokens\. Shorten"
    ):
        next(continue_greedily(model, PROMPT, max_new_tokens=tiny.CONTEXT - 5))


# --- prompts --------------------------------------------------------------------------------------


def _with_template() -> BlockModel:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = tiny.TEMPLATE
    return wrap(tiny.module(*tiny.CASES["llama"]), tokenizer, name="chatty")


def test_a_raw_prompt_is_its_own_tokens():
    assert prompt_ids(shared("llama"), "w9 w3", is_chat=False) == [9, 3]
    assert prompt_ids(_with_template(), "w9 w3", is_chat=False) == [9, 3]


def test_a_chat_prompt_is_one_turn_of_the_template():
    model = _with_template()
    assert model.info.has_chat_template
    assert prompt_ids(model, "w9 w3", is_chat=True) == [5, 9, 3, 6]


def test_a_chat_without_a_template_is_refused():
    with pytest.raises(BadInput, match=r"chat template\. llama has none\. Send it raw\."):
        prompt_ids(shared("llama"), "w9", is_chat=True)


@pytest.mark.parametrize("prompt", ["", "   \n"])
def test_a_prompt_of_nothing_is_refused(prompt: str):
    with pytest.raises(BadInput, match="holds no token"):
        prompt_ids(shared("llama"), prompt, is_chat=False)
