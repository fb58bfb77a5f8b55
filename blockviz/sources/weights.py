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


def check_weights(names: Iterable[str], text: str) -> None:
    """Nothing, if there are a config and safetensors weights; else BadSource with the reason."""
    names = [name for name in names if "/" not in name]
    asked = f"The model {text} was asked for."
    if "config.json" not in names:
        raise BadSource(
            asked,
            "It has no config.json, so it is no model in the transformers format.",
            "Give a model that has config.json and .safetensors files, or a .gguf file.",
        )
    if any(name.endswith(".safetensors") for name in wanted_files(names)):
        return
    pickled = [n for n in names if any(fnmatch(n, pattern) for pattern in _PICKLES)]
    if pickled:
        found = f"Its weights are pickled ({pickled[0]}), and a pickle can run code."
    else:
        found = "It holds no weights that can be read."
    raise BadSource(
        asked,
        found,
        "Only safetensors weights are accepted: take a revision that has them, or convert it with "
        "save_pretrained.",
    )
