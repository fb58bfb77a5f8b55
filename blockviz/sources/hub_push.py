"""Files of an export into a new repository of the hub, with the token of whoever asks for it."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from blockviz.errors import BadInput, BadSource
from blockviz.sources.hub import endpoint
from blockviz.types import Done, Events, Progress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

# What is larger than 10 MB is never part of a commit, but goes up by itself.
IN_MEMORY_BYTES = 16 << 20


def push_archive(archive: Path, repo_id: str, token: str, *, is_private: bool = True) -> Events:
    """Done(the repository's address); `archive` is a ZIP whose files lie in one folder.

    The repository must be new: one that is there is never written to. Each file is uploaded by
    itself, and all of them become one commit at the end. If that does not come about, for a cancel
    or a failure, the repository that was made is deleted again. BadInput for a name that cannot be
    had, BadSource where the hub refuses or cannot be reached.
    """
    import httpx2
    from huggingface_hub import CommitOperationAdd, HfApi, errors
    from huggingface_hub.utils import disable_progress_bars

    check_repo_id(repo_id)
    disable_progress_bars()
    api = HfApi(endpoint=endpoint(), token=token)
    try:
        yield Progress("making the repository", 0, 1, repo_id)
        made = api.create_repo(repo_id, private=is_private)
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise _refused(repo_id, error) from error
    is_whole = False
    try:
        with zipfile.ZipFile(archive) as packed:
            files = [i for i in packed.infolist() if not i.is_dir()]
            additions = []
            for n, file in enumerate(files):
                path = file.filename.partition("/")[2]
                yield Progress("uploading", n, len(files), path)
                with _unpacked(packed, file, archive) as content:
                    additions.append(CommitOperationAdd(path, content))
                    # A small file goes up with the commit, a large one now.
                    api.preupload_lfs_files(repo_id, additions[-1:])
            yield Progress("uploading", len(files), len(files), "one commit of all of it")
            api.create_commit(repo_id, additions, commit_message="Pruned with blockviz")
        is_whole = True
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _refused(repo_id, error) from error
    finally:
        if not is_whole:
            _withdraw(api, repo_id, str(made))
    yield Done(str(made))


def _withdraw(api: HfApi, repo_id: str, address: str) -> None:
    import httpx2
    from huggingface_hub import errors

    try:
        api.delete_repo(repo_id, missing_ok=True)
    except (errors.HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise BadSource(
            f"The files were to be pushed to {repo_id}.",
            "That ended early, and the repository without them may have stayed behind.",
            f"Look at {address} and delete it there.",
        ) from error


def check_repo_id(repo_id: str) -> None:
    """BadInput unless it is `owner/name` as the hub writes it."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
        is_right = repo_id.count("/") == 1
    except HFValidationError:
        is_right = False
    if not is_right:
        raise BadInput(
            f"A repository {repo_id[:96]!r} was to be made.",
            "That is no name of a repository.",
            "Write owner/name: letters, digits, dots, hyphens and underscores.",
        )


@contextmanager
def _unpacked(
    packed: zipfile.ZipFile, file: zipfile.ZipInfo, archive: Path
) -> Iterator[bytes | str]:
    """What is in the file; of a large one a path beside the archive, gone at the end."""
    if file.file_size <= IN_MEMORY_BYTES:
        yield packed.read(file)
        return
    path = archive.with_name(f".{archive.stem}.pushed")
    try:
        with packed.open(file) as source, path.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _refused(repo_id: str, error: Exception) -> BadInput | BadSource:
    asked = f"The files were to be pushed to {repo_id}."
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 409:
        return BadInput(asked, "There is such a repository already.", "Choose another name.")
    if status in (401, 403):
        return BadSource(
            asked,
            "Your sign-in does not allow it.",
            "Sign in again, and name your own account or an organisation that you may write to.",
        )
    return BadSource(
        asked,
        f"The hub did not take them ({type(error).__name__}).",
        "Try again later, or download the ZIP and upload it yourself.",
    )
