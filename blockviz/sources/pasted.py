"""Names of models as people paste them: in quotes, as an address of the hub, a path of a shell."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

_QUOTES = ("''", '""', "``", "\u2018\u2019", "\u201c\u201d")
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(.+)", re.IGNORECASE)
_PAGE = re.compile(r"([\w.-]+/[\w.-]+)/(?:tree|blob|resolve|raw)/([^?#]+)")
_DATA_SET = re.compile(r"datasets/([\w.-]+(?:/[\w.-]+)?)(?=[/?#]|$)")
_CACHED = re.compile(r"models--(.+?)--(.+)")
_FILES = (".safetensors", ".json")
# What the hub itself still takes by these names.
_CANONICAL = {
    **{name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large")},
    "gpt2-xl": "openai-community/gpt2-xl",
    "distilgpt2": "distilbert/distilgpt2",
}
# How names begin -> who publishes them.
_OWNERS = {
    **{"qwen": "Qwen", "smollm": "HuggingFaceTB", "gemma": "google", "phi-": "microsoft"},
    **{"mistral": "mistralai", "olmo": "allenai", "pythia": "EleutherAI", "opt-": "facebook"},
    **{"tinyllama": "TinyLlama", "llama": "meta-llama", "falcon": "tiiuae"},
    **{"granite": "ibm-granite", "stablelm": "stabilityai"},
}


def unquoted(text: str) -> str:
    """The text without the spaces and the one pair of quotes around it."""
    text = text.strip()
    is_quoted = len(text) > 1 and text[0] + text[-1] in _QUOTES
    return text[1:-1].strip() if is_quoted else text


def without_address(text: str) -> str:
    """`owner/name`, with `@revision` where one is named, of an address of the hub, also of a page
    of it or of one that a slash ends; a file:// address as its path; other text as it is."""
    if text.lower().startswith("file://"):
        return url2pathname(urlsplit(text).path)
    address = _ADDRESS.fullmatch(text)
    rest = unquote(address[1].partition("?")[0].partition("#")[0]) if address else text
    page = _PAGE.fullmatch(rest)
    if page and (address or not Path(text).exists()):
        revision, _, file = page[2].partition("/")
        rest = page[1] + (f"@{revision}" if revision not in ("", "main") else "")
        return f"{page[1]}/{file}" if file.lower().endswith(".gguf") else rest
    is_id = re.fullmatch(r"[\w.-]+/[\w.-]+/+", rest) and not rest.startswith(".")
    return rest.rstrip("/") if address or is_id else rest


def text_name(text: str) -> str:
    """The name of a text that is pasted: in quotes, as the address of a data set on the hub, or as
    a file in the spelling of a shell or a browser."""
    name = unquoted(text)
    if name.lower().startswith("file://"):
        name = url2pathname(urlsplit(name).path)
    address = _ADDRESS.fullmatch(name)
    page = _DATA_SET.match(unquote(address[1])) if address else None
    if page:
        return page[1]
    return next((str(path) for path in paths(name) if os.path.exists(path)), name)


def paths(text: str) -> Iterator[Path]:
    """The paths that a text may mean, the plainest first: as it is, as a shell would read it."""
    yield Path(text)
    if text.startswith("~") or "$" in text:
        yield Path(os.path.expandvars(os.path.expanduser(text)))
    if "\\" in text:
        yield Path(re.sub(r"\\(.)", r"\1", text))


def model_folder(path: Path) -> tuple[Path, str]:
    """(the folder meant by a folder, or by a file of a model; its hub id where it is of a cache).

    A folder of the hub's cache means the snapshot of its main branch, or the only one there is.
    """
    if path.is_file() and path.suffix.lower() in _FILES:
        path = path.parent
    if _CACHED.fullmatch(path.name):
        path = _snapshot(path)
    found = _CACHED.fullmatch(path.parents[1].name) if len(path.parents) > 1 else None
    is_snapshot = found is not None and path.parent.name == "snapshots"
    return path, f"{found[1]}/{found[2]}" if is_snapshot else ""


def _snapshot(path: Path) -> Path:
    try:
        named = path / "snapshots" / (path / "refs" / "main").read_text("utf-8").strip()
        if named.is_dir():
            return named
        (only,) = (path / "snapshots").iterdir()
    except (OSError, ValueError):
        return path
    return only


def canonical(text: str) -> str:
    """`owner/name` of one of the few names that the hub takes without an owner."""
    name, at, revision = text.partition("@")
    return f"{_CANONICAL[name.lower()]}{at}{revision}" if name.lower() in _CANONICAL else text


def suggestion(text: str) -> str:
    """A sentence with a name to paste in place of `text`; empty where none comes to mind."""
    owner, slash, name = text.partition("/")
    if slash and re.fullmatch(r"[\w.-]+:[\w.-]+", name) and re.fullmatch(r"[\w.-]+", owner):
        plain = name.partition(":")[0]
        return (
            f"Take {owner}/{plain}, or, for one of its GGUF files, download that file and give it."
        )
    if re.fullmatch(r"[\w.-]+:[\w.-]+", text):
        return "Names with a colon are Ollama's: look for the model on the hub, as owner/name."
    publisher = next((who for start, who in _OWNERS.items() if text.lower().startswith(start)), "")
    return f"Perhaps {publisher}/{text}?" if publisher and not slash else ""
