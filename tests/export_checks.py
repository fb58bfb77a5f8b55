"""The checks of an export without a process of their own, for tests of something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from blockviz.export import check_child


def check_here(patch: pytest.MonkeyPatch) -> None:
    """From now on the program that checks runs in this process, as it would in its own."""

    @contextmanager
    def started(arguments: Sequence[str], **_how: Any) -> Iterator[Any]:
        check_child.main([a for a in arguments[3:] if a != "--runs-own-file"])
        yield SimpleNamespace(poll=lambda: 0, returncode=0)

    patch.setattr("blockviz.session.exporting.started", started)
