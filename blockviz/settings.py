"""Parameters of a method: declared as the fields of its dataclass, checked, and read from text."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any, TypeVar

from blockviz.errors import BadInput
from blockviz.registry import Registry

T = TypeVar("T")


def check_settings(method: Any) -> None:
    """BadInput where a parameter is outside the choices or the range that its field declares."""
    for setting in fields(method):
        value, rules = getattr(method, setting.name), setting.metadata
        allowed = rules.get("choices")
        low, high = rules.get("min"), rules.get("max")
        asked = f"{method.name}:{setting.name}={value} was asked for."
        if allowed and value not in allowed:
            raise BadInput(
                asked, f"{setting.name} has no such value.", f"Use {', '.join(allowed)}."
            )
        is_number = not isinstance(value, float) or math.isfinite(value)
        if not is_number:
            raise BadInput(asked, f"{setting.name} must be a finite number.", "Change it.")
        if (low is not None and value < low) or (high is not None and value > high):
            wanted = f"from {low} to {high}" if high is not None else f"at least {low}"
            raise BadInput(asked, f"{setting.name} must be {wanted}.", "Change it.")


def parse_method(registry: Registry[type[T]], text: str) -> T:
    """The method of `name:parameter=value:...`; UnknownName or BadInput otherwise."""
    name, *settings = text.split(":")
    cls = registry.get(name.strip())
    known = {f.name: f for f in fields(cls)}
    values: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key.strip() not in known or not value.strip():
            raise BadInput(
                f"The {registry.kind} {text!r} was asked for.",
                f"{name} has no setting {setting!r}.",
                f"Its parameters: {', '.join(known) or 'none'}; write {name}:parameter=value.",
            )
        values[key.strip()] = _convert(registry.kind, text, value.strip(), known[key.strip()].type)
    return cls(**values)


def label_of(method: Any) -> str:
    """`lds:k=50`: the name with every setting that is not the default."""
    usual = asdict(type(method)())
    settings = [f"{k}={v}" for k, v in asdict(method).items() if v != usual[k]]
    return ":".join([method.name, *settings])


def parse_share(text: str) -> float:
    """0.2 of `0.2` and of `20%`; ValueError where it is no number. The range is not checked."""
    number, percent, rest = text.strip().partition("%")
    if rest:
        raise ValueError(text)
    return float(number) / 100 if percent else float(number)


def _convert(what: str, text: str, value: str, kind: Any) -> Any:
    try:
        return {"int": int, "float": float, "bool": _flag}.get(str(kind), str)(value)
    except ValueError as error:
        raise BadInput(
            f"The {what} {text!r} was asked for.",
            f"{value!r} is no {kind}.",
            "Give true or false." if str(kind) == "bool" else "Give a number.",
        ) from error


def _flag(value: str) -> bool:
    if value.lower() in ("true", "yes", "1"):
        return True
    if value.lower() in ("false", "no", "0"):
        return False
    raise ValueError(value)
