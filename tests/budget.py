"""Runs a command and fails if it took more than twice its budget of processor time.

    python tests/budget.py 300 make test

The budget is counted in a fixed piece of work, done in front of the command and behind it: two
processes at once, as the tests run, each of which imports torch and a model of transformers and
multiplies matrices. A slow or a busy machine is slow at both. The products alone kept their pace on
a machine that took twice as long for the tests, as it did for the imports. Waiting costs nothing.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

TOLERATED = 2
AT_ONCE = 2
WORK = """
import torch
import transformers.models.llama.modeling_llama
torch.set_num_threads(1)
a, b = (torch.randn(1024, 1024, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
for _ in range(40):
    a @ b
"""


def unit_seconds() -> float:
    """Processor seconds of one process that does WORK beside another."""
    before = children_seconds()
    running = [subprocess.Popen([sys.executable, "-c", WORK]) for _ in range(AT_ONCE)]
    if any([process.wait() for process in running]):
        raise RuntimeError("the work that the budget is counted in failed")
    return (children_seconds() - before) / AT_ONCE


def children_seconds() -> float:
    """Processor seconds of all processes that were started here and have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def verdict(budget: float, used: float, unit: float) -> tuple[bool, str]:
    """Whether the command kept to its budget, and what to say: all but the budget in seconds."""
    found = used / unit
    said = (
        f"{used:.0f} s of processor time, {found:.0f} times the {unit:.2f} s of the fixed work; "
        f"the budget is {budget:.0f}, and {TOLERATED} times that is tolerated."
    )
    return found <= TOLERATED * budget, said


def main(budget: float, command: list[str]) -> int:
    first = unit_seconds()
    before = children_seconds()
    status = subprocess.run(command, check=False).returncode
    used = children_seconds() - before
    is_kept, said = verdict(budget, used, (first + unit_seconds()) / 2)
    sys.stdout.write(f"{said if is_kept else 'Too slow: ' + said}\n")
    return status or int(not is_kept)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
