"""The Chromium that the browser tests drive: where it is, and how to get it where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# The headless shell draws the same pages, without the toolbar for which the others run a renderer.
NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
# Debian's; other systems may have the second alone.
PACKAGES = ("chromium-headless-shell", "chromium")
MAC_APPS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
HOW = (
    "The browser tests need Chromium. None was found. Install it (Debian: "
    "sudo apt-get install chromium), or set BLOCKVIZ_CHROMIUM to its path."
)
ARGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find() -> str | None:
    """The path of a Chromium or Chrome; BLOCKVIZ_CHROMIUM goes first."""
    asked = os.environ.get("BLOCKVIZ_CHROMIUM")
    if asked:
        return shutil.which(asked)
    on_path = (shutil.which(name) for name in NAMES)
    in_apps = (app for app in MAC_APPS if Path(app).exists())
    return next(filter(None, on_path), None) or next(in_apps, None)


def install() -> None:
    """Install Debian's package, or say how; the tests say later what they had to skip."""
    is_asked = bool(os.environ.get("BLOCKVIZ_CHROMIUM"))
    if is_asked or os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.stderr.write(HOW + "\n")
        return
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def is_done(*command: str) -> bool:
        return subprocess.run(["apt-get", *command], env=env, check=False).returncode == 0

    take = ("install", "-y", "-q", "--no-install-recommends", "fonts-liberation")
    if not is_done("update", "-q") or not any(is_done(*take, package) for package in PACKAGES):
        sys.stderr.write(f"apt-get failed. {HOW}\n")


if __name__ == "__main__" and find() is None:
    install()
