"""Hadamard matrices, constructed: Paley's from the squares of a finite field, doubled by Sylvester.

A Hadamard matrix has entries 1 and -1 and rows at right angles. Those of one size differ, and a
patch depends on which is taken: other code may read another one from a table.
"""

from __future__ import annotations

from itertools import product

import torch

from blockviz.errors import UnsupportedModel


def hadamard(size: int) -> torch.Tensor:
    """(size, size) float64 H with entries +-1/sqrt(size) and H H^T = I.

    UnsupportedModel where neither construction gives one; nothing is built then.
    """
    base = check_size(size)
    matrix = torch.ones(1, 1, dtype=torch.float64) if base == 1 else _paley(base)
    while len(matrix) < size:
        matrix = torch.kron(_pair(1, 1), matrix)
    return matrix / size**0.5


def check_size(size: int) -> int:
    """The base of a size; UnsupportedModel where it has none."""
    base = hadamard_base(size)
    if base is None:
        raise UnsupportedModel(
            f"A Hadamard matrix of size {size} was to rotate the stream.",
            "None can be constructed here: this hidden size is no power of two times the order of "
            "a Paley matrix.",
            "Use the correction diag, which scales the channels as they are.",
        )
    return base


def hadamard_base(size: int) -> int | None:
    """The smallest K of size = K 2^k that is 1 or has a Paley matrix; None where there is none."""
    base = size // (size & -size)
    while base <= size:
        if base == 1 or _field(base) is not None:
            return base
        base *= 2
    return None


def _field(order: int) -> int | None:
    """How many elements the field of a Paley matrix has: order - 1, or order / 2 - 1."""
    sizes = [order - 1] * (order % 4 == 0) + [order // 2 - 1] * (order % 8 == 4)
    return next((q for q in sizes if _prime_power(q) is not None), None)


def _paley(order: int) -> torch.Tensor:
    """(order, order) of 1 and -1: his first construction where q % 4 = 3, his second where 1."""
    q = _field(order)
    core = torch.ones(q + 1, q + 1, dtype=torch.float64)
    core[1:, 1:] = _jacobsthal(q)
    core[0, 0] = 0
    if q % 4 == 3:
        core[1:, 0] = -1
        return core + torch.eye(q + 1, dtype=torch.float64)
    eye = torch.eye(q + 1, dtype=torch.float64)
    return torch.kron(core, _pair(1, 1)) + torch.kron(eye, _pair(1, -1))


def _pair(a: float, b: float) -> torch.Tensor:
    """[[a, b], [b, -a]]."""
    return torch.tensor([[a, b], [b, -a]], dtype=torch.float64)


def _jacobsthal(q: int) -> torch.Tensor:
    """(q, q): 1 where the difference of two elements is a square, -1 where not, 0 where it is 0."""
    p, m = _prime_power(q)
    character = torch.zeros(q, dtype=torch.float64)
    for power, element in enumerate(_powers(p, m)):
        character[sum(digit * p**i for i, digit in enumerate(element))] = 1 - 2 * (power % 2)
    numbers, difference = torch.arange(q), torch.zeros(q, q, dtype=torch.int64)
    for i in range(m):
        digit = numbers // p**i % p
        difference += (digit[:, None] - digit) % p * p**i
    return character[difference]


def _powers(p: int, m: int) -> list[tuple[int, ...]]:
    """All elements but 0 of the field with p^m, as powers 0, 1, ... of one of them.

    Elements are polynomials in x of degree below m, lowest digit first. Multiplying by x modulo
    x^m - tail goes through all of them for the right tail, and there is one for every field.
    """
    one = (1,) + (0,) * (m - 1)
    for tail in product(range(p), repeat=m):
        found, element = [one], _times_x(one, tail, p)
        while element != one and any(element) and len(found) < p**m - 1:
            found.append(element)
            element = _times_x(element, tail, p)
        if element == one and len(found) == p**m - 1:
            return found
    raise AssertionError(f"{p} is no prime")


def _times_x(element: tuple[int, ...], tail: tuple[int, ...], p: int) -> tuple[int, ...]:
    shifted = (0, *element[:-1])
    return tuple((a + element[-1] * b) % p for a, b in zip(shifted, tail, strict=True))


def _prime_power(q: int) -> tuple[int, int] | None:
    """(p, m) with p prime and p^m = q, or None."""
    if q < 2:
        return None
    p = next((d for d in range(2, int(q**0.5) + 1) if q % d == 0), q)
    m = 0
    while q % p == 0:
        q, m = q // p, m + 1
    return (p, m) if q == 1 else None
