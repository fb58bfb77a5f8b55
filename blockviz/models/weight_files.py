"""The safetensors files of a model folder: whole or not, and what they hold, by their headers."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from blockviz.errors import BadSource, UnsupportedModel, printable

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# safetensors itself reads no longer header.
_MAX_HEADER = 100 << 20
_AGAIN = "Download or write the model again."
_NUMBER = re.compile(r"\.(\d+)\.")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def stored_tensors(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape of all the weights that transformers will read; BadSource with the
    file's name where one is missing, damaged or cut short."""
    found: dict[str, tuple[int, ...]] = {}
    for file in _files(folder, name):
        found.update(_header(folder / file, name))
    return found


def check_counts(
    config: Mapping[str, Any], stored: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Nothing, if the config asks for as many layers and experts as the tensors can hold.

    Before anything is built: a layer takes room before it has weights, and 10^9 of them take all.
    """
    longest = max((size for shape in stored.values() for size in shape), default=0)
    for keys, most in ((_LAYERS, len(stored)), (_EXPERTS, max(len(stored), longest))):
        for key in keys:
            value = config.get(key)
            if type(value) is int and not (keys is _EXPERTS or value > 0):
                raise _too_many(name, f"{key} {value}", "a model has at least one")
            if type(value) is int and value > most:
                raise _too_many(name, f"{key} {value}", f"its files hold {len(stored):,} tensors")


def check_size(module: nn.Module, stored: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Nothing, if a model built without weights is no larger than the files; tied ones count twice.

    What the files lack would be filled with random numbers before it is refused by its name.
    """
    asked = sum(parameter.numel() for parameter in module.parameters())
    there = sum(math.prod(shape) for shape in stored.values())
    if asked > 2 * there:
        raise _too_many(name, f"{asked:,} parameters", f"its files hold {there:,}")


def _too_many(name: str, asked: str, found: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"The model {name} was to be loaded.",
        f"Its config.json asks for {asked}, and {found}.",
        "Mend that entry of config.json, or take the config and the weights of one model.",
    )


def unread_text(unread: Iterable[str], n_layers: int) -> str:
    """What is left unread of the files, in words: how many tensors, and which layers of them."""
    names = sorted(unread)
    if not names:
        return ""
    numbers = {int(number[1]) for name in names if (number := _NUMBER.search(name))}
    layers = sorted(number for number in numbers if number >= n_layers)
    first = printable(names[0][:80])
    text = f"{len(names)} tensor{'s' * (len(names) > 1)} of the files, such as {first}"
    if not layers:
        return text
    many = f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
    return f"{text}: {many}, where config.json has {n_layers} layers"


def _files(folder: Path, name: str) -> list[str]:
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        single = [WEIGHTS] if (folder / WEIGHTS).is_file() else []
        return single or sorted(path.name for path in folder.glob("*.safetensors"))
    try:
        files = sorted(set(json.loads(index.read_text("utf-8-sig"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found = f"{INDEX} does not say which file holds which tensor."
        raise BadSource(_asked(name), found, _AGAIN) from error
    missing = [file for file in files if not (folder / str(file)).is_file()]
    if missing:
        found = f"{len(missing)} of {len(files)} files are not there, such as {missing[0]}."
        raise BadSource(_asked(name), found, "Download the files that are missing.")
    return files


def _header(path: Path, name: str) -> dict[str, tuple[int, ...]]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= _MAX_HEADER:
            raise BadSource(_asked(name), f"{path.name} is no safetensors file.", _AGAIN)
        header = stream.read(length)
    try:
        entries = json.loads(header) if len(header) == length else {}
        entries.pop("__metadata__", None)
        shapes = {key: tuple(value["shape"]) for key, value in entries.items()}
        ends = [value["data_offsets"][1] for value in entries.values()]
        needed = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        found = f"The header of {path.name} is damaged."
        raise BadSource(_asked(name), found, _AGAIN) from error
    if size < needed:
        found = f"{path.name} is cut short: {size:,} of {needed:,} bytes are there."
        raise BadSource(_asked(name), found, "Download it again.")
    return shapes


def _asked(name: str) -> str:
    return f"The weights of {name} were to be loaded."
