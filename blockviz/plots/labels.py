"""Text that others wrote, made harmless and visible before it stands in a figure or a table."""

from __future__ import annotations

import re
import unicodedata

LONGEST = 60
_KNOWN = {"\n": "↵", "\r": "↵", "\t": "⇥"}
# Plotly reads <b>, <a>, <br> and entities in any text, %{...} in templates, and hands $...$ to
# MathJax where that is loaded. A character written as a number is drawn as itself, read as none.
_SPOKEN = {ord(c): f"&#{ord(c)};" for c in "&<>$%"}

# Characters that turn the direction of what follows or end such a turn, and those that stand for
# nothing on paper: controls, and halves of a pair that no file can hold.
_MISLEADING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Saving as SVG decodes once more than drawing does: a word joiner keeps a written `&lt;` apart.
_ENTITY = re.compile(r"&(?=#?\w+;)")


def visible(text: str, limit: int = LONGEST) -> str:
    """The text with every invisible character shown, cut after `limit` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    shown = "".join(_shown(c) for c in cut)
    blank = len(shown) - len(shown.lstrip(" "))
    return "␣" * blank + shown[blank:]


def prose(text: str) -> str:
    """What a model or a person wrote, line ends and joined letters kept. A character that would
    turn the direction of what follows, or that stands for nothing, is shown as its number.
    """
    return _MISLEADING.sub(lambda found: _shown(found[0]), text)


def label(text: str, limit: int = LONGEST) -> str:
    """`visible` text that plotly draws as it stands: no tags, no entities, no formulas."""
    return _ENTITY.sub("&\u2060", visible(text, limit)).translate(_SPOKEN)


def slug(text: str) -> str:
    """A file-name stem of lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:LONGEST] or "figure"


def _shown(character: str) -> str:
    if character in _KNOWN:
        return _KNOWN[character]
    kind = unicodedata.category(character)
    if kind.startswith("C") or kind in ("Zl", "Zp"):
        return f"⟨{ord(character):04X}⟩"
    return " " if kind == "Zs" else character
