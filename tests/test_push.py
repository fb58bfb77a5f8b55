"""Pushing an export: a new repository with all of its files, or none at all."""

from __future__ import annotations

import time
import zipfile
from contextlib import closing
from pathlib import Path

import huggingface_hub
import pytest
from fake_export import make_report
from fake_hub import FakeHub, Repo, fake_hub

from blockviz.errors import BadInput, BadSource
from blockviz.session import Engine
from blockviz.session.example import Example
from blockviz.session.export_views import ExportRequest
from blockviz.session.exports import Exported
from blockviz.sources import hub_push
from blockviz.sources.hub_push import push_archive
from blockviz.types import BlockId, ExportReport, PruningPlan, run

FILES = {
    "README.md": b"# A card",
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 40,
}


@pytest.fixture
def hub(monkeypatch):
    with fake_hub({"ada/taken": Repo({"README.md": b"mine"})}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        # The plain protocol for large files is the one that a test can answer.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield hub


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "blockviz-tiny-3of8.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in FILES.items():
            out.writestr(f"blockviz-tiny-3of8/{name}", data)
    return path


def alone(packed: Path) -> bool:
    """Whether nothing was left beside the archive."""
    return [p.name for p in packed.parent.iterdir()] == [packed.name]


@pytest.mark.parametrize("is_private", [True, False])
@pytest.mark.parametrize("in_memory", [100, 1 << 20])
def test_all_files_arrive_in_a_new_repository(hub, packed, is_private, in_memory, monkeypatch):
    monkeypatch.setattr(hub_push, "IN_MEMORY_BYTES", in_memory)
    address = run(push_archive(packed, "ada/smaller", "writes", is_private=is_private))
    assert address == f"{hub.endpoint}/ada/smaller"
    assert hub.repos["ada/smaller"].files == FILES
    assert ("ada/smaller" in hub.private) == is_private
    assert set(hub.tokens) == {"Bearer writes"} and alone(packed)


def test_a_repository_that_is_there_is_left_alone(hub: FakeHub, packed: Path):
    with pytest.raises(BadInput, match="such a repository already"):
        run(push_archive(packed, "ada/taken", "writes"))
    assert hub.repos["ada/taken"].files == {"README.md": b"mine"}


@pytest.mark.parametrize("at", ["preupload", "batch", "commit", "large"])
def test_what_fails_on_the_way_leaves_no_repository(hub: FakeHub, packed: Path, at: str):
    hub.refuses = (at,)
    with pytest.raises(BadSource, match="did not take them"):
        run(push_archive(packed, "ada/smaller", "writes"))
    assert "ada/smaller" not in hub.repos and alone(packed)


def test_a_repository_that_cannot_be_deleted_again_is_named(hub: FakeHub, packed: Path):
    hub.refuses = ("commit", "DELETE")
    with pytest.raises(BadSource, match=r"may have stayed behind. Look at .*/ada/smaller"):
        run(push_archive(packed, "ada/smaller", "writes"))
    with (
        pytest.raises(BadSource, match="may have stayed behind"),
        closing(push_archive(packed, "ada/other", "writes")) as events,
    ):
        while "ada/other" not in hub.repos:
            next(events)


def test_a_cancel_leaves_no_repository(hub: FakeHub, packed: Path):
    with closing(push_archive(packed, "ada/smaller", "writes")) as events:
        while "ada/smaller" not in hub.repos:
            next(events)
        next(events)
    assert "ada/smaller" not in hub.repos and alone(packed)


def test_a_sign_in_that_may_not_write_is_refused(hub: FakeHub, packed: Path):
    with pytest.raises(BadSource, match="does not allow it"):
        run(push_archive(packed, "ada/smaller", "reads"))
    assert "ada/smaller" not in hub.repos


@pytest.mark.parametrize("name", ["smaller", "a/b/c", "../x", "ada/--", "ada/.git", "", "a b/c"])
def test_names_that_are_none_are_refused_before_anything(hub: FakeHub, packed: Path, name: str):
    with pytest.raises(BadInput, match="no name of a repository"):
        run(push_archive(packed, name, "writes"))
    assert not hub.requests


def test_a_hub_that_is_not_there_says_so(packed: Path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BadSource, match="did not take them"):
        run(push_archive(packed, "ada/smaller", "writes"))


def test_the_engine_pushes_what_it_has_written(hub: FakeHub, packed: Path):
    engine = Engine("local")
    engine.store.put("export-mine", Exported(report(), packed, packed.stat().st_size))
    with closing(engine):
        with pytest.raises(BadInput, match="not there any more"):
            engine.start_push("another", "ada/smaller", "writes", is_private=True, owner="a")
        job = engine.start_push("export-mine", "ada/smaller", "writes", is_private=True, owner="a")
        until = time.monotonic() + 60
        while not engine.job(job).is_over and time.monotonic() < until:
            time.sleep(0.02)
        assert engine.job(job).result == {"pushed": f"{hub.endpoint}/ada/smaller"}
    assert hub.repos["ada/smaller"].files == FILES


def report() -> ExportReport:
    asked = ExportRequest(PruningPlan((BlockId(1, "attn"),)), Path())
    return make_report(Example.load().info, asked)
