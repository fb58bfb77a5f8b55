"""A GGUF file turned, once, into a float32 folder that transformers opens like any other.

transformers can only save a GGUF model that it has dequantised. The work is done in a child
process: it takes 20 s and twice the memory of the model, which must neither freeze a page nor stay
with the process that measures. The child works offline: nothing of it may come from a hub.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

from blockviz.errors import UnsupportedModel
from blockviz.models.gguf_header import GgufHeader, read_header
from blockviz.sources import child
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

    At once when the folder is there from before. It appears whole or not at all: the files are
    written beside it and renamed. Of two processes that ask at once, one converts and one waits.
    """
    if not (folder / _COMPLETE).is_file():
        header = read_header(gguf)
        turn = Turn(folder)
        try:
            scratch = yield from turn.wait(_STAGE)
            if not (folder / _COMPLETE).is_file():
                yield from _convert(gguf, folder, scratch, header)
        finally:
            turn.release()
    yield Done(folder)


def _convert(
    gguf: Path, folder: Path, scratch: Path, header: GgufHeader
) -> Generator[Progress, None, None]:
    partial, log = scratch / "model", scratch / "convert.log"
    command = [sys.executable, "-m", "blockviz.models.gguf_convert", str(gguf), str(partial)]
    with child.started(command, log=log, environ=_environ()) as process:
        for _ in child.ticks(process):
            done = _stage_reached(log)
            yield Progress(_STAGE, done, len(_STEPS), _STEPS[done])
    if process.returncode != 0:
        _refuse(gguf, str(header.entries.get("general.architecture", "unknown")), log)
    (partial / _COMPLETE).touch()
    if folder.exists():
        shutil.rmtree(folder)  # not complete, or it would have been used
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
    reason = "is not supported" if "is not supported" in said else "failed"
    if reason == "failed":
        found = f"Its header is in order ({architecture}), but its content could not be read."
        todo = "Fetch the file again, or take the same model in the safetensors format."
    else:
        found = f"Files of the architecture {architecture} cannot be unpacked."
        todo = "Take the same model in the safetensors format."
    raise UnsupportedModel(f"The file {gguf.name} was to be converted.", found, todo)
