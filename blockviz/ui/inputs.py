"""Raw values from a page, checked one by one: anybody can send any JSON to any handler."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blockviz.errors import BadInput, BadPlan, OverLimit
from blockviz.json_files import NotJson, read_json
from blockviz.types import BlockId, ModelInfo, PruningPlan

MAX_ID_CHARS = 200
MOST_JOBS = 12
MAX_JSON_BYTES = 16 << 20


def removed_blocks(raw: Any, info: ModelInfo) -> tuple[str, ...]:
    """Block ids in order of removal, all of `info`, each once, at least one block kept."""
    if not isinstance(raw, (list, tuple)):
        raise BadPlan(
            "A list of blocks to remove was sent.",
            f"It is {_kind(raw)}, not a list.",
            "Send block ids such as 18.attn.",
        )
    if len(raw) > len(info.blocks):
        raise BadPlan(
            f"{len(raw)} blocks were to be removed.",
            f"{info.name} has {len(info.blocks)}.",
            "Name each block once, and keep at least one.",
        )
    blocks = tuple(BlockId.parse(item) for item in raw)
    return tuple(str(b) for b in PruningPlan(removed=blocks).check(info).removed)


def block(raw: Any, info: ModelInfo) -> BlockId:
    """One attention or MLP block of `info`."""
    found = BlockId.parse(raw)
    if found.layer >= info.n_layers or found.part == "layer":
        raise BadPlan(
            f"The block {found} was picked.",
            f"{info.name} has attention and MLP blocks in layers 0 to {info.n_layers - 1}.",
            "Pick one of those, such as 0.attn.",
        )
    return found


def whole(raw: Any, name: str, *, low: int, high: int) -> int:
    """An integer within [low, high]."""
    is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
    if not is_number or not math.isfinite(raw) or raw != int(raw):
        raise BadInput(
            _set_to(name, raw),
            "That is not a whole number.",
            f"Choose one from {low} to {high}.",
        )
    if not low <= raw <= high:
        raise OverLimit(
            f"{name} was set to {raw:g}.",
            f"It must lie between {low} and {high} here.",
            f"Choose a number from {low} to {high}.",
        )
    return int(raw)


def real(raw: Any, name: str, *, low: float, high: float) -> float:
    """A number within [low, high]."""
    is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
    if not is_number or not low <= raw <= high:
        raise OverLimit(
            _set_to(name, raw),
            f"That is not a number between {low:g} and {high:g}.",
            "Choose one that is.",
        )
    return float(raw)


def choice(raw: Any, name: str, allowed: Iterable[str]) -> str:
    """One of `allowed`."""
    names = tuple(allowed)
    if not isinstance(raw, str) or raw not in names:
        raise BadInput(
            f"{name} was set to {str(raw)[:40]!r}.",
            "There is no such choice.",
            f"Choose from: {', '.join(names)}.",
        )
    return raw


def choices(raw: Any, name: str, allowed: Iterable[str]) -> tuple[str, ...]:
    """At least one of `allowed`, each once."""
    names = tuple(allowed)
    if not isinstance(raw, (list, tuple)) or not raw or len(raw) > len(names):
        raise BadInput(
            f"{name} were to be chosen.",
            f"What came is {_kind(raw)}.",
            f"Choose one or more of: {', '.join(names)}.",
        )
    return tuple(dict.fromkeys(choice(item, name, names) for item in raw))


def text(raw: Any, name: str, *, max_chars: int | None) -> str:
    """A string of at most `max_chars` characters."""
    if not isinstance(raw, str):
        raise BadInput(f"{name} was sent.", f"It is {_kind(raw)}.", "Send plain text.")
    if max_chars is not None and len(raw) > max_chars:
        raise OverLimit(
            f"{name} has {len(raw)} characters.",
            f"At most {max_chars} are taken here.",
            "Shorten it, or run blockviz on your own machine, which has no such limit.",
        )
    return raw


def model_id(raw: Any, revision: Any) -> str:
    """`owner/name@revision` as the session takes it; what it may name is the session's to say."""
    name = text(raw, "The model id", max_chars=MAX_ID_CHARS).strip()
    rev = text(revision or "", "The revision", max_chars=MAX_ID_CHARS).strip()
    if not name:
        raise BadInput(
            "A model was to be looked at.",
            "The model box is empty.",
            "Write demo, owner/name, a folder or a .gguf file.",
        )
    return f"{name}@{rev}" if rev else name


def json_file(raw: Any, name: str) -> tuple[Any, str]:
    """(parsed JSON, the file's name without ending) of an uploaded file."""
    path = Path(raw) if isinstance(raw, str) and raw else None
    asked = f"{name} was to be read."
    if path is None or not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
        limit = f"At most {MAX_JSON_BYTES >> 20} MB are taken."
        raise BadInput(asked, f"There is none, or it is too large. {limit}", "Choose another file.")
    try:
        return read_json(path, most_bytes=MAX_JSON_BYTES), path.stem[:60]
    except NotJson as error:
        raise BadInput(asked, error.found, "Give a file that blockviz has written.") from error


def job_ids(raw: Any) -> tuple[str, ...]:
    """The job ids a browser kept, the newest last: those that have the shape of one."""
    kept = raw.get("jobs") if isinstance(raw, Mapping) else None
    found = kept[-MOST_JOBS:] if isinstance(kept, list) else []
    return tuple(one for one in found if isinstance(one, str) and 0 < len(one) <= 64)


def page_id(raw: Any) -> str:
    """What a browser tab calls its page, the same after a reload; `""` where it says nothing."""
    found = raw.get("page") if isinstance(raw, Mapping) else None
    return found if isinstance(found, str) and 16 <= len(found) <= 64 else ""


def unanswered(raw: Any) -> Any:
    """The plan that a page showed and no answer came to before it was loaded again; unchecked."""
    return raw.get("unanswered") if isinstance(raw, Mapping) else None


def _set_to(name: str, raw: Any) -> str:
    return f"{name} was left empty." if raw is None else f"{name} was set to {str(raw)[:40]!r}."


def _kind(raw: Any) -> str:
    names = {"list": "a list", "tuple": "a list", "dict": "an object", "str": "text"}
    if isinstance(raw, (list, tuple)):
        return f"a list of {len(raw)}"
    return "nothing" if raw is None else names.get(type(raw).__name__, type(raw).__name__)
