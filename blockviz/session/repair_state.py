"""A fitted correction in a folder: its tensors as safetensors, and a JSON file that says of what.

Nothing in the folder is ever run: maps are built by name, from classes of ours.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from blockviz.corrections import Repair
from blockviz.corrections.base import CORRECTIONS, Correction, Writing
from blockviz.corrections.sparsifying import NoCorrection
from blockviz.errors import BadInput, BadSource, BlockvizError, OverLimit
from blockviz.json_files import NotJson, read_json
from blockviz.models.model import BlockModel
from blockviz.models.modeling_blockviz import MAPS as KINDS
from blockviz.settings import label_of, parse_method
from blockviz.sources.cache import cache_dir, gib, make_folder
from blockviz.types import BlockId, Provenance, PruningPlan
from blockviz.whole_files import write_whole

SCHEMA = "blockviz/repair_state/1"
# Before anything is fitted nobody knows how large it becomes; less than this holds none.
ROOM_BYTES = 64 * 2**20
MAX_NAME = 100
TENSORS, STATE = "repair.safetensors", "repair.json"
MAPS: dict[str, type[nn.Module]] = {c.__name__: c for c in KINDS}


def check_state(folder: Path) -> None:
    """A refusal where a state cannot be saved there, before any long work."""
    asked = f"A fitted correction was to be saved in {str(folder)[-MAX_NAME:]}."
    try:
        is_there = folder.exists()
        is_ours = (folder / STATE).exists()
        is_free = not is_there or (folder.is_dir() and (is_ours or not any(folder.iterdir())))
    except OSError as error:
        raise BadInput(
            asked,
            f"That name cannot be used ({error.strerror or type(error).__name__}).",
            "Give another folder.",
        ) from error
    place = folder if is_there else folder.resolve().parent
    if not is_free or not place.is_dir() or not os.access(place, os.W_OK):
        raise BadInput(
            asked,
            "It holds other files, its parent is missing, or it cannot be written.",
            "Give a new or empty folder inside one that exists.",
        )
    free = shutil.disk_usage(place).free
    if free < ROOM_BYTES:
        raise OverLimit(
            asked,
            f"{gib(free)} are free on that disk.",
            "Free some space, or give a folder on a larger disk.",
        )


def save_repair(folder: Path, model: BlockModel, repair: Repair, provenance: Provenance) -> None:
    """Write a repair; provenance: of what it was fitted on. The JSON file comes last."""
    check_state(folder)
    tensors, places = _taken_apart(model, repair)
    data = save(tensors)
    state = {
        "schema": SCHEMA,
        "correction": label_of(repair.correction),
        "model": _identity(model),
        "removed": [str(b) for b in repair.plan.removed],
        "provenance": provenance.to_json(),
        "n_tokens": repair.n_tokens,
        "passes": repair.passes,
        "notes": list(repair.notes),
        **places,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(state, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    # A link to a folder that is not there yet is followed too.
    folder.resolve().mkdir(exist_ok=True)
    for name, content in ((TENSORS, data), (STATE, text.encode())):
        write_whole(folder / name, content)


def keep_repair(folder: Path, model: BlockModel, repair: Repair, provenance: Provenance) -> None:
    """save_repair; where that fails, it is kept in the cache folder, and BadInput says where."""
    try:
        save_repair(folder, model, repair, provenance)
    except OSError as error:
        asked = f"A fitted correction was to be saved in {folder}."
        why = f"It could not be ({error.strerror or type(error).__name__})"
        spare = cache_dir() / "unsaved" / f"{folder.name[:MAX_NAME]}-{os.getpid()}"
        try:
            make_folder(spare.parent)
            save_repair(spare, model, repair, provenance)
        except (OSError, BlockvizError) as second:
            raise BadInput(
                asked,
                f"{why}, and the cache folder does not take it either.",
                "Free some space and fit it again.",
            ) from second
        raise BadInput(asked, f"{why}. It is in {spare}.", "Move that folder away.") from error


def load_repair(folder: Path, model: BlockModel) -> Repair:
    """The repair of a folder, without its fits; BadSource if damaged, BadInput if another model's.

    What it holds is put into a model by corrections.repaired_model.
    """
    state = _read_state(folder)
    mine, theirs = _identity(model), state.get("model")
    if theirs != mine:
        name = theirs.get("name", "") if isinstance(theirs, Mapping) else ""
        raise BadInput(
            f"The fitted correction in {folder.name} was to be put into {mine['name']}.",
            f"It was fitted on {name or 'a model without a name'}, which is another model or "
            "another revision.",
            f"Load that model, or fit the correction on {mine['name']}.",
        )
    try:
        data = (folder / TENSORS).read_bytes()
        if hashlib.sha256(data).hexdigest() != state["sha256"]:
            raise _damaged(folder)
        return _put_together(model, state, load(data))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(folder) from error


def _read_state(folder: Path) -> Mapping[str, Any]:
    try:
        state = read_json(folder / STATE)
    except NotJson as error:
        if (folder / STATE).exists():
            raise _damaged(folder) from error
        raise BadSource(
            f"A fitted correction was to be read from {folder.name}.",
            f"There is no {STATE} in it.",
            "Give the folder that correct or sparsify wrote with --state.",
        ) from error
    if not isinstance(state, dict) or state.get("schema") != SCHEMA:
        raise _damaged(folder)
    return state


def _damaged(folder: Path) -> BlockvizError:
    return BadSource(
        f"A fitted correction was to be read from {folder.name}.",
        "Its files are damaged, incomplete, or not those of one state.",
        "Write it anew with --state of correct or sparsify.",
    )


def _identity(model: BlockModel) -> dict[str, Any]:
    """What must be the same for the tensors to mean the same."""
    names = ("name", "revision", "family", "n_layers", "hidden_size", "n_parameters")
    return {name: getattr(model.info, name) for name in names}


Tensors = dict[str, torch.Tensor]


def _taken_apart(model: BlockModel, repair: Repair) -> tuple[Tensors, dict[str, Any]]:
    """The tensors by name, and for every map its class and the norm of the model it reads by."""
    tensors: Tensors = {}

    def own(module: nn.Module, place: str) -> dict[str, Any]:
        if type(module) not in MAPS.values():
            raise TypeError(f"{type(module).__name__} is no map that can be saved")
        for name, tensor in module.named_buffers(recurse=False):
            tensors[f"{place}/{name}"] = _plain(tensor)
        norm = getattr(module, "norm", None)
        return {
            "class": type(module).__name__,
            "norm": None if norm is None else _path_of(model, norm),
        }

    places: dict[str, Any] = {
        kind: {str(b): own(module, f"{kind}/{b}") for b, module in found.items()}
        for kind, found in (("maps", repair.maps), ("inputs", repair.inputs))
    }
    for block, writing in repair.writers.items():
        tensors[f"writers/{block}/weight"] = _plain(writing.weight)
        if writing.bias is not None:
            tensors[f"writers/{block}/bias"] = _plain(writing.bias)
    for block, own_weights in repair.weights.items():
        for path, tensor in own_weights.items():
            tensors[f"weights/{block}/{path}"] = _plain(tensor)
    return tensors, {
        **places,
        "writers": [str(b) for b in repair.writers],
        "weights": [str(b) for b in repair.weights],
        "revived": [str(b) for b in repair.revived],
    }


def _path_of(model: BlockModel, norm: nn.Module) -> str:
    """Where the model has the norm that a map holds a float32 copy of."""
    wanted = norm.state_dict()
    for name, module in model.module.named_modules():
        if type(module) is not type(norm) or repr(module) != repr(norm):
            continue
        own = module.state_dict()
        if all(torch.equal(_plain(own[k]).float(), _plain(t)) for k, t in wanted.items()):
            return name
    raise TypeError(f"{model.info.name} has no norm that is equal to the one of a map")


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().clone().contiguous()


def _put_together(model: BlockModel, state: Mapping[str, Any], tensors: Tensors) -> Repair:
    def modules(kind: str) -> dict[BlockId, nn.Module]:
        return {
            BlockId.parse(b): _map_of(model, entry, _under(tensors, f"{kind}/{b}/"))
            for b, entry in state[kind].items()
        }

    return Repair(
        correction=_correction(state["correction"]),
        plan=PruningPlan(tuple(BlockId.parse(b) for b in state["removed"])),
        maps=modules("maps"),
        inputs=modules("inputs"),
        writers={
            BlockId.parse(b): Writing(**_under(tensors, f"writers/{b}/")) for b in state["writers"]
        },
        weights={
            BlockId.parse(b): _under(tensors, f"weights/{b}/") for b in state.get("weights", ())
        },
        revived=tuple(BlockId.parse(b) for b in state.get("revived", ())),
        n_tokens=state["n_tokens"],
        passes=state["passes"],
        notes=tuple(state["notes"]),
    )


def _correction(label: str) -> Correction:
    """Weights may have been changed without a correction."""
    return NoCorrection() if label == NoCorrection.name else parse_method(CORRECTIONS, label)


def _map_of(model: BlockModel, entry: Mapping[str, Any], tensors: Tensors) -> nn.Module:
    make: Callable[..., nn.Module] = MAPS[entry["class"]]
    if entry["norm"] is None:
        return make(**tensors)
    norm = copy.deepcopy(model.module.get_submodule(entry["norm"])).float()
    return make(**tensors, norm=norm)


def _under(tensors: Tensors, head: str) -> Tensors:
    return {name.removeprefix(head): t for name, t in tensors.items() if name.startswith(head)}
