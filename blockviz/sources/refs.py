"""What a person may write to name a model or data set, and what is refused with the reason."""

from __future__ import annotations

import re
from pathlib import Path

from blockviz.errors import BadSource
from blockviz.sources.pasted import (
    canonical,
    model_folder,
    paths,
    suggestion,
    unquoted,
    without_address,
)
from blockviz.sources.records import ModelRef

MAX_ID_CHARS = 96
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,95}")
_USE = "Use demo, a hub id of the form owner/name, a folder, or a .gguf file."
_USE_GGUF = "Check the folder. A .gguf file of the hub is downloaded first: then give its path."


def parse_model_ref(text: str) -> ModelRef:
    """The ModelRef of `demo`, `owner/name[@revision]`, a folder or `FILE.gguf`; else BadSource.

    What has one meaning is understood: an address of the hub, quotes, `~`, a file of a model's
    folder, a folder of the hub's cache. A folder that exists wins over a hub id of the same
    spelling. No URL is ever fetched.
    """
    given = unquoted(text) if isinstance(text, str) else ""
    asked = f"The model {shown(given)} was asked for."
    if given.lower() == "demo":
        return ModelRef("demo", "demo")
    text = without_address(given)
    if not text or "\0" in text or "://" in text:
        raise BadSource(asked, "That is not a model id.", _USE)
    for path in paths(text):
        if _exists(path, text):
            return _local(path, text, asked)
    text = canonical(text)
    hub_id, revision = split_revision(text)
    hint = suggestion(text)
    if hint:
        raise BadSource(asked, "That is not a model id: an id is owner/name.", hint)
    is_gguf = text.lower().endswith(".gguf")
    if is_gguf or text.startswith("~") or is_path_like(text):
        found = "It reads as a path, and no file or folder of that name is there."
        raise BadSource(asked, found, _USE_GGUF if is_gguf else _USE)
    check_hub_id(hub_id, kind="model", use=_USE)
    return ModelRef("hub", text, hub_id=hub_id, revision=revision)


def _exists(path: Path, text: str) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise BadSource(
            f"The model {shown(text)} was asked for.",
            f"That path cannot be read ({error.strerror}).",
            _USE,
        ) from error


def _local(path: Path, text: str, asked: str) -> ModelRef:
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        return ModelRef("gguf", text, path=path.resolve())
    # Not resolved before: files of the hub's cache are links to where they have no names.
    folder, hub_id = model_folder(path.absolute())
    if not folder.is_dir():
        raise BadSource(
            asked,
            "That is a file, but not a .gguf file.",
            "Give the folder that holds config.json and the .safetensors files, or a .gguf file.",
        )
    inner = [] if (folder / "config.json").exists() else sorted(folder.glob("*/config.json"))
    if inner:
        found = f"It has no config.json; {len(inner)} of its folders have one."
        raise BadSource(asked, found, f"Give {inner[0].parent}.")
    return ModelRef("folder", text, hub_id=hub_id, path=folder.resolve())


def is_path_like(text: str) -> bool:
    """Whether `text` can only be meant as a path of this machine."""
    return (
        text.startswith(("/", ".", "\\"))
        or text.endswith("/")
        or "\\" in text
        or text.partition("@")[0].count("/") > 1
        or bool(re.match(r"[A-Za-z]:", text))
    )


def split_revision(text: str) -> tuple[str, str]:
    """(`owner/name`, revision) of `owner/name@revision`; revision `main` where none is given."""
    hub_id, at, revision = text.partition("@")
    if not at:
        return hub_id, "main"
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise BadSource(
            f"The revision {shown(revision)} of {shown(hub_id)} was asked for.",
            "That is not the name of a branch, a tag or a commit.",
            "Write owner/name@revision, or leave @revision out.",
        )
    return hub_id, revision


def check_hub_id(hub_id: str, *, kind: str, use: str) -> None:
    """Nothing, if `hub_id` has the form owner/name of the hub; else BadSource ending in `use`."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(hub_id)
        is_id = hub_id.count("/") == 1 and len(hub_id) <= MAX_ID_CHARS
    except HFValidationError:
        is_id = False
    if not is_id:
        raise BadSource(
            f"The {kind} {shown(hub_id)} was asked for.",
            f"That is not a {kind} id: an id is owner/name, at most {MAX_ID_CHARS} characters.",
            use,
        )


def shown(text: str) -> str:
    """`text` in quotes for a message, cut to 96 characters."""
    return repr(text if len(text) <= MAX_ID_CHARS else text[: MAX_ID_CHARS - 3] + "...")
