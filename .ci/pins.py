"""Writes .ci/pins.csv: the wheel of every pin of requirements.txt, by Python and platform.

pip resolves the pins in dry runs, which read metadata only, as wheels only: on Linux with all that
they depend on, on macOS by themselves, since a dry run takes the conditions on dependencies to be
about the machine that it runs on. Needs the index; tests/test_setup.py compares the table without.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TABLE = ROOT / ".ci" / "pins.csv"
COLUMNS = ("python", "platform", "package", "version", "wheel", "checked")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# pip does not know that a system with glibc 2.28 also takes wheels for every older one.
GLIBC = tuple(f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1))
LINUX = (*GLIBC, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64")
PLATFORMS = {
    "Linux x86-64": (*LINUX, "linux_x86_64"),
    "macOS arm64": ("macosx_14_0_arm64",),
}


def main() -> int:
    rows = []
    for python in PYTHONS:
        for platform, tags in PLATFORMS.items():
            try:
                items = resolve(python, tags, with_dependencies=platform.startswith("Linux"))
            except subprocess.CalledProcessError as error:
                sys.stderr.write(
                    f"The pins were to be resolved for Python {python} on {platform}. pip found no"
                    f" way:\n{error.stderr}Pin a version with wheels for it, or drop that Python.\n"
                )
                return 1
            rows += [row for item in items if (row := row_of(python, platform, item))]
            sys.stderr.write(f"Python {python} on {platform}: {len(items)} packages resolved.\n")
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows])
    return 0


def resolve(python: str, tags: tuple[str, ...], *, with_dependencies: bool) -> list[dict[str, Any]]:
    """What pip would install, as in its report; CalledProcessError if it finds no way."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--target"]
        command += [folder, "--ignore-installed", "--only-binary=:all:", "--report", str(report)]
        command += ["--python-version", python, *(f"--platform={tag}" for tag in tags)]
        command += ["-r", str(ROOT / "requirements.txt")]
        command += [] if with_dependencies else ["--no-deps"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(report.read_bytes())["install"]


def row_of(python: str, platform: str, item: dict[str, Any]) -> tuple[str, ...] | None:
    """The row of a pin; None for what a pin depends on."""
    if not item["requested"]:
        return None
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    file = item["download_info"]["url"].rsplit("/", 1)[-1]
    tag = "-".join(file.removesuffix(".whl").split("-")[2:])
    # A CPU build of torch has the pinned version and a local part.
    checked = datetime.now(UTC).date().isoformat()
    return python, platform, name.lower(), version.split("+")[0], tag, checked


if __name__ == "__main__":
    raise SystemExit(main())
