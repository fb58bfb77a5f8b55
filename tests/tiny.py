"""Tiny models with random weights, one per family and special case, and a tokenizer of 64 words.

Everything a trained model has is random here, biases and norms too, so that no block is a no-op and
no two blocks are alike. 4 layers, hidden size 32, 64 words; windows of 8 where some layers slide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from blockviz.models.load import wrap
from blockviz.models.model import BlockModel
from blockviz.types import BlockId, CalibrationBatch, CalibrationSet, DataOrigin, PruningPlan

VOCAB, HIDDEN, LAYERS, WINDOW, CONTEXT = 64, 32, 4, 8, 64
MIXED = ["sliding_attention", "full_attention"] * (LAYERS // 2)
TEMPLATE = "{% for m in messages %}w5 {{ m['content'] }} w6 {% endfor %}"

_NO_ENDS = {"bos_token_id": None, "eos_token_id": None}
LLAMA_LIKE = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    **_NO_ENDS,
}
_NEOX = {**LLAMA_LIKE, "rotary_pct": 0.5}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": HIDDEN,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": CONTEXT,
    **_NO_ENDS,
}
_GEMMA = {"head_dim": 8, "sliding_window": WINDOW, "layer_types": MIXED, "query_pre_attn_scalar": 8}

_OPT = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "word_embed_proj_dim": HIDDEN,
    "ffn_dim": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    **_NO_ENDS,
}
_FALCON = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "ffn_hidden_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    **_NO_ENDS,
}

# Case -> (model type, its config beside the common one): one of each kind of layer.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**LLAMA_LIKE, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {**LLAMA_LIKE, "sliding_window": WINDOW}),
    "qwen2": ("qwen2", {**LLAMA_LIKE, "tie_word_embeddings": True}),
    "qwen3": (
        "qwen3",
        {
            **LLAMA_LIKE,
            "head_dim": 16,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "layer_types": MIXED,
        },
    ),
    "gemma3": ("gemma3_text", {**LLAMA_LIKE, **_GEMMA}),
    "gemma3-softcap": ("gemma3_text", {**LLAMA_LIKE, **_GEMMA, "final_logit_softcapping": 2.0}),
    "phi3": ("phi3", {**LLAMA_LIKE, "pad_token_id": 0}),
    "gpt2": ("gpt2", _GPT2),
    "neox": ("gpt_neox", {**_NEOX, "use_parallel_residual": True}),
    "neox-serial": ("gpt_neox", {**_NEOX, "use_parallel_residual": False}),
}

_EXPERTS = {
    **LLAMA_LIKE,
    "moe_intermediate_size": 24,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
}
# The rest of the table's families, which are laid out like one of those above or nearly so.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma": ("gemma", {**LLAMA_LIKE, "head_dim": 8}),
    "gemma2": ("gemma2", {**LLAMA_LIKE, **_GEMMA, "attn_logit_softcapping": 3.0}),
    "smollm3": ("smollm3", {**LLAMA_LIKE, "pad_token_id": 0, "no_rope_layers": [1, 0, 1, 1]}),
    "olmo": ("olmo", {**LLAMA_LIKE, "pad_token_id": 0}),
    "olmo2": ("olmo2", {**LLAMA_LIKE, "pad_token_id": 0}),
    "stablelm": ("stablelm", LLAMA_LIKE),
    "stablelm-parallel": ("stablelm", {**LLAMA_LIKE, "use_parallel_residual": True}),
    "phi": ("phi", {**LLAMA_LIKE, "partial_rotary_factor": 0.5, "tie_word_embeddings": False}),
    "granite": (
        "granite",
        {
            **LLAMA_LIKE,
            "residual_multiplier": 0.3,
            "embedding_multiplier": 2.0,
            "attention_multiplier": 0.4,
            "logits_scaling": 4.0,
            "pad_token_id": 0,
        },
    ),
    "opt": ("opt", _OPT),
    "falcon": ("falcon", {**_FALCON, "multi_query": True, "parallel_attn": True}),
    "falcon-two-norms": (
        "falcon",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "falcon-serial": ("falcon", {**_FALCON, "parallel_attn": False, "alibi": True, "bias": True}),
    "mixtral": ("mixtral", {**LLAMA_LIKE, "num_local_experts": 4}),
    "qwen2-moe": ("qwen2_moe", {**_EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3-moe": ("qwen3_moe", {**_EXPERTS, "head_dim": 16}),
}
EVERY = {**CASES, **OTHERS}
EXPERTS = ("mixtral", "qwen2-moe", "qwen3-moe")
# One of each way to put a layer together: serial with norms in front, norms behind, parallel,
# Conv1D, fused projections, experts. What holds for these is tried less on the others.
STRUCTURAL = ("llama", "gemma3", "neox", "gpt2", "phi3", "qwen2-moe")

# Case -> what its attention and its MLP write the stream with; zeroing it zeroes the block.
WRITERS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(EVERY, ("o_proj", "down_proj")),
    "phi": ("dense", "fc2"),
    "opt": ("out_proj", "fc2"),
    **dict.fromkeys(("falcon", "falcon-two-norms", "falcon-serial"), ("dense", "dense_4h_to_h")),
    "gpt2": ("c_proj", "c_proj"),
    "neox": ("dense", "dense_4h_to_h"),
    "neox-serial": ("dense", "dense_4h_to_h"),
}


def rest_slow(cases: Iterable[str], *rooms: str) -> list[Any]:
    """The cases as parameters; those that are not structural run when one of the rooms changed."""
    slow = pytest.mark.slow(*rooms)
    return [case if case in STRUCTURAL else pytest.param(case, marks=slow) for case in cases]


def module(model_type: str, config: dict[str, Any], *, seed: int = 0) -> torch.nn.Module:
    """A transformers model whose every parameter was drawn from `seed`; float32, evaluating."""
    made = transformers.AutoConfig.for_model(model_type, **config)
    built = transformers.AutoModelForCausalLM.from_config(made).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.2 if parameter.ndim > 1 else parameter + noise * 0.2)
    return built


def model(case: str, *, seed: int = 0, **config: Any) -> BlockModel:
    """The proved BlockModel of a case; `config` overrides its settings."""
    model_type, settings = EVERY[case]
    return wrap(module(model_type, {**settings, **config}, seed=seed), tokenizer(), name=case)


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Word `w7` is id 7; no special tokens are added."""
    words = {f"w{i}": i for i in range(VOCAB)}
    inner = Tokenizer(models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner)


