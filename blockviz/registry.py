"""Name -> class lookup with near matches; one instance per kind of method."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Generic, TypeVar

from blockviz.errors import UnknownName

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """Classes by their `name` attribute, in the order of registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._classes: dict[str, T] = {}

    def register(self, cls: T) -> T:
        """Class decorator: file `cls` under `cls.name`. Raises ValueError on a taken name."""
        if cls.name in self._classes:
            raise ValueError(f"{self.kind} {cls.name!r} is registered twice")
        self._classes[cls.name] = cls
        return cls

    def get(self, name: str) -> T:
        """The class called `name`; UnknownName with near matches otherwise."""
        if name in self._classes:
            return self._classes[name]
        near = self._near(name)
        hint = (
            f"Did you mean {' or '.join(map(repr, near))}?" if near else "No name is close to it."
        )
        raise UnknownName(
            f"The {self.kind} {name!r} was asked for.",
            f"There is no such {self.kind}. {hint}",
            f"Choose from: {', '.join(self._classes)}.",
        )

    def _near(self, name: str) -> list[str]:
        """Names that are spelt alike, or whose title is."""
        spelt = {n: n for n in self._classes}
        spelt |= {getattr(c, "title", n).lower(): n for n, c in self._classes.items()}
        wanted = name.lower().replace("_", " ")
        found = get_close_matches(wanted, spelt, n=2, cutoff=0.5)
        return list(dict.fromkeys(spelt[f] for f in found))

    def names(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def classes(self) -> tuple[T, ...]:
        return tuple(self._classes.values())
