"""The result store on memory and on disk, and the memory that is free."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from blockviz import memory
from blockviz.errors import OverLimit
from blockviz.store import JsonFolder, Store, key, size_of
from blockviz.types import BlockId


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Setting:
    k: int
    name: str = "a"


@dataclass(frozen=True)
class Other:
    k: int
    name: str = "a"


# -- keys --


def test_a_key_is_the_sha256_of_the_canonical_json():
    text = '["demo",3,{"mapping":{"a":1.5,"b":null}}]'
    assert key("demo", 3, {"b": None, "a": 1.5}) == hashlib.sha256(text.encode()).hexdigest()


def test_order_counts_in_lists_and_not_in_mappings_or_sets():
    assert key({"a": 1, "b": 2}) == key({"b": 2, "a": 1})
    assert key({"x", "y", "z"}) == key({"z", "y", "x"})
    assert key(["a", "b"]) != key(["b", "a"])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        ((1,), (1.0,)),
        ((1,), (True,)),
        ((0,), (None,)),
        (("1",), (1,)),
        ((), (None,)),
        (([1], 2), ([1, 2],)),
        ((Setting(1),), (Other(1),)),
        ((Setting(1),), (Setting(2),)),
        ((BlockId(1, "attn"),), (BlockId(1, "mlp"),)),
    ],
)
def test_different_parts_have_different_keys(one, other):
    assert key(*one) != key(*other)


def test_equal_values_have_equal_keys():
    assert key(Setting(1), (1, 2)) == key(Setting(k=1), [1, 2])


def test_what_cannot_be_repeated_is_no_key():
    with pytest.raises(TypeError, match="object cannot be part of a store key"):
        key(object())
    with pytest.raises(TypeError, match="string keys"):
        key({1: "a"})
    with pytest.raises(ValueError):
        key(math.nan)


# -- in memory --


def test_what_was_put_is_got():
    store = Store()
    store.put("a", [1])
    assert store.get("a") == [1]
    assert store.get("b") is None
    assert store.get("b", "nothing") == "nothing"
    store.discard("a")
    assert store.get("a") is None


def test_the_least_recently_used_leave_first():
    store = Store(max_bytes=100)
    for name in "abc":
        store.put(name, name, n_bytes=30)
    store.get("a")
    store.put("d", "d", n_bytes=60)
    assert [store.get(name) for name in "abcd"] == ["a", None, None, "d"]
    assert store.n_bytes == 90


def test_a_replaced_value_frees_its_bytes():
    store = Store(max_bytes=100)
    store.put("a", 1, n_bytes=80)
    store.put("a", 2, n_bytes=50)
    store.put("b", 3, n_bytes=50)
    assert (store.get("a"), store.get("b"), store.n_bytes) == (2, 3, 100)


def test_a_value_larger_than_the_store_is_not_kept_and_drives_nothing_out():
    store = Store(max_bytes=100)
    store.put("a", 1, n_bytes=80)
    store.put("b", 2, n_bytes=101)
    assert store.get("a") == 1
    assert store.get("b") is None


def test_idle_values_leave_after_half_an_hour_and_used_ones_stay():
    clock = Clock()
    store = Store(clock=clock)
    store.put("idle", 1)
    store.put("used", 2)
    clock.now += 29 * 60
    assert store.get("used") == 2
    clock.now += 60
    assert store.get("idle") is None
    assert store.get("used") == 2
    assert store.n_bytes == size_of(2)


def test_sizes_count_arrays_inside_containers_and_dataclasses():
    array = np.zeros(1000)

    @dataclass
    class Holder:
        array: np.ndarray

    assert size_of(array) == 8000
    assert 16000 < size_of({"a": Holder(array), "b": [array]}) < 17000


# -- on disk --


def test_json_survives_on_disk(tmp_path: Path):
    value = {"perplexity": 24.125, "removed": ["3.attn"], "none": None}
    name = key("plan")
    JsonFolder(tmp_path / "new").put(name, value)
    assert JsonFolder(tmp_path / "new").get(name) == value
    assert JsonFolder(tmp_path / "new").get(key("another"), 0) == 0


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch):
    folder, name = JsonFolder(tmp_path), key("plan")
    folder.put(name, 1)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        folder.put(name, 2)
    assert folder.get(name) == 1
    assert [p.suffix for p in tmp_path.rglob("*") if p.is_file()] == [".json"]


def test_what_is_no_json_is_not_begun(tmp_path: Path):
    with pytest.raises(ValueError):
        JsonFolder(tmp_path).put(key("x"), math.inf)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_counts_as_none(tmp_path: Path):
    folder, name = JsonFolder(tmp_path), key("plan")
    folder.put(name, [1, 2, 3])
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_text()
    for damaged in (
        b"[1, 2, \xff", b"", b"null", b"[1, 2, 3]", b"[" * 100_000, b'{"value": [1, 2, 3]}',
        whole.replace("2, 3", "2, 4").encode(), whole.replace("2, 3", "NaN, 3").encode(),
    ):  # fmt: skip
        path.write_bytes(damaged)
        assert folder.get(name, "none") == "none"
    path.unlink()
    path.mkdir()
    assert folder.get(name, "none") == "none"


def test_a_key_is_no_path(tmp_path: Path):
    for bad in ("../../etc/passwd", "a" * 63, "A" * 64):
        with pytest.raises(ValueError, match="64 hex digits"):
            JsonFolder(tmp_path).get(bad)


# -- memory --


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 16000 kB\nMemFree: 100 kB\nMemAvailable:    8000 kB\n"}


def test_free_memory_is_what_the_kernel_calls_available(tmp_path: Path):
    assert memory.free_bytes(root=machine(tmp_path, MEMINFO)) == 8000 * 1024


def test_a_cgroup_v2_limit_holds_less_its_usage_plus_its_droppable_cache(tmp_path: Path):
    base = "sys/fs/cgroup/app"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/app/inner\n",
        f"{base}/inner/memory.max": "max\n",
        f"{base}/inner/memory.current": "500\n",
        f"{base}/memory.max": "1000000\n",
        f"{base}/memory.current": "700000\n",
        f"{base}/memory.stat": "anon 1\nactive_file 7\ninactive_file 50000\n",
    }
    assert memory.free_bytes(root=machine(tmp_path, files)) == 350000


def test_a_cgroup_v1_limit_holds_even_where_the_own_path_is_not_mounted(tmp_path: Path):
    base = "sys/fs/cgroup/memory"
    files = {
        **MEMINFO,
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/of/the/host\n0::/\n",
        f"{base}/memory.limit_in_bytes": "2000000\n",
        f"{base}/memory.usage_in_bytes": "900000\n",
        f"{base}/memory.stat": "inactive_file 5\ntotal_inactive_file 100000\n",
    }
    assert memory.free_bytes(root=machine(tmp_path, files)) == 1200000


def test_no_limit_and_too_much_usage(tmp_path: Path):
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "9223372036854771712",
        "sys/fs/cgroup/memory.current": "0",
    }
    assert memory.free_bytes(root=machine(tmp_path, files)) == 8000 * 1024
    machine(tmp_path, {"sys/fs/cgroup/memory.max": "10", "sys/fs/cgroup/memory.current": "30"})
    assert memory.free_bytes(root=tmp_path) == 0


def test_vm_stat_counts_what_can_be_taken():
    text = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               10.\n"
        "Pages active:                           9999.\n"
        "Pages inactive:                           20.\n"
        "Pages speculative:                         3.\n"
        "Pages purgeable:                           4.\n"
    )
    assert memory.parse_vm_stat(text) == 37 * 16384


def test_a_task_fits_up_to_sixty_percent_of_what_is_free():
    memory.check_fits(6 * 2**30, "Scoring", free=10 * 2**30)
    with pytest.raises(OverLimit) as refusal:
        memory.check_fits(7.5 * 2**30, "Scoring 64 windows", free=10 * 2**30)
    assert str(refusal.value) == (
        "Scoring 64 windows was asked for, which needs about 7.5 GiB of memory. "
        "10.0 GiB is free, and blockviz takes at most 60% of it (6.0 GiB). "
        "Choose a smaller model or fewer or shorter windows, or close other programs."
    )


def test_the_peak_is_this_programs_and_not_its_parents():
    block = bytearray(b"x" * (256 * 2**20))
    code = "from blockviz.memory import peak_rss_bytes; print(peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(block)


def test_the_peak_is_in_bytes_and_grows_with_use():
    before = memory.peak_rss_bytes()
    block = bytearray(b"x" * (64 * 2**20))
    after = memory.peak_rss_bytes()
    assert len(block) == 64 * 2**20
    assert 5 * 2**20 < before <= after < 2**40
    assert after >= 64 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a peak be forgotten")
def test_a_peak_can_be_counted_from_now_on():
    code = (
        "import json\n"
        "from blockviz.memory import peak_rss_bytes, rss_bytes\n"
        "x = bytearray(200 << 20); x[::4096] = b'1' * len(x[::4096]); before = peak_rss_bytes()\n"
        "del x; now = rss_bytes(forget_peak=True); after = peak_rss_bytes()\n"
        "print(json.dumps([before, now, after]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, now, after = json.loads(done.stdout)
    assert before > now + (150 << 20)
    assert after < before - (150 << 20)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what was freed")
def test_what_was_freed_goes_back_to_the_machine():
    """Pages freed between others that stay, which no C library lets go of by itself."""
    pieces = [b"%d" % i * 25_000 for i in range(2000)]
    size = sum(map(len, pieces))
    del pieces[::2]
    before = memory.rss_bytes()
    memory.give_back()
    assert memory.rss_bytes() < before - size / 4
    assert len(pieces) == 1000


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what was freed")
@pytest.mark.parametrize("is_sparing", [False, True])
def test_a_server_keeps_little_of_what_was_freed_between_pieces_that_stay(is_sparing):
    """Freeing 30 MiB is what tells glibc to keep pieces of that size from then on."""
    code = (
        "import json\n"
        "from blockviz.memory import keep_little, rss_bytes\n"
        f"{'keep_little()' if is_sparing else ''}\n"
        "big = b'x' * (30 << 20); del big\n"
        "before = rss_bytes()\n"
        "pieces = [(b'x' * (2 << 20), b'y' * 100_000) for _ in range(60)]\n"
        "most = rss_bytes()\n"
        "pieces = [small for _, small in pieces]\n"
        "print(json.dumps([before, most, rss_bytes()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, most, after = json.loads(done.stdout)
    assert most - before > 110 << 20
    assert (after - before < 20 << 20) == is_sparing