def windows(
    n: int = 3, seq: int = 20, *, seed: int = 1, lengths: tuple[int, ...] = ()
) -> CalibrationSet:
    """Random windows; `lengths` pads window i on the right from position lengths[i] on."""
    ids = torch.randint(VOCAB, (n, seq), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids, dtype=torch.bool)
    for row, length in enumerate(lengths):
        mask[row, length:] = False
        ids[row, length:] = 0
    origin = DataOrigin(
        dataset="random",
        split="none",
        mode="per_sample" if lengths else "stream",
        n_samples=n,
        seq_len=seq,
        n_tokens=int(mask.sum()),
        seed=seed,
        token_hash=f"{seed}",
    )
    return CalibrationSet(ids, mask, origin)


def batch(n: int = 3, seq: int = 20, **how: Any) -> CalibrationBatch:
    """The windows above as one batch."""
    made = windows(n, seq, **how)
    return CalibrationBatch(made.input_ids, made.attention_mask)


def ids(*names: str) -> tuple[BlockId, ...]:
    """The blocks of `"0.attn"`, `"1.layer"`, ..."""
    return tuple(BlockId.parse(name) for name in names)


def plan(*names: str) -> PruningPlan:
    """The plan that removes them, in this order."""
    return PruningPlan(ids(*names))


@contextmanager
def zeroed(model: BlockModel, case: str, blocks: tuple[BlockId, ...]) -> Iterator[None]:
    """Inside, the blocks write zeros because their last projection holds nothing but zeros."""
    parts = [part for block in blocks for part in block.parts]
    tensors = []
    for part in parts:
        own, name = model.part(part), WRITERS[case][part.part == "mlp"]
        if part.part == "mlp" and case in EXPERTS:
            tensors += [p for n, p in own.named_parameters() if name in n]
            continue
        writer = own.get_submodule(name)
        tensors += [p for p in (writer.weight, getattr(writer, "bias", None)) if p is not None]
    kept = [t.clone() for t in tensors]
    try:
        with torch.no_grad():
            for tensor in tensors:
                tensor.zero_()
        yield
    finally:
        with torch.no_grad():
            for tensor, old in zip(tensors, kept, strict=True):
                tensor.copy_(old)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference beside the largest expected value; inf if the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    gap = (found.double() - expected.double()).abs().max()
    return float(gap / expected.double().abs().max().clamp_min(1e-30))


def gap(found: torch.nn.Module, expected: BlockModel) -> float:
    """The largest distance of a module's logits to a model's, on whole and on padded windows."""
    gaps = []
    for given in (batch(), batch(2, 7, lengths=(7, 4))):
        mask = given.attention_mask
        with torch.inference_mode():
            logits = found(
                input_ids=given.input_ids,
                attention_mask=None if bool(mask.all()) else mask,
                use_cache=False,
            ).logits
        gaps.append(distance(logits[mask], expected.logits(given)[mask]))
    return max(gaps)
