"""Setting up: which Python is taken, what is said before and while packages come, going on after an
interruption; and the table of wheels that the pins were resolved to.

Packages come from an index on this machine with a torch that asks for a package of NVIDIA.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GPU_DRIVER = Path("/proc/driver/nvidia/version")
REQUIREMENTS = "# -- to run --\ntorch==2.13.0\nsmall==1.0\n"


# -- an index of this machine --


def wheel(name: str, version: str, *needs: str) -> tuple[str, bytes]:
    """File name and content of a wheel with one module."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": "\n".join([*lines, *(f"Requires-Dist: {n}" for n in needs), ""]),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    return f"{name}-{version}-py3-none-any.whl", zipped(files)


def zipped(files: dict[str, str | bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return packed.getvalue()


def own_pip() -> tuple[str, bytes] | None:
    """The pip of this environment as a wheel, if it is new enough for .ci/setup."""
    try:
        pip = distribution("pip")
    except PackageNotFoundError:
        return None
    if [int(part) for part in pip.version.split(".")[:2]] < [25, 3]:
        return None
    files = {str(f): f.locate().read_bytes() for f in pip.files or () if f.parts[0] != ".."}
    files = {name: text for name, text in files.items() if not name.endswith(".pyc")}
    return f"pip-{pip.version}-py3-none-any.whl", zipped(files)


@dataclass
class Index:
    """Serves wheels with their metadata apart, and remembers what was asked of it."""

    wheels: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    output: Path | None = None
    told_before: str | None = None  # What .ci/setup had said when torch's wheel was asked for.
    is_held: threading.Event = field(default_factory=threading.Event)
    hold: threading.Event | None = None

    def page(self, project: str) -> bytes | None:
        names = [name for name in self.wheels if name.split("-")[0].replace("_", "-") == project]
        links = [
            f'<a href="/files/{name}#sha256={hashlib.sha256(self.wheels[name]).hexdigest()}"'
            f' data-core-metadata="true">{name}</a>'
            for name in names
        ]
        return "\n".join(links).encode() if names else None

    def answer(self, path: str) -> bytes | None:
        self.asked.append(path)
        kind, name = path.strip("/").split("/")[:2]
        if kind == "simple":
            return self.page(name)
        packed = self.wheels[name.removesuffix(".metadata")]
        if not name.endswith(".metadata"):
            return self._given_out(name, packed)
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            (inside,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            return archive.read(inside)

    def _given_out(self, name: str, packed: bytes) -> bytes:
        if name.startswith("torch-"):
            self.told_before = self.output.read_text() if self.output else None
            self.is_held.set()
            if self.hold is not None:
                self.hold.wait(60)
        return packed

    def handler(self) -> type[BaseHTTPRequestHandler]:
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = index.answer(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", "text/html" if "/simple/" in self.path else "a/b")
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def do_HEAD(self) -> None:
                self.send_response(200)
                size = 2_700_000_000 if "/torch-" in self.path else 100_000_000
                self.send_header("Content-Length", str(size))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def index() -> Iterator[tuple[Index, str]]:
    """The index and its address."""
    wheels = [
        wheel("torch", "2.13.0", 'nvidia-some-cu13==9.0; platform_system == "Linux"'),
        wheel("nvidia_some_cu13", "9.0"),
        wheel("small", "1.0"),
    ]
    pip = own_pip()
    served = Index(dict([*wheels, pip] if pip else wheels))
    server = ThreadingHTTPServer(("127.0.0.1", 0), served.handler())
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield served, f"http://127.0.0.1:{server.server_port}/simple/"
    server.shutdown()
    server.server_close()


# -- trees to set up --


def tree(folder: Path, requirements: str = REQUIREMENTS) -> Path:
    """A checkout with what setting up needs, and few requirements."""
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").write_text(requirements)
    return folder


def environment(url: str, **more: str) -> dict[str, str]:
    """Of this machine's own settings for pip and make nothing."""
    apart = ("PIP_", "MAKE", "MFLAGS", "PYTHONPATH", "VIRTUAL_ENV")
    env = {k: v for k, v in os.environ.items() if not k.startswith(apart)}
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": url, "PIP_NO_CACHE_DIR": "1"}
    env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return env | {"PYTHON": sys.executable} | more


def set_up(at: Path, index: tuple[Index, str], **more: str) -> tuple[int, str]:
    """`make setup` there: exit status and output."""
    served, url = index
    served.output, served.told_before = at / "output.txt", None
    with served.output.open("w") as output:
        done = subprocess.run(
            ["make", "setup"],
            cwd=at,
            env=environment(url, **more),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
    return done.returncode, served.output.read_text()


@pytest.fixture(scope="module")
def first(index: tuple[Index, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree that was set up once; its output.txt is what that said."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    at = tree(tmp_path_factory.mktemp("setup") / "tree")
    status, said = set_up(at, index)
    assert status == 0, said
    (at / "told_before.txt").write_text(index[0].told_before or "")
    return at


def again(first: Path, at: Path) -> Path:
    """A copy of that tree in which torch is missing and setting up is due."""
    shutil.copytree(first, at, symlinks=True)
    for path in packages(at).glob("torch*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (at / ".venv" / "requirements.stamp").unlink()
    return at


def packages(at: Path) -> Path:
    (found,) = (at / ".venv" / "lib").glob("python*/site-packages")
    return found


def needs_notice() -> None:
    if sys.platform != "linux" or GPU_DRIVER.exists():
        pytest.skip("the notice is for Linux without an NVIDIA GPU")
    if own_pip() is None:
        pytest.skip("pip 25.3 or newer is needed for a dry run that downloads nothing")


# -- the first minutes --


def test_a_cuda_build_without_a_gpu_is_said_before_the_download(first: Path):
    needs_notice()
    told = " ".join((first / "told_before.txt").read_text().split())
    assert "torch comes as its CUDA build from this index: 2.8 GB to download" in told
    assert "1 of the packages is NVIDIA's" in told and "has no NVIDIA GPU" in told
    assert "press Ctrl-C, set PIP_EXTRA_INDEX_URL to the index of CPU wheels" in told


def test_every_package_has_a_line_with_its_version_and_size(first: Path):
    said = (first / "output.txt").read_text()
    for package in ("torch 2.13.0", "nvidia_some_cu13 9.0", "small 1.0"):
        assert re.search(rf"^  {re.escape(package)} \(\d+ bytes\)$", said, re.MULTILINE), said
    assert "metadata" not in said and "Collecting" not in said
    assert said.startswith("Making .venv with Python 3.")


def test_a_second_call_says_nothing_and_asks_nothing(first: Path, index, tmp_path: Path):
    n = len(index[0].asked)
    done = subprocess.run(
        ["make", "setup"], cwd=first, env=environment(index[1]), capture_output=True, text=True
    )
    assert done.returncode == 0 and ".ci/setup" not in done.stdout
    assert re.sub(r"make.*: Nothing to be done for .*\n", "", done.stdout) == ""
    assert len(index[0].asked) == n


def test_of_a_large_download_every_hundred_megabytes_are_shown():
    show = re.search(
        r"^show\(\) \{.*?^\}", (ROOT / ".ci/setup").read_text(), re.DOTALL | re.MULTILINE
    )
    lines = ["Collecting big==1.0 (from -r requirements.txt (line 2))"]
    lines += ["  Downloading big-1.0-cp312-cp312-some.whl.metadata (2 kB)"]
    lines += ["Downloading big-1.0-cp312-cp312-some.whl (250.0 MB)"]
    lines += [f"Progress {n} of 250000000" for n in (0, 99_000_000, 101_000_000, 250_000_000)]
    lines += ["Using cached small-2.0-py3-none-any.whl (5 kB)", "Progress 5000 of 5000"]
    lines += [
        "Requirement already satisfied: other",
        "Processing ./wheels/last-3.0+cpu-some.whl (from a)",
    ]
    said = subprocess.run(
        ["sh", "-c", f"{show[0]}\nshow"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
    )
    assert said.stdout.splitlines() == [
        "  big 1.0 (250.0 MB)",
        "    100 of 250 MB",
        "    200 of 250 MB",
        "  small 2.0 (5 kB)",
        "  last 3.0+cpu",
    ]


@pytest.mark.slow("setup")
@pytest.mark.parametrize("why", ["a GPU", "a CPU build"])
def test_there_is_no_notice_with(why: str, first: Path, index, tmp_path: Path):
    at, more = again(first, tmp_path / "tree"), {}
    if why == "a GPU":
        command = tmp_path / "bin" / "nvidia-smi"
        command.parent.mkdir()
        command.write_text("#!/bin/sh\necho GPU 0\n")
        command.chmod(0o755)
        more["PATH"] = f"{command.parent}:{os.environ['PATH']}"
    else:
        name, packed = wheel("torch", "2.13.0+cpu")
        (tmp_path / name).write_bytes(packed)
        more["PIP_FIND_LINKS"] = str(tmp_path)
    status, said = set_up(at, index, **more)
    assert status == 0 and "CUDA" not in said
    version = "2.13.0" if why == "a GPU" else "2.13.0+cpu"
    assert f"  torch {version}" in said
    assert (packages(at) / "torch.py").read_text() == f"version = {version!r}\n"


@pytest.mark.slow("setup")
def test_setting_up_goes_on_where_nothing_can_be_found_out(first: Path, index, tmp_path: Path):
    at = again(first, tmp_path / "tree")
    (at / ".ci" / "cuda_notice.py").write_text("raise SystemExit(3)\n")
    status, said = set_up(at, index)
    assert status == 0 and (packages(at) / "torch.py").exists(), said


@pytest.mark.slow("setup")
def test_a_failure_says_how_to_go_on_and_leaves_no_stamp(first: Path, index, tmp_path: Path):
    at = again(first, tmp_path / "tree")
    (at / "requirements.txt").write_text("missing==1.0\n")
    status, said = set_up(at, index)
    assert status != 0 and "No matching distribution found for missing==1.0" in said
    assert "run the same command again: it goes on from what is there" in " ".join(said.split())
    assert not (at / ".venv" / "requirements.stamp").exists()


@pytest.mark.parametrize(
    ("available", "device"), [("cuda mps", "cuda"), ("cuda", "cuda"), ("mps", "mps"), ("", "cpu")]
)
def test_a_gpu_is_used_where_torch_finds_one(available: str, device: str, monkeypatch):
    import torch

    from blockviz.models.load import pick_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in available)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in available)
    assert pick_device("auto") == torch.device(device)


# -- after an interruption --


@pytest.mark.slow("setup")
def test_ctrl_c_in_a_download_is_gone_on_from(first: Path, index, tmp_path: Path):
    served, url = index
    at = again(first, tmp_path / "tree")
    served.hold = threading.Event()
    served.is_held.clear()
    # Tests that run in the background of a shell were told to ignore Ctrl-C, and hand that on.
    program = "import os, signal; signal.signal(signal.SIGINT, signal.SIG_DFL)"
    program += "; os.execvp('make', ['make', 'setup'])"
    with (at / "output.txt").open("w") as output:
        running = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=at,
            env=environment(url),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert served.is_held.wait(120)
            time.sleep(0.2)
            os.killpg(running.pid, signal.SIGINT)
            assert running.wait(60) != 0
        finally:
            served.hold.set()
            served.hold = None
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGKILL)
    said = (at / "output.txt").read_text()
    assert "Interrupted. The same command goes on from here." in said
    assert not (at / ".venv" / "requirements.stamp").exists()
    status, said = set_up(at, index)
    assert status == 0 and "Making .venv" not in said and "  small" not in said
    assert (packages(at) / "torch.py").exists()


@pytest.mark.slow("setup")
def test_a_package_that_was_half_unpacked_is_installed_anew(first: Path, index, tmp_path: Path):
    at = tmp_path / "tree"
    shutil.copytree(first, at, symlinks=True)
    (at / ".venv" / "requirements.stamp").unlink()
    (packages(at) / "small.py").unlink()
    (packages(at) / "small-1.0.dist-info" / "INSTALLER").unlink()
    status, said = set_up(at, index)
    assert status == 0 and "  small 1.0" in said and "  torch" not in said
    assert (packages(at) / "small.py").exists()


# -- which Python --


def a_python(version: str) -> str | None:
    """The path of a Python of that version which runs, whether or not PATH has it."""
    homes = Path.home() / ".pyenv" / "versions"
    found = [sys.executable, shutil.which(f"python{version}") or ""]
    for path in [*found, *map(str, homes.glob(f"{version}.*/bin/python{version}"))]:
        command = [path, "-c", "import ensurepip, sys; print(*sys.version_info[:2], sep='.')"]
        if not path or not Path(path).exists():
            continue
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return path
    return None


def bare_path(folder: Path) -> Path:
    """A folder for PATH with what .ci/setup and make call, and no Python."""
    folder.mkdir()
    for name in ("sh", "make", "dirname", "rm", "mkdir", "touch", "uname", "id"):
        found = shutil.which(name)
        if found is not None:
            (folder / name).symlink_to(found)
    return folder


@pytest.mark.slow("setup")
def test_a_machine_with_python_3_13_only_is_set_up(index, tmp_path: Path):
    python = a_python("3.13")
    if python is None:
        pytest.skip("no Python 3.13 here")
    path = bare_path(tmp_path / "bin")
    (path / "python3.13").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (path / "python3.13").chmod(0o755)
    at = tree(tmp_path / "tree", "small==1.0\n")
    (at / ".venv" / "bin").mkdir(parents=True)  # what an interruption can leave
    status, said = set_up(at, index, PATH=str(path), PYTHON="")
    assert status == 0 and "Making .venv with Python 3.13." in said, said
    assert (packages(at).parent.name, (packages(at) / "small.py").exists()) == ("python3.13", True)


def test_without_a_python_that_fits_it_says_which_ones_do(index, tmp_path: Path):
    path = bare_path(tmp_path / "bin")
    (path / "python3").write_text("#!/bin/sh\nexit 1\n")  # such as a Python 3.10
    (path / "python3").chmod(0o755)
    status, said = set_up(tree(tmp_path / "tree"), index, PATH=str(path), PYTHON="")
    assert status == 2
    assert "blockviz needs Python 3.11, 3.12, 3.13 or 3.14. None was found under the names" in said
    assert "python3.13" in said and "make PYTHON=/path/to/python3.12" in said


def test_every_place_that_names_pythons_names_the_same():
    assert 'requires-python = ">=3.11,<3.15"' in (ROOT / "pyproject.toml").read_text()
    assert "Python 3.11 to 3.14" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(3, 11) <= sys.version_info[:2] <= (3, 14)" in (ROOT / ".ci" / "setup").read_text()
    assert {row["python"] for row in pins_table()} == {"3.11", "3.12", "3.13", "3.14"}


# -- the wheels of the pins --


def pins_table() -> list[dict[str, str]]:
    with (ROOT / ".ci" / "pins.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pins() -> set[tuple[str, str]]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").lower().splitlines()
    found = {tuple(line.split("==")) for line in lines if "==" in line}
    return {(name.replace("_", "-"), version) for name, version in found}


@pytest.mark.parametrize("platform", ["Linux x86-64", "macOS arm64"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_every_pin_was_resolved_to_a_wheel(python: str, platform: str):
    """After a pin changed, `make pins` makes the table anew; it needs the index."""
    rows = [r for r in pins_table() if (r["python"], r["platform"]) == (python, platform)]
    assert {(r["package"].replace("_", "-"), r["version"]) for r in rows} == pins()
    assert len(rows) == len(pins())


def test_every_wheel_of_the_table_fits_its_python_and_platform():
    for row in pins_table():
        interpreter, abi, system = row["wheel"].split("-")
        exact = f"cp{row['python'].replace('.', '')}"
        minor = int(row["python"].split(".")[1])
        if abi == "abi3":
            assert int(interpreter.removeprefix("cp3")) <= minor, row
        else:
            assert interpreter == exact or "py3" in interpreter.split("."), row
            assert abi == exact if interpreter == exact else abi == "none", row
        signs = {"Linux x86-64": ("manylinux", "_x86_64"), "macOS arm64": ("macosx", "arm64")}
        start, end = signs[row["platform"]]
        fits = system.startswith(start) and system.endswith((end, "universal2"))
        assert fits or system == "any", row
        assert date(2026, 1, 1) <= date.fromisoformat(row["checked"]), row
