"""Python programs that start at once: forked from a process that has imported what they import.

Each is a process of its own as `python -c` would start it in the repository, with real signals and
a real end, but torch, transformers and the command line are there already. Tests of what importing
costs, of `python -m blockviz` and of launchers start real ones.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = (
    "accelerate",
    "transformers.models.llama.modeling_llama",
    "blockviz.cli.commands",
    "blockviz.session.opening",
    "blockviz.session.scoring",
)
# A program that takes longer is ended by SIGALRM.
SECONDS = 300


def run(program: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """The program, run to its end with the environment of this moment."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        status = wait(start(program, *argv, stdout=out, stderr=err))
        said = [path.read_text(encoding="utf-8") for path in (out, err)]
        return subprocess.CompletedProcess([program, *argv], status, *said)


def start(program: str, *argv: str, stdout: Path, stderr: Path | None = None) -> int:
    """The id of a process that runs the program; whoever starts it waits for it.

    stdout, stderr: files or named pipes; without one, errors go where those of the tests go.
    """
    outputs = {1: str(stdout)} | ({2: str(stderr)} if stderr else {})
    return _ask({"program": program, "argv": argv, "environ": dict(os.environ), "outputs": outputs})


def wait(process: int) -> int:
    """How the process ended: its exit status, or the number of a signal below zero."""
    return _ask({"wait": process})


def _ask(request: dict[str, object]) -> int:
    server = _server()
    server.stdin.write(f"{json.dumps(request)}\n")
    server.stdin.flush()
    answer = server.stdout.readline()
    assert answer, "the process that programs are forked from has ended"
    return int(answer)


@functools.cache
def _server() -> subprocess.Popen[str]:
    """It ends when its stdin does, at the latest with the tests."""
    server = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    """Begins a program, or waits for one, at every line of stdin, and answers with a number."""
    sys.path[0] = str(ROOT)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                _become(**request)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _become(
    program: str, argv: list[str], environ: dict[str, str], outputs: dict[str, str]
) -> None:
    """Runs the program in this process, which ends with it. outputs: descriptor -> path."""
    signal.alarm(SECONDS)
    os.environ.clear()
    os.environ.update(environ)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in outputs.items():
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), int(descriptor))
    sys.argv = ["-c", *argv]
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})
    sys.exit()


if __name__ == "__main__":
    _serve()
