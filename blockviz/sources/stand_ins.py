"""Files that stand for others: Git LFS pointers, web pages, empty files; each with its remedy."""

from __future__ import annotations

from pathlib import Path

from blockviz.errors import BadSource

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


def refuse_stand_in(path: Path, text: str) -> None:
    """Nothing, if the file is what its name says as far as its first bytes show; else BadSource."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(_POINTER))
    except OSError as error:
        found = f"{path.name} cannot be read ({error.strerror or type(error).__name__})."
        raise _refusal(text, found, "Give yourself the right to read it.") from error
    if start.startswith(_POINTER):
        found = f"{path.name} is a Git LFS pointer: the file that it stands for is not there."
        raise _refusal(text, found, "Run git lfs install and git lfs pull in that folder.")
    if start.lower().startswith(_PAGES):
        found = f"{path.name} is a web page, such as a server sends in place of a file."
        raise _refusal(text, found, "Download the file itself, with hf download or from its page.")
    if not start and path.suffix in (".json", ".safetensors"):
        raise _refusal(text, f"{path.name} is empty.", "Download it again.")


def _refusal(text: str, found: str, todo: str) -> BadSource:
    return BadSource(f"The model {text} was asked for.", found, todo)
