"""A decoder that has lost some of its blocks, with what makes up for them, in one file.

Every custom export brings this file along, and blockviz itself opens exports with it. A class of
transformers builds the layers that still attend, so that a cache has one entry for each of them and
none for what is gone. A layer may be without its MLP, and may be followed by lone MLPs and by maps
of the stream. `config.blockviz` says which.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Channels(nn.Module):
    """stream * scale + shift, channel by channel; a scale of one number scales all of them."""

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", scale.float())
        self.register_buffer("shift", None if shift is None else shift.float())

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        scaled = stream * self.scale
        return scaled if self.shift is None else scaled + self.shift


class Shift(nn.Module):
    """stream + shift."""

    def __init__(self, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.float())

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        return stream + self.shift


class Residual(nn.Module):
    """stream + f(stream) @ matrix + shift; f the identity or a norm, the matrix is square."""

    def __init__(
        self,
        matrix: torch.Tensor,
        shift: torch.Tensor | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix.float())
        self.register_buffer("shift", None if shift is None else shift.float())
        self.norm = norm

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        read = stream if self.norm is None else self.norm(stream).float()
        mapped = stream + read @ self.matrix
        return mapped if self.shift is None else mapped + self.shift


class Gated(nn.Module):
    """stream + (silu(f(stream) @ gate) * (f(stream) @ up)) @ down; f divides by the size of the
    stream at each position, as the norms of blocks do."""

    def __init__(self, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        for name, matrix in (("gate", gate), ("up", up), ("down", down)):
            self.register_buffer(name, matrix.float())

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        read = stream * (stream.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt()
        inner = functional.silu(read @ self.gate) * (read @ self.up)
        return stream + inner @ self.down


# Everything that a map of the stream can be; each keeps its numbers as buffers, in float32.
MAPS: tuple[type[nn.Module], ...] = (Channels, Shift, Residual, Gated)


class MappedStream(nn.Module):
    """The stream through a map, which computes in float32 whatever the model runs in."""

    def __init__(self, blockviz_map: nn.Module) -> None:
        super().__init__()
        self.blockviz_map = blockviz_map

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        wide = hidden_states.float()
        return hidden_states + (self.blockviz_map(wide) - wide).to(hidden_states.dtype)


class MappedNorm(nn.Module):
    """What a block reads: a norm, then a map in float32."""

    def __init__(self, norm: nn.Module, blockviz_map: nn.Module) -> None:
        super().__init__()
        self.norm, self.blockviz_map = norm, blockviz_map

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed = self.norm(hidden_states)
        return self.blockviz_map(normed.float()).to(normed.dtype)


class NoMlp(nn.Module):
    """Where an MLP was: adds nothing."""

    def forward(self, hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
        return torch.zeros_like(hidden_states)


class NoAttention(nn.Module):
    """Where an attention block was: adds nothing, and leaves the cache alone."""

    def forward(
        self, hidden_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        return torch.zeros_like(hidden_states), None


class TwoMaps(nn.Module):
    """The MLP of a layer that keeps its two linear maps side by side with everything else."""

    def __init__(self, fc1: nn.Module, activation_fn: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.activation_fn, self.fc2 = fc1, activation_fn, fc2

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class Gathered:
    """Comes in front of the class of an OPT layer: the same sums, its MLP one module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gather_mlp(self)

    def forward(
        self, hidden_states: torch.Tensor, *_args: Any, use_cache: bool = False, **kwargs: Any
    ) -> torch.Tensor:
        read = self.self_attn_layer_norm(hidden_states)
        hidden_states = hidden_states + self.self_attn(hidden_states=read, **kwargs)[0]
        return hidden_states + self.mlp(self.final_layer_norm(hidden_states))


def gather_mlp(layer: nn.Module) -> None:
    """Nothing where a layer has its MLP as a module; else its maps become one."""
    if not hasattr(layer, "fc1"):
        return
    layer.mlp = TwoMaps(layer.fc1, layer.activation_fn, layer.fc2)
    del layer.fc1, layer.fc2
    if not isinstance(layer, Gathered):
        layer.__class__ = type("GatheredLayer", (Gathered, type(layer)), {"stock": type(layer)})


