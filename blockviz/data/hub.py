"""Texts from the hub's data sets, streamed, without a token: the named public ones and any other.

No data set's own code is run: the `datasets` library reads files in known formats only.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from blockviz.data.cells import check_text, counted, refuse_column
from blockviz.data.records import Role, Texts
from blockviz.data.stored import Stored
from blockviz.errors import BadCalibration, BadInput, BadSource
from blockviz.sources.hub import TIMEOUT_SECONDS, endpoint
from blockviz.types import Done, Events, Progress, passing

logger = logging.getLogger(__name__)

NAMED = ("alpaca", "wikitext2", "c4")
MAX_TEXTS = 4096
MAX_CHARS = 8_000_000
_EVERY = 64
_ALPACA_TEXTS = 256
_SPLITS: Mapping[Role, tuple[str, ...]] = {
    "calibration": ("train",),
    "selection": ("validation", "dev", "test", "train"),
    "evaluation": ("test", "validation", "dev", "train"),
}
_C4_FILES = {
    "train": "en/c4-train.00000-of-01024.json.gz",
    "validation": "en/c4-validation.00001-of-00008.json.gz",
    "test": "en/c4-validation.00000-of-00008.json.gz",
}


@dataclass(frozen=True)
class HubText:
    """A data set of the hub, `owner/name` or `owner/name:config`, and the column with the text."""

    name: str
    column: str = "text"
    data_files: Mapping[str, str] | None = None

    @property
    def hub_id(self) -> str:
        return self.name.partition(":")[0]

    @property
    def config(self) -> str | None:
        return self.name.partition(":")[2] or None


def named(name: str, role: Role, *, seed: int, n_texts: int | None) -> Events:
    """Done(Texts) of alpaca, wikitext2 or c4, as the papers take them.

    wikitext2: all rows of the split, empty ones too; joined with a blank line they are the usual
    corpus. c4: the first texts of one file of its English part.
    """
    if name == "alpaca":
        yield from _alpaca(role, seed=seed, n_texts=n_texts or _ALPACA_TEXTS)
    elif name == "wikitext2":
        wanted = HubText("Salesforce/wikitext:wikitext-2-raw-v1")
        yield from stream(wanted, role, n_texts=n_texts, max_texts=None)
    else:
        yield from stream(HubText("allenai/c4", data_files=_C4_FILES), role, n_texts=n_texts)


def stream(
    wanted: HubText, role: Role, *, n_texts: int | None = None, max_texts: int | None = MAX_TEXTS
) -> Events:
    """Done(Texts): the first rows of the split for `role`, at most `n_texts` and 8M characters.

    Calibration reads `train`, evaluation `test` or what comes nearest; a set with one split gives
    it to every role, and the check for shared text is what warns then. Rows with null in the column
    are left out and counted; an empty row is a blank line of its corpus, and stays.
    """
    limit = n_texts or max_texts
    stored = Stored((wanted.name, wanted.column, role, limit))
    texts = stored.read()
    if texts is None:
        with _three_parts(wanted):
            splits = _open(wanted)
            split = next((name for name in _SPLITS[role] if name in splits), next(iter(splits)))
            rows, n_without = yield from _rows(wanted, splits[split], limit)
        texts = Texts(rows, wanted.name, counted(split, n_without))
        stored.write(texts)
    yield Done(texts)


def _open(wanted: HubText) -> Mapping[str, Any]:
    """The splits, to be read row by row.

    The short look-up comes first because `datasets` retries for half a minute before it says that
    there is no network.
    """
    from datasets import load_dataset
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint(), token=False)
    info = api.dataset_info(wanted.hub_id, timeout=TIMEOUT_SECONDS)
    files = dict(wanted.data_files) if wanted.data_files else None
    return load_dataset(
        wanted.hub_id,
        wanted.config,
        data_files=files,
        revision=info.sha,
        streaming=True,
        token=False,
    )


def _rows(
    wanted: HubText, rows: Any, limit: int | None
) -> Generator[Progress, None, tuple[tuple[str, ...], int]]:
    """(texts, how many rows had none)."""
    texts: list[str] = []
    n_chars, n_without = 0, 0
    for number, row in enumerate(rows, start=1):
        if wanted.column not in row:
            refuse_column(wanted.name, wanted.column, row, where=f"Row {number}")
        text = row[wanted.column]
        if text is None:
            n_without += 1
            continue
        texts.append(check_text(text, wanted.column, wanted.name, where=f"Row {number}"))
        n_chars += len(text)
        if len(texts) % _EVERY == 0:
            yield Progress(f"Reading {wanted.name}", len(texts), limit or 0)
        if limit is not None and (len(texts) >= limit or n_chars >= MAX_CHARS):
            break
    if not n_chars:
        raise BadCalibration(
            f"The data set {wanted.name} was asked for.",
            "It holds no text.",
            "Use another data set or a text file.",
        )
    return tuple(texts), n_without


def _alpaca(role: Role, *, seed: int, n_texts: int) -> Events:
    """BlockPruner's draw: a tenth of the set, then `n_texts` of it without replacement.

    Its code splits the 52,002 rows 80/20, halves the fifth, and takes the first half as its pool;
    we give the second half to evaluation and the rest to selection, so that no text is shared.
    """
    wanted = HubText("tatsu-lab/alpaca")
    rows = (yield from passing(stream(wanted, "calibration", max_texts=None))).texts
    pool = _alpaca_pools(len(rows), seed)[role]
    if n_texts > len(pool):
        raise BadInput(
            f"{n_texts} texts of alpaca were asked for.",
            f"This part of it has {len(pool)}.",
            f"Ask for {len(pool)} or fewer.",
        )
    chosen = random.Random(seed).sample(range(len(pool)), n_texts)
    yield Done(Texts(tuple(rows[pool[i]] for i in chosen), wanted.name, f"train, {role} part"))


def _alpaca_pools(n_rows: int, seed: int) -> dict[Role, Sequence[int]]:
    from datasets import Dataset

    whole = Dataset.from_dict({"row": list(range(n_rows))})
    first = whole.train_test_split(test_size=0.2, seed=seed)
    halves = first["test"].train_test_split(test_size=0.5, seed=seed)
    return {
        "calibration": halves["train"]["row"][:],
        "evaluation": halves["test"]["row"][:],
        "selection": first["train"]["row"][:],
    }


@contextmanager
def _three_parts(wanted: HubText) -> Iterator[None]:
    """Turns what the libraries raise into a BadSource that a person can act on."""
    import httpx2
    from datasets import exceptions
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        yield
    except (exceptions.DatasetNotFoundError, RepositoryNotFoundError) as error:
        _refuse(
            wanted,
            "The hub has no data set of that name, or it is private or gated.",
            "Check the spelling of owner/name, or give a text file.",
            error,
        )
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        _refuse(
            wanted,
            "It needs a script of its own, and blockviz does not run code from data sets.",
            "Use a data set stored as parquet, JSON or text, or give a text file.",
            error,
        )
    except (ValueError, exceptions.DatasetsError) as error:
        logger.debug("datasets said: %s", error)
        configs = str(error).partition("available configs: ")[2].partition("\n")[0]
        if configs:
            found, todo = f"It has parts, one must be chosen: {configs[:200]}.", "owner/name:part"
            _refuse(wanted, found, f"Write {todo}.", error)
        _refuse(wanted, "Its files cannot be read as texts.", "Give a text file instead.", error)
    except (OSError, httpx2.HTTPError) as error:
        _refuse(
            wanted,
            "The hub cannot be reached.",
            "Check the network and try again, or use demo, own or a text file.",
            error,
        )


def _refuse(wanted: HubText, found: str, todo: str, error: Exception) -> NoReturn:
    raise BadSource(f"The data set {wanted.name} was asked for.", found, todo) from error
