"""Where each family keeps the parts of a decoder layer: rows of data, or found by structure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from blockviz.errors import UnsupportedModel


@dataclass(frozen=True)
class Family:
    """Paths inside a causal language model; the names below `layers` are relative to a layer.

    A part's *join* is the module whose output is added to the residual stream: the part itself,
    or the post-norm after it. Its *norms* go with it when it is removed. It *reads* the stream
    through one of them, or through one that the other part needs as well and that stays; or as it
    is. Its *bias key* is the setting of the config that gives every linear map of the part a bias,
    empty where none does. The *scale key* is that of a factor that every update is multiplied by.
    Some layers *return a tuple* with the stream in front.
    """

    name: str
    model_types: tuple[str, ...]
    layers: str = "model.layers"
    final_norm: str = "model.norm"
    attn: str = "self_attn"
    mlp: str = "mlp"
    attn_join: str = "self_attn"
    mlp_join: str = "mlp"
    attn_norms: tuple[str, ...] = ("input_layernorm",)
    mlp_norms: tuple[str, ...] = ("post_attention_layernorm",)
    is_parallel: bool = False
    parallel_key: str = ""
    shared_norm: str = ""
    is_prenormed: bool = True
    attn_bias_key: str = ""
    mlp_bias_key: str = ""
    scale_key: str = ""
    returns_tuple: bool = False

    def join(self, part: str) -> str:
        return self.attn_join if part == "attn" else self.mlp_join

    def module(self, part: str) -> str:
        return self.attn if part == "attn" else self.mlp

    def norms(self, part: str) -> tuple[str, ...]:
        return self.attn_norms if part == "attn" else self.mlp_norms

    def reads(self, part: str) -> str:
        """The path of the norm that the part reads through; empty where there is none."""
        if not self.is_prenormed:
            return ""
        return self.shared_norm or self.norms(part)[0]

    def bias_key(self, part: str) -> str:
        return self.attn_bias_key if part == "attn" else self.mlp_bias_key


_FALCON = Family(
    "Falcon",
    ("falcon",),
    layers="transformer.h",
    final_norm="transformer.ln_f",
    attn="self_attention",
    attn_join="self_attention",
    parallel_key="parallel_attn",
    attn_bias_key="bias",
    mlp_bias_key="bias",
    returns_tuple=True,
)
FAMILIES: tuple[Family, ...] = (
    Family("Llama", ("llama",), attn_bias_key="attention_bias", mlp_bias_key="mlp_bias"),
    Family("Mistral", ("mistral",)),
    Family("Qwen2", ("qwen2",)),
    Family("Qwen3", ("qwen3",), attn_bias_key="attention_bias"),
    Family("Phi-3", ("phi3",)),
    Family(
        "Gemma 3",
        ("gemma3_text",),
        attn_join="post_attention_layernorm",
        mlp_join="post_feedforward_layernorm",
        attn_norms=("input_layernorm", "post_attention_layernorm"),
        mlp_norms=("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
    Family("Mixtral", ("mixtral",)),
    Family("Qwen2 MoE", ("qwen2_moe",)),
    Family("Qwen3 MoE", ("qwen3_moe",), attn_bias_key="attention_bias"),
    Family("Gemma", ("gemma",), attn_bias_key="attention_bias"),
    Family(
        "Gemma 2",
        ("gemma2",),
        attn_join="post_attention_layernorm",
        mlp_join="post_feedforward_layernorm",
        attn_norms=("input_layernorm", "post_attention_layernorm"),
        mlp_norms=("pre_feedforward_layernorm", "post_feedforward_layernorm"),
    ),
    Family("SmolLM3", ("smollm3",), attn_bias_key="attention_bias", mlp_bias_key="mlp_bias"),
    Family("OLMo", ("olmo",), attn_bias_key="attention_bias"),
    Family(
        "OLMo 2",
        ("olmo2",),
        attn_join="post_attention_layernorm",
        mlp_join="post_feedforward_layernorm",
        attn_norms=("post_attention_layernorm",),
        mlp_norms=("post_feedforward_layernorm",),
        is_prenormed=False,
    ),
    Family(
        "Granite",
        ("granite",),
        attn_bias_key="attention_bias",
        mlp_bias_key="mlp_bias",
        scale_key="residual_multiplier",
    ),
    Family("StableLM", ("stablelm",), parallel_key="use_parallel_residual"),
    Family(
        "Phi",
        ("phi",),
        final_norm="model.final_layernorm",
        attn_norms=(),
        mlp_norms=(),
        is_parallel=True,
        shared_norm="input_layernorm",
    ),
    Family(
        "GPT-2",
        ("gpt2",),
        layers="transformer.h",
        final_norm="transformer.ln_f",
        attn="attn",
        attn_join="attn",
        attn_norms=("ln_1",),
        mlp_norms=("ln_2",),
    ),
    Family(
        "GPT-NeoX",
        ("gpt_neox",),
        layers="gpt_neox.layers",
        final_norm="gpt_neox.final_layer_norm",
        attn="attention",
        attn_join="attention",
        parallel_key="use_parallel_residual",
    ),
    Family(
        "OPT",
        ("opt",),
        layers="model.decoder.layers",
        final_norm="model.decoder.final_layer_norm",
        attn_norms=("self_attn_layer_norm",),
        mlp_norms=("final_layer_norm",),
        attn_bias_key="enable_bias",
        mlp_bias_key="enable_bias",
    ),
    _FALCON,
    replace(_FALCON, attn_norms=("ln_attn",), mlp_norms=("ln_mlp",)),
)

ATTN_NAMES = ("self_attn", "attn", "attention", "self_attention")
MLP_NAMES = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


def family_of(model: nn.Module) -> Family:
    """The row of a model's type, or a layout found by structure; UnsupportedModel if neither."""
    config = model.config
    for family in FAMILIES:
        if config.model_type in family.model_types and _has_norms(model, family):
            if family.parallel_key:
                family = replace(family, is_parallel=bool(getattr(config, family.parallel_key)))
            return _with_shared_norm(model, family)
    return detect(model)


