"""Whether a config.json may be loaded at all, decided before any weight is fetched or read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from blockviz.errors import UnsupportedModel
from blockviz.models.custom import is_custom
from blockviz.models.readable import is_code_key

_ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra"}
    | {"modernbert", "mpnet", "roberta", "xlm-roberta"}
)
_DECODER_HEADS = ("ForCausalLM", "LMHeadModel")
_USE_DECODER = "Take a decoder-only language model, such as demo or HuggingFaceTB/SmolLM2-135M."


def check_config(config: Mapping[str, Any], name: str) -> None:
    """Nothing, if the config is safe to load and describes a decoder; else UnsupportedModel.

    Whether blockviz finds the blocks of the model's family is decided later, at load.
    """
    _refuse_code(config, name)
    _refuse_quantised(config, name)
    _refuse_other_kinds(config, name)


def _refuse_code(config: Mapping[str, Any], name: str) -> None:
    # The code that a custom export asks for is blockviz's own, and taken from here.
    ours = {"blockviz", "auto_map"} if is_custom(config) else set()
    # A family that transformers has needs no code of the model's: what it names is not read.
    is_known = config.get("model_type") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    for key in _keys({name: value for name, value in config.items() if name not in ours}):
        if key == "blockviz" or (is_code_key(key) and not is_known):
            raise UnsupportedModel(
                f"The model {name} was to be loaded.",
                f"Its config.json asks for code of its own ({key[:40]}), and "
                "blockviz does not run code from model repositories.",
                "Take a model of a family that transformers has, listed by blockviz info "
                "--families.",
            )


def _refuse_quantised(config: Mapping[str, Any], name: str) -> None:
    for key, value in _entries(config):
        if key in ("quantization_config", "compression_config") and value is not None:
            method = value.get("quant_method") if isinstance(value, Mapping) else None
            raise UnsupportedModel(
                f"The model {name} was to be loaded.",
                f"Its weights are already quantised ({str(method or 'unknown method')[:40]}), and "
                "blocks of packed weights cannot be compared or repaired.",
                "Take the original in bfloat16 or float16, or a GGUF file, which is unpacked.",
            )


def _refuse_other_kinds(config: Mapping[str, Any], name: str) -> None:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        found, todo = "Its config.json names no model_type.", "Check that it is a language model."
    elif config.get("is_encoder_decoder") is True:
        found = f"It is an encoder-decoder ({model_type}), whose layers do not form one stream."
        todo = _USE_DECODER
    elif model_type in _ENCODERS:
        found = f"It is an encoder ({model_type}): it does not predict the next token."
        todo = _USE_DECODER
    elif not _has_decoder_head(config.get("architectures")):
        classes = ", ".join(map(str, _listed(config["architectures"])))[:80]
        found = f"Its class is {classes}: it has no head that predicts the next token of a text."
        todo = _USE_DECODER
    else:
        return
    raise UnsupportedModel(f"The model {name} was to be loaded.", found, todo)


def _has_decoder_head(architectures: Any) -> bool:
    """True also where none is listed: the class then follows from model_type."""
    listed = _listed(architectures)
    return not listed or any(str(a).endswith(_DECODER_HEADS) for a in listed)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of nested dicts and lists, without recursion: depth is not ours."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            for key, inner in value.items():
                yield str(key), inner
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _keys(value: Any) -> Iterator[str]:
    return (key for key, _ in _entries(value))
