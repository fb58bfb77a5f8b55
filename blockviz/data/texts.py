"""Texts by name: our own sets, named public ones, a file, or any data set of the hub."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from blockviz.data import bundled, files, hub
from blockviz.data.records import ROLES, Role
from blockviz.errors import BadInput, BadSource
from blockviz.sources.pasted import text_name
from blockviz.sources.refs import check_hub_id, is_path_like, shown
from blockviz.types import TEXT_ENDINGS, Done, Events, Progress, passing

NAMED_SETS = ("demo", "own", "alpaca", "wikitext2", "c4")
_USE = f"Use {', '.join(NAMED_SETS)}, a file ({', '.join(TEXT_ENDINGS)}), or owner/name."


def load_texts(
    name: str,
    role: Role,
    *,
    text_column: str = "text",
    seed: int = 42,
    n_texts: int | None = None,
) -> Events:
    """Done(Texts). `role` chooses a part or split that no other role gets, where there are several.

    `n_texts`: how many texts to draw from alpaca (its recipe's number of samples), or to read at
    most from c4 and other hub sets; None takes the set's own default. `seed` matters to alpaca.
    """
    name = text_name(name)
    if role not in ROLES:
        raise BadInput(f"The role {role!r} was asked for.", "No such role.", f"Use {ROLES}.")
    if n_texts is not None and n_texts < 1:
        raise BadInput(f"{n_texts} texts were asked for.", "That is none.", "Ask for 1 or more.")
    yield Progress("Reading the text", 0, 0, name)
    if name == "demo":
        texts = yield from passing(bundled.demo(role))
    elif name == "own":
        texts = bundled.own(role)
    elif name in hub.NAMED:
        texts = yield from passing(hub.named(name, role, seed=seed, n_texts=n_texts))
    elif files.is_file_name(name) or os.path.exists(name):
        texts = files.read(Path(name), text_column=text_column)
    else:
        _check_name(name)
        wanted = hub.HubText(name, column=text_column)
        texts = yield from passing(hub.stream(wanted, role, n_texts=n_texts))
    yield Progress("Reading the text", 0, 0, f"{texts.dataset}: {texts.split}")
    yield Done(texts)


def public_name(text: str) -> str:
    """A text as others may read of it: of a file its name, not the folders of this machine."""
    text = text_name(text)
    return Path(text).name if files.is_file_name(text) or os.path.exists(text) else text


def _check_name(name: str) -> None:
    asked = f"The text {shown(name)} was asked for."
    if "://" in name or name.startswith("~"):
        raise BadSource(asked, "That is not the name of a data set.", _USE)
    if is_path_like(name):
        raise BadSource(asked, "It reads as a path, and no file of that name is there.", _USE)
    if "/" not in name:
        near = get_close_matches(name, NAMED_SETS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BadSource(asked, f"There is no data set or file of that name.{hint}", _USE)
    check_hub_id(name.partition(":")[0], kind="data set", use=_USE)
