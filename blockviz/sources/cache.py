"""The one folder that blockviz writes to, and the checks before it is written to."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import MutableMapping
from pathlib import Path

from blockviz.errors import BadSource


def cache_dir() -> Path:
    """$BLOCKVIZ_CACHE, else $XDG_CACHE_HOME/blockviz, else ~/.cache/blockviz. Not created."""
    own = os.environ.get("BLOCKVIZ_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "blockviz"


def hub_cache() -> Path:
    """The folder of hub snapshots, by the hub library's own variables, read at each call."""
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser().absolute()
    if os.environ.get("HF_HOME"):
        return Path(os.environ["HF_HOME"]).expanduser().absolute() / "hub"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").absolute() / "huggingface" / "hub"


def keep_inside_cache(environ: MutableMapping[str, str]) -> None:
    """Set what other libraries write, send and print, as far as the user has not set it.

    Call it before those libraries are imported: they read these variables once. On a Space the hub
    cache stays where `preload_from_hub` has filled it. No library may send a token found on this
    machine on behalf of a visitor, nor draw its own progress bars between ours.
    """
    if not environ.get("SPACE_ID"):
        environ.setdefault("HF_HOME", str(cache_dir() / "huggingface"))
    environ.setdefault("GRADIO_TEMP_DIR", str(cache_dir() / "gradio"))
    environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def make_folder(path: Path) -> Path:
    """`path`, existing and writable; BadSource that names the variable to set otherwise."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadSource(
            "Files were to be kept in the cache folder.",
            f"It cannot be written ({error.strerror or type(error).__name__}).",
            "Set BLOCKVIZ_CACHE to a folder that you may write to.",
        ) from error
    return path


def check_free_disk(folder: Path, n_bytes: int, what: str) -> None:
    """Nothing, if `n_bytes` and a tenth more fit on the disk of `folder`; else BadSource."""
    free = shutil.disk_usage(make_folder(folder)).free
    if n_bytes * 1.1 > free:
        raise BadSource(
            f"{what} was to be fetched.",
            f"It needs {gib(n_bytes)}; {gib(free)} are free in the cache folder.",
            "Free some space, set BLOCKVIZ_CACHE to a larger disk, or take a smaller model.",
        )


def gib(n_bytes: float) -> str:
    """`n_bytes` for people, in GiB with one digit, or MiB below a tenth of that."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 / 10 else f"{n_bytes / 2**20:.1f} MiB"


def file_sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
