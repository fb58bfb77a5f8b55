"""Which files of a model are taken: top-level safetensors, JSON and tokenizer files, no pickles."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch

from blockviz.errors import BadSource

WANTED = ("*.json", "*.safetensors", "tokenizer*", "*.model", "*.txt", "*.jinja")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def wanted_files(names: Iterable[str]) -> tuple[str, ...]:
    """The names to take. `consolidated*` is a second copy of the weights in another layout."""
    return tuple(
        sorted(
            name
            for name in names
            if "/" not in name
            and any(fnmatch(name, pattern) for pattern in WANTED)
            and not any(fnmatch(name, pattern) for pattern in _PICKLES)
            and not name.startswith("consolidated")
        )
    )


def check_weights(names: Iterable[str], text: str, *, base: str = "") -> None:
    """Nothing, if there are a config and safetensors weights; else BadSource with the reason.

    base: the model that an adapter found there belongs to, where that is known.
    """
    names = sorted(name for name in names if "/" not in name)
    weights = [name for name in wanted_files(names) if name.endswith(".safetensors")]
    if "config.json" in names and any(not name.startswith("adapter_") for name in weights):
        return
    found, todo = _without_weights(names, base)
    raise BadSource(f"The model {text} was asked for.", found, todo)


def _without_weights(names: list[str], base: str) -> tuple[str, str]:
    """What is there in place of a model, and the remedy."""
    packed = [name for name in names if name.lower().endswith(".gguf")]
    pickled = [name for name in names if any(fnmatch(name, pattern) for pattern in _PICKLES)]
    if any(name.startswith("adapter_") for name in names):
        return (
            f"It is an adapter{f' of {base}' if base else ''}: changes to a model, not a model.",
            "Merge it into its base with peft (merge_and_unload, then save_pretrained), and give "
            "the folder of that.",
        )
    if packed:
        several = f"{len(packed)} GGUF files, such as {packed[0]}" if packed[1:] else packed[0]
        return (
            f"It holds its weights as GGUF ({several}).",
            f"Give that file itself, downloaded where it is on the hub: .../{packed[0]}",
        )
    if "config.json" not in names:
        return (
            "It has no config.json, so it is no model in the transformers format.",
            "Give a model that has config.json and .safetensors files, or a .gguf file.",
        )
    if pickled:
        found = f"Its weights are pickled ({pickled[0]}), and a pickle can run code."
    elif any(name.startswith("consolidated") for name in names):
        found = "Its weights are there in another layout only (consolidated.safetensors)."
    else:
        found = "It holds no weights that can be read."
    return (
        found,
        "Only safetensors weights are accepted: take a revision that has them, or convert it with "
        "save_pretrained.",
    )
