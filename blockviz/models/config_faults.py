"""What transformers cannot make of a config.json, as a refusal that names the entry."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from blockviz.errors import UnsupportedModel

log = logging.getLogger(__name__)

# What comes of an entry of the wrong kind, wherever it is first used.
CONFIG_FAULTS = (
    AssertionError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    OverflowError,
    StrictDataclassError,
    TypeError,
    ValueError,
    ZeroDivisionError,
)


def config_refusal(name: str, config: Mapping[str, Any], error: Exception) -> UnsupportedModel:
    """`error`: what transformers raised over `config`; the entry is named where it can be known."""
    log.debug("transformers could not use a config", exc_info=error)
    return UnsupportedModel(
        f"The model {name} was to be loaded.",
        _found(config, error),
        "Mend that entry of config.json, or download the file again.",
    )


def _found(config: Mapping[str, Any], error: Exception) -> str:
    if isinstance(error, StrictDataclassError):
        said = _one_line(str(error).partition(". Errors:")[0])
        return f"transformers does not take its config.json: {said}."
    entry = _entry_of(config, error)
    if entry is not None:
        return f"transformers does not know {entry[0]} {entry[1]!r} of its config.json."
    said = _one_line(str(error))
    if isinstance(error, KeyError):
        said = f"{said} is missing or not known"
    return f"transformers cannot use its config.json: {said or type(error).__name__}."


def _entry_of(config: Mapping[str, Any], error: Exception) -> tuple[str, Any] | None:
    """The (key, value) that `error` is about: looked up in a table, imported, or divided by."""
    wanted: Any = None
    if isinstance(error, ZeroDivisionError):
        wanted = 0
    elif isinstance(error, AttributeError):
        wanted = error.name
    elif isinstance(error, KeyError) and error.args:
        wanted = error.args[0]
    for key, value in _entries(config):
        if isinstance(value, str) and value.removeprefix("torch.") == wanted:
            return key, value[:60]
        # No identifier is ever a divisor.
        if type(value) is int and value == wanted and not key.endswith("_id"):
            return key, value
    return None


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of nested objects."""
    pending: list[Any] = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            yield from ((str(k), v) for k, v in value.items())
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:240].rstrip(".")
