"""Checks an export in a process of its own: a line of JSON for every check, as it is done."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from blockviz.export.checks import Shown, verify


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shown", type=Path)
    parser.add_argument("--runs-own-file", action="store_true")
    args = parser.parse_args(argv)
    shown = None
    if args.shown is not None:
        found = json.loads(args.shown.read_text(encoding="utf-8"))
        shown = Shown(tuple(tuple(window) for window in found["windows"]), found["nll"])
    with args.out.open("w", encoding="utf-8") as out:
        for row in verify(args.folder, runs_own_file=args.runs_own_file, shown=shown):
            out.write(json.dumps(row.to_json()) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
