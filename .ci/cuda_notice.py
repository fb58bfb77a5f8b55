"""Says before the download if torch would come as its CUDA build, which is several gigabytes.

.ci/setup calls it where there is no NVIDIA GPU, with a pip whose dry run reads metadata only. What
goes wrong here is left to the installation itself to report.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NOTICE = """
Note: torch comes as its CUDA build from this index: {size} to download, and more than twice that
on disk; {n} of the packages {verb} NVIDIA's. This machine has no NVIDIA GPU that could use them.
The CPU build is a tenth of the size. To get that one, press Ctrl-C, set PIP_EXTRA_INDEX_URL to the
index of CPU wheels that PyTorch's installation page names (or PIP_FIND_LINKS to a folder that
holds one), and run the same command again. Going on with the CUDA build.

"""


def main() -> None:
    pins = Path("requirements.txt").read_text(encoding="utf-8").splitlines()
    torch = next((pin for pin in pins if pin.startswith("torch==")), None)
    if torch is None or not any(map(_is_of_nvidia, _needs(_would_install(torch, "--no-deps")))):
        return
    everything = _would_install(torch)
    urls = [item["download_info"]["url"] for item in everything]
    n = sum(_is_of_nvidia(item["metadata"]["name"]) for item in everything)
    verb = "is" if n == 1 else "are"
    sys.stdout.write(NOTICE.format(size=_in_words(total_bytes(urls)), n=n, verb=verb))


def _would_install(*what: str) -> list[dict[str, Any]]:
    """What pip would install that is not there yet; nothing if it cannot tell."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--retries=1"]
        # Where an index has no metadata apart from the wheels, fast-deps reads no more than that.
        command += ["--use-feature=fast-deps", "--report", str(report), *what]
        done = subprocess.run(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return json.loads(report.read_bytes())["install"] if done.returncode == 0 else []


def _needs(items: list[dict[str, Any]]) -> list[str]:
    return [name for item in items for name in item["metadata"].get("requires_dist", ())]


def _is_of_nvidia(name: str) -> bool:
    return name.lower().replace("_", "-").startswith(("nvidia-", "cuda-"))


def total_bytes(urls: list[str]) -> int | None:
    """What the files behind `urls` have in all; None if one of them does not say."""
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(_size, urls))
    return None if None in sizes else sum(sizes)


def _size(url: str) -> int | None:
    request = urllib.request.Request(url, method="HEAD")
    try:
        context = ssl.create_default_context(cafile=os.environ.get("PIP_CERT") or None)
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def _in_words(size: int | None) -> str:
    return "several GB" if size is None else f"{size / 1e9:.1f} GB"


if __name__ == "__main__":
    main()