def _has_norms(model: nn.Module, family: Family) -> bool:
    """Whether the attention of this model reads through the norm of the row; a family may have a
    row for each way to name them."""
    layer = model.get_submodule(family.layers)[0]
    return all(hasattr(layer, name) for name in family.attn_norms)


def _with_shared_norm(model: nn.Module, family: Family) -> Family:
    """The row, where parallel parts of this model read through one norm: that one only."""
    layer = model.get_submodule(family.layers)[0]
    missing = [n for n in family.mlp_norms if getattr(layer, n, None) is None]
    if not (family.is_parallel and missing):
        return family
    shared = family.attn_norms[0]
    return replace(family, attn_norms=(), mlp_norms=(), shared_norm=shared)


def detect(model: nn.Module) -> Family:
    """A layout read off the module tree: one list of layers, each with one attention and one MLP.

    Only plain pre-norm joins are guessed; the residual identity at load proves or refutes them.
    """
    model_type = model.config.model_type
    n_layers = getattr(model.config, "num_hidden_layers", None)
    lists = [
        (path, m)
        for path, m in model.named_modules()
        if isinstance(m, nn.ModuleList) and n_layers is not None and len(m) == n_layers > 0
    ]
    lists = [(p, m) for p, m in lists if _is_uniform(m, ATTN_NAMES) and _is_uniform(m, MLP_NAMES)]
    if len(lists) != 1:
        raise _unknown(model_type, f"{len(lists)} lists of {n_layers} attention + MLP layers exist")
    path, layers = lists[0]
    norms = [n for n, m in layers[0].named_children() if "norm" in type(m).__name__.lower()]
    parent = path.rpartition(".")[0]
    holder = model.get_submodule(parent)
    final = [n for n, m in holder.named_children() if "norm" in type(m).__name__.lower()]
    if len(norms) != 2 or len(final) != 1:
        found = f"a layer holds {len(norms)} norms and {len(final)} follow the layers"
        raise _unknown(model_type, f"{found}, where 2 and 1 are understood")
    attn, mlp = _child(layers[0], ATTN_NAMES), _child(layers[0], MLP_NAMES)
    return Family(
        name=model_type,
        model_types=(model_type,),
        layers=path,
        final_norm=f"{parent}.{final[0]}",
        attn=attn,
        mlp=mlp,
        attn_join=attn,
        mlp_join=mlp,
        attn_norms=(norms[0],),
        mlp_norms=(norms[1],),
    )


def _is_uniform(layers: nn.ModuleList, names: tuple[str, ...]) -> bool:
    """Whether all layers keep this part under one name; layers of mixed kinds do not."""
    found = {_child(layer, names) for layer in layers}
    return len(found) == 1 and "" not in found


def _child(layer: nn.Module, names: tuple[str, ...]) -> str:
    return next((n for n, _ in layer.named_children() if n in names), "")


def _unknown(model_type: str, found: str) -> UnsupportedModel:
    known = ", ".join(dict.fromkeys(f.name for f in FAMILIES))
    return UnsupportedModel(
        f"The blocks of a {model_type!r} model were to be found.",
        f"Its structure is not understood: {found}.",
        f"Use a model of a known family: {known}.",
    )
