"""A tokenizer and a chat template tried in a child process with limits of time and memory.

Both can be programs: a normalizer may double its text as often as its file says, a template may
loop inside loops. Neither can be stopped once it runs in this process. What has nothing of the kind
is not tried. The child: python -m blockviz.models.trial FOLDER SECONDS BYTES.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from blockviz.errors import UnsupportedModel
from blockviz.json_files import NotJson, read_json
from blockviz.sources import child
from blockviz.types import Progress

logger = logging.getLogger(__name__)

SECONDS, MEMORY_BYTES, MAX_CHARS = 20, 4 << 30, 1 << 20
_TOO_MUCH = 3
_MAX_JSON = 64 << 20
_SAMPLE = "".join(map(chr, range(32, 127))) + "\n\tÄé ß 模型 😀" + " The quick brown fox." * 40
_MESSAGES = [{"role": role, "content": "Hello."} for role in ("user", "assistant") * 4]


def tried(folder: Path, name: str) -> Iterator[Progress]:
    """Progress until both were tried on a short text; UnsupportedModel where one does not end."""
    if not (_templates(folder) or _can_grow(folder)):
        return
    with tempfile.TemporaryDirectory(prefix="blockviz-") as scratch:
        log = Path(scratch) / "trial.log"
        command = [sys.executable, "-m", "blockviz.models.trial", str(folder)]
        command += [str(SECONDS), str(MEMORY_BYTES)]
        environ = {"PYTHONPATH": os.pathsep.join([_HERE, os.environ.get("PYTHONPATH", "")])}
        with child.started(command, log=log, environ=environ) as process:
            for n_polls, _ in enumerate(child.ticks(process)):
                yield Progress("loading weights", 0, 2, f"{name}: trying its tokenizer")
                if n_polls * child.POLL_SECONDS > 3 * SECONDS:
                    process.kill()
        said = log.read_text("utf-8", errors="replace")
    if process.returncode not in (0, 1):  # by a limit; an exception, as of a damaged file, ends
        logger.debug("the trial said: %s", said)
        what = "chat template" if "chat template" in said else "tokenizer"
        raise UnsupportedModel(
            f"The {what} of {name} was tried on a short text.",
            f"It did not end within {SECONDS} s, {MEMORY_BYTES >> 30} GiB of memory and "
            f"{MAX_CHARS:,} characters.",
            f"Take a copy of the model with the {what} that its publisher gives.",
        )


_HERE = str(Path(__file__).resolve().parents[2])


def _json(path: Path) -> Any:
    """The content of a JSON file; None where it has none: the reason is said where it is loaded."""
    try:
        return read_json(path, most_bytes=_MAX_JSON)
    except NotJson:
        return None


def _templates(folder: Path) -> list[str]:
    config = _json(folder / "tokenizer_config.json")
    named = config.get("chat_template") if isinstance(config, dict) else None
    items = named if isinstance(named, list) else [named]
    found = [item.get("template") if isinstance(item, dict) else item for item in items]
    files = [folder / "chat_template.jinja", *(folder / "additional_chat_templates").glob("*")]
    found += [path.read_text("utf-8", errors="replace") for path in files if path.is_file()]
    return [text for text in found if isinstance(text, str) and text]


def _can_grow(folder: Path) -> bool:
    """Whether the tokenizer rewrites a text before it is cut, or cuts it by patterns of its own."""
    path = folder / "tokenizer.json"
    if path.is_file() and path.stat().st_size > _MAX_JSON:
        return True
    settings = _json(path)
    if not isinstance(settings, dict):
        return False
    rules = json.dumps([settings.get("normalizer"), settings.get("pre_tokenizer")])
    return any(f'"{name}"' in rules for name in ("Replace", "Prepend", "Split", "Precompiled"))


def _try(folder: Path) -> None:
    path = folder / "tokenizer.json"
    if path.is_file():
        _try_one("tokenizer", lambda: _encode(path))
    for text in _templates(folder):
        _try_one("chat template", lambda text=text: _render(text))


def _try_one(what: str, run: Callable[[], None]) -> None:
    """A rule that fails on the sample ends, and is left to whoever loads it."""
    _say(what)
    try:
        run()
    except MemoryError:
        raise SystemExit(_TOO_MUCH) from None
    except Exception:
        logger.exception("it ends")


def _encode(path: Path) -> None:
    from tokenizers import Tokenizer

    Tokenizer.from_file(str(path)).encode(_SAMPLE)


def _render(text: str) -> None:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    n_chars = 0
    template = sandbox.from_string(text)
    for piece in template.generate(messages=_MESSAGES, add_generation_prompt=True):
        n_chars += len(piece)
        if n_chars > MAX_CHARS:
            raise SystemExit(_TOO_MUCH)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _limit(seconds: int, n_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has none: the parent's clock remains
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (n_bytes, n_bytes))


if __name__ == "__main__":
    _limit(int(sys.argv[2]), int(sys.argv[3]))
    _try(Path(sys.argv[1]))
