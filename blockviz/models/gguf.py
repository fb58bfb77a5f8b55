"""A GGUF file turned, once, into a float32 folder that transformers opens like any other.

transformers can only save a GGUF model that it has dequantised. The work is done in a child
process: it takes 20 s and twice the memory of the model, which must neither freeze a page nor stay
with the process that measures. The child works offline: nothing of it may come from a hub.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from blockviz.errors import UnsupportedModel
from blockviz.models.gguf_convert import MISSING
from blockviz.models.gguf_header import GgufHeader, read_header
from blockviz.sources import child
from blockviz.sources.cache import file_sha256, make_folder
from blockviz.sources.turns import Turn
from blockviz.types import Done, Events, Progress

logger = logging.getLogger(__name__)

_STAGE = "Converting the model"
_STEPS = ("Starting", "Reading the tokenizer", "Unpacking the weights", "Writing the model")
_COMPLETE = "blockviz_complete"


def gguf_quantisation(path: Path) -> str:
    """How the file's weights were stored, `Q4_1, dequantised`; empty for float weights."""
    from gguf.constants import LlamaFileType

    try:
        name = LlamaFileType(read_header(path).entries.get("general.file_type", 1024)).name
    except ValueError:
        return "GGUF, dequantised"
    if name == "GUESSED":
        return "GGUF, dequantised"
    name = name.removeprefix("MOSTLY_").removeprefix("ALL_")
    return "" if name in ("F32", "F16", "BF16") else f"{name}, dequantised"


def convert(gguf: Path, folder: Path) -> Events:
    """Done(folder) with safetensors (float32), tokenizer, chat template, config, generation config.

    At once when the folder is there from before and every file in it is as it was written. It
    appears whole or not at all: the files are written beside it and renamed. Of two processes that
    ask at once, one converts and one waits.
    """
    if not _is_complete(folder):
        header = read_header(gguf)
        _refuse_parts(gguf, header)
        turn = Turn(folder)
        try:
            scratch = yield from turn.wait(_STAGE)
            if not _is_complete(folder):
                yield from _convert(gguf, folder, scratch, header)
        finally:
            turn.release()
    yield Done(folder)


def _is_complete(folder: Path) -> bool:
    """Whether the folder holds the files that the mark names, and they have the sums it names."""
    try:
        sums = json.loads((folder / _COMPLETE).read_bytes())
        return bool(sums) and sums == _sums(folder)
    except (OSError, ValueError):
        return False


def _sums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.iterdir() if path.name != _COMPLETE)
    return {path.name: file_sha256(path) for path in files}


def _refuse_parts(gguf: Path, header: GgufHeader) -> None:
    """Nothing, if the file may be a whole language model; UnsupportedModel where it says not."""
    entries = header.entries
    n_parts, kind = entries.get("split.count", 0), entries.get("general.type", "model")
    if isinstance(n_parts, int) and n_parts > 1:
        found = f"It is part {entries.get('split.no', 0) + 1} of {n_parts}."
        todo = "Join the parts first: llama-gguf-split --merge FIRST_PART OUT.gguf."
    elif kind == "mmproj" or entries.get("general.architecture") == "clip":
        found = "It reads pictures or sound for a language model, and is none itself."
        todo = "Give the .gguf file of the language model that lies beside it."
    elif kind != "model":
        found = f"It is of the kind {str(kind)[:40]!r}, not a model."
        todo = "Give the .gguf file of the model itself."
    elif header.n_tensors and _n_layers(entries) > header.n_tensors:
        found = f"Its header asks for {_n_layers(entries)} layers; it holds {header.n_tensors} "
        found += "tensors."
        todo = "Fetch the file again, or take the same model in the safetensors format."
    elif not header.n_tensors:
        found = "It holds a vocabulary and no tensors."
        todo = "Give the .gguf file of the model itself."
    else:
        return
    raise UnsupportedModel(f"The file {gguf.name} was to be converted.", found, todo)


def _n_layers(entries: Mapping[str, Any]) -> int:
    found = entries.get(f"{entries.get('general.architecture')}.block_count", 0)
    return found if isinstance(found, int) else 0


def _convert(
    gguf: Path, folder: Path, scratch: Path, header: GgufHeader
) -> Generator[Progress, None, None]:
    partial, log = scratch / "model", scratch / "convert.log"
    # By itself: transformers would read the configs that lie beside it.
    alone = make_folder(scratch / "source") / gguf.name
    alone.symlink_to(gguf.resolve())
    command = [sys.executable, "-m", "blockviz.models.gguf_convert", str(alone), str(partial)]
    with child.started(command, log=log, environ=_environ()) as process:
        for _ in child.ticks(process):
            done = _stage_reached(log)
            yield Progress(_STAGE, done, len(_STEPS), _STEPS[done])
    if process.returncode != 0:
        _refuse(gguf, str(header.entries.get("general.architecture", "unknown")), log)
    (partial / _COMPLETE).write_text(json.dumps(_sums(partial)), "utf-8")
    if folder.exists():
        shutil.rmtree(folder)  # not complete, or damaged since, or it would have been used
    partial.rename(folder)


def _environ() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join([here, inherited]) if inherited else here,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _stage_reached(log: Path) -> int:
    """The number of `stage` lines that the child has written."""
    count = log.read_text("utf-8", errors="replace").count("\nblockviz stage")
    return min(count, len(_STEPS) - 1)


def _refuse(gguf: Path, architecture: str, log: Path) -> None:
    said = log.read_text("utf-8", errors="replace").strip()
    logger.debug("the conversion said: %s", said)
    missing = [line for line in said.splitlines() if line.startswith(MISSING)]
    if missing:
        raise UnsupportedModel(
            f"The file {gguf.name} was to be converted.",
            f"{len(missing)} tensors of the model are missing, such as "
            f"{missing[0].removeprefix(MISSING)[:96]}.",
            "Fetch the whole file: with these gone it would run on random numbers.",
        )
    reason = "is not supported" if "is not supported" in said else "failed"
    if reason == "failed":
        found = f"Its header is in order ({architecture}), but its content could not be read."
        todo = "Fetch the file again, or take the same model in the safetensors format."
    else:
        found = f"Files of the architecture {architecture} cannot be unpacked."
        todo = "Take the same model in the safetensors format."
    raise UnsupportedModel(f"The file {gguf.name} was to be converted.", found, todo)
