"""Configs that are refused before any weight is fetched, each with its reason."""

from __future__ import annotations

import pytest

from blockviz.errors import UnsupportedModel
from blockviz.models.config_check import check_config

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "is_encoder_decoder": False}
OWN = {"model_type": "own", "architectures": ["OwnForCausalLM"]}


@pytest.mark.parametrize(
    "config",
    [
        LLAMA,
        {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]},
        {"model_type": "llama"},
        {**LLAMA, "quantization_config": None},
        {**LLAMA, "_attn_implementation": "eager"},
        # Not read: see blockviz.models.readable.
        {**LLAMA, "auto_map": {"AutoModelForCausalLM": "own.Own"}},
        {**LLAMA, "text_config": {"auto_map": {}}},
        {**LLAMA, "parts": [{"deep": [{"trust_remote_code": True}]}]},
        {**LLAMA, "_attn_implementation_internal": "a/b"},
    ],
)
def test_decoders_pass(config):
    assert check_config(config, "a/b") is None


@pytest.mark.parametrize(
    "config, found",
    [
        ({**OWN, "auto_map": {"AutoModelForCausalLM": "own.Own"}}, "(auto_map)"),
        ({**OWN, "text_config": {"auto_map": {}}}, "(auto_map)"),
        ({**OWN, "parts": [{"deep": [{"trust_remote_code": True}]}]}, "(trust_remote_code)"),
        ({**LLAMA, "blockviz": {}, "auto_map": {}}, "does not run code"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "quantised (gptq)"),
        ({**LLAMA, "quantization_config": {"quant_method": "awq"}}, "quantised (awq)"),
        ({**LLAMA, "quantization_config": {"load_in_4bit": True}}, "quantised (unknown method)"),
        ({**LLAMA, "text_config": {"quantization_config": {"quant_method": "bnb"}}}, "(bnb)"),
        ({"architectures": ["LlamaForCausalLM"]}, "names no model_type"),
        ({"model_type": 3}, "names no model_type"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "an encoder (bert)"),
        ({"model_type": "bert", "architectures": ["BertLMHeadModel"]}, "an encoder (bert)"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder-decoder (t5)"),
        ({"model_type": "new", "architectures": ["NewForMaskedLM"]}, "NewForMaskedLM"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "no head"),
    ],
)
def test_what_is_refused(config, found):
    with pytest.raises(UnsupportedModel) as caught:
        check_config(config, "owner/name")
    assert found in caught.value.found
    assert caught.value.asked == "The model owner/name was to be loaded."
    assert caught.value.todo.strip()


def test_a_quantised_model_is_told_what_to_use_instead():
    with pytest.raises(UnsupportedModel, match="bfloat16 or float16, or a GGUF file"):
        check_config({**LLAMA, "quantization_config": {"quant_method": "awq"}}, "a/b")


def test_depth_does_not_matter():
    config = inner = dict(LLAMA)
    for _ in range(5000):
        inner["deeper"] = {}
        inner = inner["deeper"]
    check_config(config, "a/b")
    inner["blockviz"] = {}
    with pytest.raises(UnsupportedModel):
        check_config(config, "a/b")