def scatter_mlp(layer: nn.Module) -> None:
    """The layer as transformers has it again."""
    if isinstance(layer, Gathered):
        layer.fc1, layer.fc2 = layer.mlp.fc1, layer.mlp.fc2
        del layer.mlp
        layer.__class__ = type(layer).stock


def take_out(layer: nn.Module, spec: dict[str, Any], part: str) -> None:
    """The attention or the MLP of a layer goes, and the norms that only it needs."""
    setattr(layer, spec[part], NoAttention() if part == "attn" else NoMlp())
    for name in spec[f"{part}_norms"]:
        setattr(layer, name, nn.Identity())


def put_map(layer: nn.Module, spec: dict[str, Any], part: str, module: nn.Module) -> None:
    """What a block reads goes through a map from now on."""
    name = spec[f"{part}_norms"][0]
    setattr(layer, name, MappedNorm(getattr(layer, name), module))


def connect(layers: nn.ModuleList) -> None:
    """Let the stream pass what stands in front of the first layer and behind every layer."""
    if len(layers[0].front):
        layers[0].register_forward_pre_hook(_in_front, with_kwargs=True)
    for layer in layers:
        if len(layer.behind):
            layer.register_forward_hook(_behind, with_kwargs=True)


def _in_front(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    if args:
        return (_through(layer.front, args[0], args[1:], kwargs), *args[1:]), kwargs
    rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    return (), {**rest, "hidden_states": _through(layer.front, kwargs["hidden_states"], (), rest)}


def _behind(layer: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
    rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
    if isinstance(output, tuple):
        return (_through(layer.behind, output[0], args[1:], rest), *output[1:])
    return _through(layer.behind, output, args[1:], rest)


def _through(
    modules: nn.ModuleList, hidden: torch.Tensor, args: tuple, kwargs: dict
) -> torch.Tensor:
    for module in modules:
        is_map = isinstance(module, MappedStream)
        found = module(hidden) if is_map else module(hidden, *args, **kwargs)
        hidden = found[0] if isinstance(found, tuple) else found
    return hidden


class Pruned:
    """Comes in front of a class of transformers; see BlockvizForCausalLM."""

    _keep_in_fp32_modules_strict = ("blockviz_map",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        spec = config.blockviz
        layers = self.get_submodule(spec["layers"])
        for layer, entry in zip(layers, spec["stack"], strict=True):
            gather_mlp(layer)
            layer.behind = nn.ModuleList(self._built(item) for item in entry["behind"])
            for part in ("attn", "mlp"):
                if entry.get(f"{part}_map"):
                    put_map(layer, spec, part, self._map(entry[f"{part}_map"]))
            if not entry["has_mlp"]:
                take_out(layer, spec, "mlp")
        layers[0].front = nn.ModuleList(self._built(item) for item in spec["front"])
        connect(layers)

    def _plain_layer(self) -> nn.Module:
        """One more layer of the kind that this model has."""
        layers = self.get_submodule(self.config.blockviz["layers"])
        return type(layers[0])(self.config, 0)

    def _built(self, item: dict[str, Any]) -> nn.Module:
        """A lone MLP, or a map of the stream."""
        if item["kind"] != "mlp":
            return MappedStream(self._map(item))
        layer = self._plain_layer()
        if item.get("map"):
            put_map(layer, self.config.blockviz, "mlp", self._map(item["map"]))
        take_out(layer, self.config.blockviz, "attn")
        return layer

    def _map(self, item: dict[str, Any]) -> nn.Module:
        tensors = {name: torch.zeros(*shape) for name, shape in item["shapes"].items()}
        if item["has_norm"]:
            tensors["norm"] = getattr(self._plain_layer(), self.config.blockviz["norm"]).float()
        return {kind.__name__: kind for kind in MAPS}[item["kind"]](**tensors)
