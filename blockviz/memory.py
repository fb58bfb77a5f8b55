"""How much memory is free here, container limits included, and whether a task fits into it."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from blockviz.errors import OverLimit

SHARE = 0.6
MIB, GIB = 2**20, 2**30
# Options of glibc's mallopt, by their numbers in malloc.h, and what a server sets them to.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
SPARING = {M_ARENA_MAX: 2, M_MMAP_THRESHOLD: MIB, M_TRIM_THRESHOLD: 64 * MIB}


def free_bytes(*, root: Path = Path("/")) -> int:
    """Bytes that can be taken now: the least that the machine and every enclosing cgroup leave.

    Page cache that the kernel can drop counts as free. `root` is where /proc and /sys are found.
    """
    available = _meminfo_available(root)
    if available is None:
        available = _darwin_available()
    return max(0, min([available, *_cgroup_rooms(root)]))


def check_fits(needed: float, what: str, *, free: int | None = None) -> None:
    """Nothing, if `needed` bytes are at most 60 % of what is free; else OverLimit with numbers.

    `what` begins the message ("Scoring 64 windows of 512 tokens"); `free` replaces the measured
    number, for another device's memory.
    """
    free = free_bytes() if free is None else free
    if needed > SHARE * free:
        raise OverLimit(
            f"{what} was asked for, which needs about {needed / GIB:.1f} GiB of memory.",
            f"{free / GIB:.1f} GiB is free, and blockviz takes at most {SHARE:.0%} of it "
            f"({SHARE * free / GIB:.1f} GiB).",
            "Choose a smaller model or fewer or shorter windows, or close other programs.",
        )


def peak_rss_bytes() -> int:
    """The most memory this process has held so far.

    Linux carries the parent's peak over into a new program in ru_maxrss, so /proc is asked first.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", _read(Path("/proc/self/status")), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes(*, forget_peak: bool = False) -> int:
    """What this process holds now; `forget_peak` starts peak_rss_bytes anew from here, on Linux.

    Elsewhere the peak so far.
    """
    found = re.search(r"^VmRSS:\s+(\d+) kB", _read(Path("/proc/self/status")), re.MULTILINE)
    if found is None:
        return peak_rss_bytes()
    if forget_peak:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return int(found[1]) * 1024


def give_back() -> None:
    """Hand what the program has freed back to the machine, where the C library would keep it.

    glibc has an arena for each thread and lets go of little; elsewhere there is nothing to do.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def keep_little() -> None:
    """Have the C library hold on to less of what is freed, for a process that serves for long.

    glibc opens an arena for each thread and fills them with pieces of up to 32 MiB, between which
    little is ever given back: two arenas, and a mapping of its own for every piece of a MiB or
    more. Elsewhere there is nothing to do.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)
    for option, value in SPARING.items() if choose else ():
        choose(option, value)


def _meminfo_available(root: Path) -> int | None:
    text = _read(root / "proc/meminfo")
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _darwin_available() -> int:
    """Free, inactive, speculative and purgeable pages by vm_stat; else half of the memory."""
    try:
        text = subprocess.run(["vm_stat"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return parse_vm_stat(text)


def parse_vm_stat(text: str) -> int:
    """Bytes that can be taken, of what macOS's vm_stat prints."""
    page = re.search(r"page size of (\d+) bytes", text)
    kinds = r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)"
    n_pages = sum(int(n) for n in re.findall(kinds, text, re.MULTILINE))
    return n_pages * (int(page[1]) if page else os.sysconf("SC_PAGE_SIZE"))


def _cgroup_rooms(root: Path) -> list[int]:
    """Bytes left in each limited cgroup from this process's own up to the top, v1 or v2."""
    rooms = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        folder = base / path.lstrip("/")
        # Inside a container the path may be the host's and not exist: its parents still hold.
        for place in (folder, *folder.parents):
            room = _room(place, *names)
            if room is not None:
                rooms.append(room)
            if place == base:
                break
    return rooms


def _room(folder: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    limit, usage = _read(folder / limit_name).strip(), _read(folder / usage_name).strip()
    if not limit.isdigit() or not usage.isdigit():
        return None
    cache = re.search(rf"^{cache_name} (\d+)", _read(folder / "memory.stat"), re.MULTILINE)
    return int(limit) - int(usage) + (int(cache[1]) if cache else 0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
