"""A plan and its repair put together as one model in the chosen mode, and its files."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from blockviz.corrections.base import Repair
from blockviz.export.custom import custom_module, modelling_file
from blockviz.export.folding import fold
from blockviz.export.names import FINGERPRINT, RECIPE, SUMS
from blockviz.export.packing import Slot, packed, stock_module, stored_parameters, zeroed
from blockviz.export.parts import joined
from blockviz.models.custom import FILE
from blockviz.models.model import BlockModel
from blockviz.types import ExportMode, ModelInfo, PruningPlan

MAX_SHARD = "2GB"


@dataclass(frozen=True)
class Assembled:
    """module: on the CPU, sharing weights with the live model where it can; layers_at: the path of
    its layers; n_parameters: what it must hold by the formula, or did hold when it was put
    together where biases came in; rules: how its repair was folded; is_scaled, see Folded."""

    mode: ExportMode
    module: nn.Module
    layers_at: str
    n_layers: int
    n_parameters: int
    n_silent: int = 0
    rules: tuple[str, ...] = ()
    is_scaled: bool = False
    stock_class: type | None = None


def assembled(whole: BlockModel, repair: Repair, mode: ExportMode) -> Assembled:
    """The model to write; UnsupportedModel where the mode cannot carry the plan or its repair."""
    if mode == "custom":
        made = custom_module(whole, repair)
        n_layers = len(made.get_submodule(whole.family.layers))
        size, stock = custom_parameters(whole, repair), type(made).stock
        found = Assembled(mode, made, whole.family.layers, n_layers, size, stock_class=stock)
    else:
        folded = fold(whole, repair)
        slots = slots_of(whole, folded.removed, mode)
        made = stock_module(folded.model, whole, slots)
        n = sum(p.numel() for p in made.parameters())
        found = Assembled(
            mode,
            made,
            whole.family.layers,
            len(slots),
            n if folded.rules else stored_parameters(whole.info, slots),
            n_silent=sum(slot.of(part) is None for slot in slots for part in ("attn", "mlp")),
            rules=folded.rules,
            is_scaled=folded.is_scaled,
        )
    if whole.device.type != "cpu":
        # A copy first: moved as it is, it would take the live model's weights along.
        module = copy.deepcopy(found.module).to("cpu")
        found = Assembled(**{**found.__dict__, "module": module})
    return found


def slots_of(whole: BlockModel, removed: tuple, mode: ExportMode) -> tuple[Slot, ...]:
    """The stock layers of a mode."""
    gone = (*removed, *whole.info.absent)
    n, is_parallel = whole.info.n_layers, whole.family.is_parallel
    return packed(gone, n, is_parallel=is_parallel) if mode == "stock-compact" else zeroed(gone, n)


def custom_parameters(whole: BlockModel, repair: Repair) -> int:
    """What a custom checkpoint holds: the surviving blocks, everything else, and its maps."""
    repair = joined(whole, repair)
    revived = {part for b in repair.revived for part in b.parts}
    removed = tuple(b for b in repair.plan.removed if b not in revived)
    maps = (*repair.maps.values(), *repair.inputs.values())
    added = sum(t.numel() for m in maps for t in (*m.parameters(), *m.buffers()))
    own = (*getattr(whole, "maps", {}).values(), *getattr(whole, "inputs", {}).values())
    counted = sum(t.numel() for m in own for t in (*m.parameters(), *m.buffers()))
    return whole.info.n_parameters - counted - whole.info.parameters_of(removed) + added


def whole_layers(info: ModelInfo, plan: PruningPlan) -> tuple[int, ...] | None:
    """The layers that a plan removes if it removes nothing but whole ones; else None."""
    gone: dict[int, int] = {}
    for block in plan.removed:
        gone[block.layer] = gone.get(block.layer, 0) + 1
    both = all(n == 2 for n in gone.values()) and not info.absent
    return tuple(sorted(gone)) if gone and both else None


def write_weights(folder: Path, found: Assembled, tokenizer: Any) -> None:
    """Weights, config, generation config, tokenizer, and the modelling file of a custom export."""
    found.module.save_pretrained(folder, max_shard_size=MAX_SHARD)
    # safetensors lets nobody but the owner read them; whoever may read the config may read these.
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "config.json").stat().st_mode)
    tokenizer.save_pretrained(folder)
    if found.stock_class is not None:
        (folder / FILE).write_text(modelling_file(found.stock_class), encoding="utf-8")


def write_texts(
    folder: Path,
    texts: Mapping[str, str],
    *,
    recipe: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
) -> None:
    """Everything else, and at the end the sums of all of it."""
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, data in ((RECIPE, recipe), (FINGERPRINT, fingerprint)):
        text = json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
    lines = []
    for path in sorted(folder.iterdir()):
        with path.open("rb") as stream:
            lines.append(f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path.name}\n")
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def weight_bytes(folder: Path) -> int:
    """What the weights of a folder take on disk."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
