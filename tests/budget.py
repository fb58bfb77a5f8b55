"""Runs a command and fails if it took more than twice its budget of processor time.

    python tests/budget.py 1200 make test

The budget is counted in a fixed torch product, done on one thread in front of the command and
behind it: a slow or a busy machine is slow at both. Waiting costs nothing.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

TOLERATED = 2
SIZE, TIMES = 1024, 40


def product_seconds() -> float:
    """Processor seconds of TIMES products of two float32 matrices of SIZE x SIZE, on one thread."""
    import torch

    torch.set_num_threads(1)
    a, b = (torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    a @ b
    began = time.process_time()
    for _ in range(TIMES):
        a @ b
    return time.process_time() - began


def verdict(budget: float, used: float, product: float) -> tuple[bool, str]:
    """Whether the command kept to its budget, and what to say: all but the budget in seconds."""
    found = used / product
    said = (
        f"{used:.0f} s of processor time, {found:.0f} times the product's {product:.2f} s; "
        f"the budget is {budget:.0f}, and {TOLERATED} times that is tolerated."
    )
    return found <= TOLERATED * budget, said


def main(budget: float, command: list[str]) -> int:
    before = product_seconds()
    status = subprocess.run(command, check=False).returncode
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    product = (before + product_seconds()) / 2
    is_kept, said = verdict(budget, spent.ru_utime + spent.ru_stime, product)
    sys.stdout.write(f"{said if is_kept else 'Too slow: ' + said}\n")
    return status or int(not is_kept)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
