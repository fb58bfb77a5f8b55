"""The tokenizer of a model folder: transformers' own classes only, never code of the folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import transformers

from blockviz.errors import BadSource
from blockviz.models.readable import named_code

_VOCABULARIES = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*", "tekken.json", "merges.txt")
_COPY = "Put tokenizer.json and tokenizer_config.json of the same model beside config.json."


def load_tokenizer(folder: Path, name: str, *, source: Path | None = None) -> Any:
    """The tokenizer of a `readable` folder; BadSource with the reason where there is none.

    source: the folder as it was published, where the reason is looked for.
    """
    source = folder if source is None else source
    names = {path.name for path in source.iterdir()}
    if not _any_of(names, _VOCABULARIES):
        raise _refusal(name, *_missing(source))
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # The tokenizers library raises Exception itself for a file that it does not understand.
        raise _refusal(name, *_unread(source, names, error)) from error


def _missing(source: Path) -> tuple[str, str]:
    code = _code_of(source)
    if code:
        found = f"It is code of its own ({code[:60]}), which blockviz does not run"
        return f"{found}, and no tokenizer.json is there.", _COPY
    return "No tokenizer is there: neither tokenizer.json nor tokenizer.model.", _COPY


def _unread(source: Path, names: Iterable[str], error: Exception) -> tuple[str, str]:
    if "tokenizer.json" in names:
        said = " ".join(str(error).split())[:160] or type(error).__name__
        found = f"transformers cannot read it ({said.rstrip('.')})."
        return found, "Download tokenizer.json and tokenizer_config.json again."
    code = _code_of(source)
    if code:
        return _missing(source)
    vocabulary = next(name for name in sorted(names) if _any_of([name], _VOCABULARIES))
    if fnmatch(vocabulary, "*.model"):
        found = f"{vocabulary} is there without tokenizer.json; reading it takes two more packages."
        return found, f"Run pip install sentencepiece protobuf, and open it again. Or: {_COPY}"
    return f"{vocabulary} is there without tokenizer.json, and cannot be read by itself.", _COPY


def _any_of(names: Iterable[str], patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for name in names for pattern in patterns)


def _code_of(source: Path) -> str:
    try:
        config = json.loads((source / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return ""
    return named_code(config) if isinstance(config, dict) else ""


def _refusal(name: str, found: str, todo: str) -> BadSource:
    return BadSource(f"The tokenizer of {name} was to be loaded.", found, todo)
