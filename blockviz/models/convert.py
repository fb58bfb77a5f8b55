"""A model of another family as a Llama, where both compute the same: Llamas may have any bias."""

from __future__ import annotations

from dataclasses import replace

import torch
import transformers

from blockviz.errors import UnsupportedModel
from blockviz.models.families import family_of
from blockviz.models.model import BlockModel, find_blocks
from blockviz.models.proof import prove

# What a Llama is told of the model; everything else of its config is what it always is.
SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "hidden_act"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
    *("initializer_range", "rms_norm_eps", "tie_word_embeddings", "rope_parameters"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout"),
)
CONVERTIBLE = ("mistral", "qwen2")


def can_be_llama(model: BlockModel) -> bool:
    """Whether as_llama gives a model of it, which is not one already."""
    return model.module.config.model_type in CONVERTIBLE and not _slides(model)


def as_llama(model: BlockModel) -> BlockModel:
    """The same numbers in a LlamaForCausalLM, weights shared; UnsupportedModel where it cannot be.

    Qwen2 has biases on queries, keys and values: a Llama then has one on its output as well, which
    is 0.
    """
    source = model.module
    if not can_be_llama(model):
        raise UnsupportedModel(
            f"{model.info.name} was to be written as a Llama.",
            f"Its family is {model.family.name}"
            + (", and some of its layers see a window only." if _slides(model) else "."),
            "Export it as it is, or as custom.",
        )
    settings = {name: getattr(source.config, name, None) for name in SHARED}
    settings = {name: value for name, value in settings.items() if value is not None}
    has_bias = source.config.model_type == "qwen2"
    config = transformers.LlamaConfig(**settings, attention_bias=has_bias)
    config._attn_implementation = source.config._attn_implementation
    with torch.device("meta"):
        made = transformers.LlamaForCausalLM(config)
    tensors = dict(source.state_dict())
    if has_bias:
        for i in range(config.num_hidden_layers):
            ends = tensors[f"model.layers.{i}.self_attn.o_proj.weight"]
            tensors[f"model.layers.{i}.self_attn.o_proj.bias"] = ends.new_zeros(len(ends))
    made.load_state_dict(tensors, assign=True)
    if config.tie_word_embeddings:
        made.tie_weights()
    # What no file holds was made without numbers.
    rotary = type(made.model.rotary_emb)(config=config)
    made.model.rotary_emb = rotary.to(model.device)
    made.generation_config = source.generation_config
    made.eval().requires_grad_(requires_grad=False)
    family = family_of(made)
    info = replace(
        model.info,
        family=family.name,
        n_parameters=sum(p.numel() for p in made.parameters()),
        blocks=find_blocks(made, family),
    )
    found = BlockModel(made, model.tokenizer, family, info)
    prove(found)
    return found


def _slides(model: BlockModel) -> bool:
    config = model.module.config
    types = getattr(config, "layer_types", None) or []
    window = getattr(config, "sliding_window", None)
    is_narrow = window is not None and window < config.max_position_embeddings
    return "sliding_attention" in types or (config.model_type == "mistral" and is_narrow)
