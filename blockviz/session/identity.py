"""What a kept number hangs on: the model, its weights, the code that computes, and the metric."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

import blockviz
from blockviz.metrics import Metric
from blockviz.models.model import BlockModel
from blockviz.session.opening import provenance_of
from blockviz.store import key

# What a loss, and what is read off an output, is computed by.
_ROOMS = ("engine", "evaluate", "metrics", "models", "types")
_FILES = ("session/objectives.py",)


def identity_of_model(model: BlockModel, *, engine: str) -> str:
    """A key of everything that moves a number of this model, measured now, by this road.

    Model, dtype, device, threads and versions are in it, a few of its weights, and the text of the
    code that computes: a changed formula is computed anew.
    """
    return key("model", provenance_of(model, None), engine, _code(), _weights(model))


def identity_of(metric: Metric) -> str | None:
    """What makes two metrics the same: class, settings, text of its modules; None if unknown.

    Unknown is that of a class made in a function or a script: what it computes may hang on values
    that its text does not show.
    """
    cls = type(metric)
    if "<locals>" in cls.__qualname__ or cls.__module__ == "__main__":
        return None
    try:
        modules = dict.fromkeys(sys.modules[c.__module__] for c in cls.__mro__[:-1])
        texts = [inspect.getsource(module) for module in modules]
        name = f"{cls.__module__}.{cls.__qualname__}"
        return key("metric", name, metric.parameters(), digest(texts))
    except (KeyError, OSError, TypeError, ValueError):
        return None


def digest(texts: Iterable[str]) -> str:
    """sha256 over texts in their order, and over where one ends and the next begins."""
    found = hashlib.sha256()
    for text in texts:
        found.update(hashlib.sha256(text.encode()).digest())
    return found.hexdigest()


def _code() -> str:
    folder = Path(blockviz.__file__).parent
    files = sorted(file for room in _ROOMS for file in (folder / room).glob("*.py"))
    files += [folder / file for file in _FILES]
    return digest(file.read_text(encoding="utf-8") for file in files)


def _weights(model: BlockModel) -> str:
    """A few numbers of every parameter: two models of one name are not taken for each other."""
    texts = []
    for name, parameter in model.module.named_parameters():
        numbers = [] if parameter.is_meta else _some(parameter.detach())
        texts.append(f"{name} {tuple(parameter.shape)} {numbers}")
    return digest(texts)


def _some(tensor: torch.Tensor, n: int = 16) -> list[float]:
    flat = tensor.flatten()
    return flat[:: max(1, flat.numel() // n)].tolist()
