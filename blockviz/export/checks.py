"""Whether the files of an export are the model that was on the screen, check by check."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from blockviz.errors import BadSource, BlockvizError
from blockviz.export.custom import modelling_file
from blockviz.export.fingerprint import distance, tolerance
from blockviz.export.names import FINGERPRINT, NEEDED, RECIPE, SUMS, WEIGHTS
from blockviz.json_files import NotJson, read_json
from blockviz.models.custom import FILE, class_of_config
from blockviz.models.reload import Reloaded, logits_of, reload, written_greedily
from blockviz.types import CheckRow

N_GREEDY = 20
# A perplexity is the same one if its mean loss is off by no more.
NLL_TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-2, "float16": 5e-3}


@dataclass(frozen=True)
class Shown:
    """The perplexity that was on the screen: windows of token ids, and the mean over windows of
    their mean loss, in nats."""

    windows: tuple[tuple[int, ...], ...]
    nll: float


def verify(
    folder: Path, *, runs_own_file: bool = False, shown: Shown | None = None
) -> Iterator[CheckRow]:
    """Every check of an export's folder, one after the other; a failed one does not end them.

    runs_own_file, see models.reload; shown: checked besides. BadSource if it is no export of ours.
    """
    recipe = _json(folder, RECIPE)
    known = recipe["export"]
    yield _checked("files", "Every file is there, weights as safetensors only",
                   lambda: _files(folder, recipe))  # fmt: skip
    yield _checked("sums", "Every file is as it was written", lambda: _sums(folder))
    loaded: list[Reloaded] = []

    def load() -> str:
        loaded.append(reload(folder, runs_own_file=runs_own_file))
        wrong = loaded[0].wrong
        if wrong:
            raise _Failed(f"{len(wrong)} tensors are missing, unexpected or misshapen: {wrong[0]}")
        return "no tensor missing, none too many"

    yield _checked("load", "transformers loads every tensor", load)
    rows: list[tuple[str, str, Callable[[Reloaded], str]]] = [
        ("layers", "As many layers as the recipe says", lambda m: _layers(m.module, known)),
        ("parameters", "As many parameters as the formula says", lambda m: _size(m.module, known)),
        ("logits", "The same logits as the model on the screen", lambda m: _logits(folder, m)),
        ("tokenizer", "The tokenizer is the same", lambda m: _tokens(m.tokenizer, recipe)),
    ]
    if shown is not None:
        rows.append(("perplexity", "The perplexity that was shown", lambda m: _loss(m, shown)))
    # Last, since it turns the weights into float32.
    rows.append(("cache", "The same text with a cache and without", lambda m: _cached(folder, m)))
    for name, title, check in rows:
        if not loaded:
            yield CheckRow(name, title, None, "The model was not loaded.")
            continue
        yield _checked(name, title, lambda check=check: check(loaded[0]))


# What a damaged model or recipe answers with when it is looked at or run.
_DAMAGES = (AttributeError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError)


class _Failed(Exception):
    """A check that says no, and why."""


def _checked(name: str, title: str, check: Callable[[], str]) -> CheckRow:
    row = CheckRow(name, title)
    try:
        return replace(row, passed=True, detail=check())
    except _Failed as failed:
        return replace(row, passed=False, detail=str(failed))
    except BlockvizError as error:
        return replace(row, passed=False, detail=error.found)
    except _DAMAGES as error:
        return replace(row, passed=False, detail=f"It cannot be run ({type(error).__name__}).")


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        data = read_json(folder / name)
    except NotJson as error:
        raise _no_export(folder, f"There is no {name} that can be read in it.") from error
    if not isinstance(data, dict) or (name == RECIPE and not isinstance(data.get("export"), dict)):
        raise _no_export(folder, f"Its {name} is not one of blockviz.")
    return data


def _no_export(folder: Path, found: str) -> BadSource:
    return BadSource(
        f"The export in {folder.name} was to be verified.",
        found,
        "Give a folder that blockviz export has written.",
    )


def _files(folder: Path, recipe: Mapping[str, Any]) -> str:
    found = {path.name for path in folder.iterdir() if path.is_file()}
    missing = sorted(set(NEEDED) - found)
    if missing:
        raise _Failed(f"{', '.join(missing)} missing")
    weights = sorted(name for name in found if Path(name).suffix in WEIGHTS)
    if not weights or any(not name.endswith(".safetensors") for name in weights):
        raise _Failed(f"weights in {', '.join(weights) or 'no file'}")
    code = sorted(name for name in found if name.endswith(".py"))
    if recipe["export"]["mode"] != "custom":
        if code:
            raise _Failed(f"{code[0]} is code, and a stock export has none")
        return f"{len(found)} files, no code"
    config = _json(folder, "config.json")
    own = modelling_file(class_of_config(config).stock)
    if code != [FILE] or (folder / FILE).read_text(encoding="utf-8") != own:
        raise _Failed(f"{FILE} is not the one that this version of blockviz writes")
    return f"{len(found)} files; {FILE} is blockviz's own"


def _sums(folder: Path) -> str:
    wanted = {}
    for line in (folder / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        wanted[name] = digest
    found = {path.name for path in folder.iterdir() if path.is_file()} - {SUMS}
    for name in sorted(set(wanted) | found):
        if name not in found or name not in wanted:
            raise _Failed(f"{name} is {'missing' if name in wanted else 'not in the list'}")
        with (folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != wanted[name]:
                raise _Failed(f"{name} was changed")
    return f"{len(wanted)} SHA-256 sums"


def _layers(module: nn.Module, known: Mapping[str, Any]) -> str:
    n = len(module.get_submodule(known["layers_at"]))
    if not n == module.config.num_hidden_layers == known["n_layers"]:
        raise _Failed(f"{n} layers, where {known['n_layers']} were written")
    return f"{n} layers"


def _size(module: nn.Module, known: Mapping[str, Any]) -> str:
    n = n_numbers(module)
    if n != known["n_parameters"]:
        raise _Failed(f"{n:,}, where {known['n_parameters']:,} were written")
    return f"{n:,}"


def n_numbers(module: nn.Module) -> int:
    """Parameters, and the numbers of maps in the stream."""
    maps = sum(t.numel() for name, t in module.named_buffers() if "blockviz_map" in name)
    return maps + sum(p.numel() for p in module.parameters())


def _logits(folder: Path, found: Reloaded) -> str:
    known = _json(folder, FINGERPRINT)
    gap, bound = distance(found.module, known), tolerance(known["dtype"])
    if not gap <= bound:
        raise _Failed(f"off by {gap:.1e} of the largest, {bound:.0e} is allowed")
    return f"off by {gap:.1e} of the largest; {known['dtype']}"


def _cached(folder: Path, found: Reloaded) -> str:
    # In float32, so that a tie of two words in a short dtype does not look like a fault.
    module = found.module.float()
    ids = _json(folder, FINGERPRINT)["ids"][:8]
    with_cache, without = (
        written_greedily(module, ids, N_GREEDY, use_cache=use_cache) for use_cache in (True, False)
    )
    if with_cache != without:
        same = next(i for i, (a, b) in enumerate(zip(with_cache, without, strict=True)) if a != b)
        raise _Failed(f"they part at token {same + 1} of {N_GREEDY}")
    return f"{N_GREEDY} tokens"


def _tokens(tokenizer: Any, recipe: Mapping[str, Any]) -> str:
    known = recipe["tokenizer"]
    if list(tokenizer(known["text"])["input_ids"]) != known["ids"]:
        raise _Failed("it splits a sentence in another way")
    return f"{len(known['ids'])} tokens of a sentence"


def _loss(found: Reloaded, shown: Shown) -> str:
    losses, n = [], 0
    for window in shown.windows:
        logits = logits_of(found.module, list(window))[:-1]
        losses.append(float(functional.cross_entropy(logits, torch.tensor(window[1:]))))
        n += len(window) - 1
    mean = math.fsum(losses) / len(losses)
    dtype = str(found.module.dtype).removeprefix("torch.")
    if not abs(mean - shown.nll) <= NLL_TOLERANCES.get(dtype, 1e-2):
        raise _Failed(f"{_exp(mean):.4f}, where {_exp(shown.nll):.4f} was shown")
    return f"{_exp(mean):.4f}, shown {_exp(shown.nll):.4f}; {n} tokens"


def _exp(nll: float) -> float:
    return math.exp(min(nll, 700.0))
