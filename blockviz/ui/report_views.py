"""What the tabs show as values, set as markup for a report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from blockviz.plots import visible
from blockviz.plots.markup import Markup, h, table
from blockviz.session import Visitor
from blockviz.types import BlockId, ModelInfo

View = Mapping[str, Any]
MARKS = {"passed": "✓", "failed": "✕", "waits": "–"}
# Characters that turn a line of text or have no width; in JSON a number says the same.
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def panel(*children: object) -> Markup:
    """A box of its own."""
    return h("div", {"class": "panel"}, *children)


def small(text: str) -> Markup:
    """A remark under something."""
    return h("p", {"class": "small", "dir": "auto"}, text)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and values, those without a value left out."""
    rows = [(h("dt", None, k), h("dd", {"dir": "auto"}, v)) for k, v in pairs if v]
    return h("dl", {"class": "facts"}, *(cell for row in rows for cell in row))


def board(score: View) -> Markup:
    """The scoreboard: blocks kept, parameters, perplexity."""
    tone = {"class": score["rise_tone"] or None}
    return h("dl", {"class": "board"}, *(
        h("div", None, h("dt", None, name), h("dd", None, *cells))
        for name, cells in (
            ("Blocks kept", (h("b", None, score["kept"]), h("em", None, score["cut"]))),
            ("Parameters", (h("b", None, score["parameters"]), h("em", None, score["kv"]))),
            ("Perplexity", (h("b", None, score["perplexity"]), h("em", tone, score["rise"]),
                            h("em", {"dir": "auto"}, score["data"]))),
        )
    ))  # fmt: skip


def grid(info: ModelInfo, visitor: Visitor, colours: Mapping[BlockId, str]) -> Markup:
    """The removal grid as a picture: bright = keep, hatched = off."""
    removed = visitor.plan().removed
    step = 5 if info.n_layers <= 40 else 10
    cells: list[Markup] = []
    for part, name in (("attn", "attn"), ("mlp", "MLP")):
        cells.append(h("b", None, name))
        blocks = [BlockId(i, part) for i in range(info.n_layers)]
        cells += [_cell(b, colours.get(b), is_cut=b in removed) for b in blocks]
    cells.append(h("b"))
    cells += [h("u", None, str(i) if i % step == 0 else "") for i in range(info.n_layers)]
    off = ", ".join(str(b) for b in removed) or "none"
    box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": "Blocks, by layer"}
    picture = {
        "class": "cells", "role": "img", "style": f"--layers:{info.n_layers}",
        "aria-label": f"{len(info.blocks)} blocks, {len(removed)} off: {off}",
    }  # fmt: skip
    return h("div", box, h("div", picture, *cells))


def _cell(block: BlockId, colour: str | None, *, is_cut: bool) -> Markup:
    style = f"--tone:{colour}" if colour and not is_cut else None
    return h("i", {"class": "cut" if is_cut else None, "style": style})


def readings(view: View) -> Markup:
    """What each metric says."""
    rows = (
        h("div", None, h("dt", None, one["title"]), h("dd", None, one["meaning"]))
        for one in view["metrics"]
    )
    return panel(
        h("h3", None, "What each metric says"),
        h("p", {"class": "lead"}, "Low = removable in every one of them."),
        h("dl", {"class": "readings"}, *rows),
    )


def texts(raw: object) -> Markup | None:
    """What the original and the pruned model wrote, as the Map shows it; None if it shows none.

    raw: what the page says that it shows, which anybody can change.
    """
    view = raw if isinstance(raw, Mapping) else {}
    both = [view.get(name) for name in ("original", "pruned")]
    said = [view.get(name) for name in ("prompt", "plan", "note")]
    is_told = all(isinstance(text, str) for text in said)
    if not is_told or view.get("is_busy") or not all(map(_is_pieces, both)):
        return None
    prompt, plan, note = said
    if not any(both[0]):
        return None
    columns = [
        h("div", {"class": kind}, h("h3", None, title), small(under),
          _written(pieces, prompt))
        for kind, title, under, pieces in (
            ("whole", "Original", "nothing removed", both[0]), ("pruned", "Pruned", plan, both[1])
        )
    ]  # fmt: skip
    return panel(h("div", {"class": "both"}, *columns), small(note))


def _is_pieces(raw: object) -> bool:
    return isinstance(raw, list) and len(raw) == 3 and all(isinstance(piece, str) for piece in raw)


def _written(pieces: Sequence[str], prompt: str = "") -> Markup:
    """A text with the word marked in which it parts from the original's."""
    first, word, rest = pieces
    before = None
    if prompt:
        first = first if first[:1].isspace() else f"\n{first}"
        before = h("span", None, prompt)
    marked = h("mark", None, word) if word else None
    return h("p", {"class": "written", "dir": "auto"}, before, first, marked, rest)


def candidates(view: View) -> Markup:
    """The decisions of a search."""
    return _panel_of(view, table(view["headers"], (r["cells"] for r in view["rows"]),
                                 label=view["title"]))  # fmt: skip


def repairs(view: View) -> Markup:
    """The corrections, one row each."""
    head = h("tr", None, *(h("th", {"scope": "col"}, name) for name in view["headers"]))
    rows = (_repair(row, len(view["headers"]) - 1) for row in view["rows"])
    whole = h("table", None, h("thead", None, head), h("tbody", None, *rows))
    return _panel_of(view, _box(view["title"], whole), note=view["note"])


def _repair(row: View, width: int) -> Markup:
    name = h("th", {"scope": "row", "dir": "auto"}, row["title"], *map(_tag, row["tags"]))
    if row["refused"]:
        why = {"class": "refused", "colspan": str(width), "dir": "auto"}
        return h("tr", None, name, h("td", why, row["refused"]))
    texts = [*row["cells"][:2], row["closed"], *row["cells"][2:]]
    cells = (h("td", {"dir": "auto"}, text) for text in texts)
    return h("tr", {"class": "best" if row["is_best"] else None}, name, *cells)


def comparison(view: View) -> Markup:
    """The columns side by side, with what each wrote."""
    heads = (
        h("th", {"scope": "col", "dir": "auto"}, column["title"], *map(_tag, column["tags"]))
        for column in view["columns"]
    )
    head = h("thead", None, h("tr", None, h("td"), *heads))
    n_rows = len(view["rows"])
    rows = (_compared(view["columns"], row, i, n_rows) for i, row in enumerate(view["rows"]))
    whole = h("table", None, head, h("tbody", None, *rows))
    columns = f"--columns:{len(view['columns'])}"
    box = h("div", {"class": "side", "style": columns}, _box(view["title"], whole))
    return _panel_of(view, box, note=view["note"])


def _compared(columns: Sequence[View], row: View, i: int, n_rows: int) -> Markup:
    prompt = row.get("prompt")
    cells = [h("th", {"scope": "row"}, h("b", None, row["name"]),
               h("small", {"dir": "auto"}, row["source"]),
               h("q", {"dir": "auto"}, prompt) if prompt else None)]  # fmt: skip
    for column, found in zip(columns, row["cells"], strict=True):
        if column["refused"]:
            why = {"class": "refused", "rowspan": str(n_rows), "dir": "auto"}
            cells += [] if i else [h("td", why, column["refused"])]
        elif found is None:
            cells.append(h("td", None, "not measured"))
        elif row["kind"] == "texts":
            said = h("small", None, found["said"]) if found["said"] else None
            cells.append(h("td", None, _written(found["pieces"]), said))
        else:
            small = h("small", {"dir": "auto"}, found["small"]) if found["small"] else None
            cells.append(h("td", None, h("b", {"dir": "auto"}, found["main"]), small))
    return h("tr", {"class": row["kind"]}, *cells)


def checks(view: View) -> Markup:
    """Every check of the written files, the sizes, and how to load them."""
    rows = (
        h("li", {"class": row["state"]}, h("span", {"aria-hidden": "true"}, MARKS[row["state"]]),
          " ", h("b", {"dir": "auto"}, row["title"]), " ",
          h("span", {"class": "said"}, row["state"]), h("small", {"dir": "auto"}, row["detail"]))
        for row in view["rows"]
    )  # fmt: skip
    notes = (small(note) for note in view["notes"])
    code = {"tabindex": "0", "role": "region", "aria-label": "How to load it"}
    return _panel_of(
        view,
        h("ul", {"class": "checks"}, *rows),
        facts((fact["name"], fact["value"]) for fact in view["facts"]),
        *notes,
        h("pre", code, view["code"]) if view["code"] else None,
    )


def recipe(text: str, name: str) -> Markup:
    """The recipe as JSON, and as a file to take out again."""
    shown = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    link = {"href": f"data:application/json;charset=utf-8,{quote(shown)}", "download": name}
    box = {"tabindex": "0", "role": "region", "aria-label": "The recipe"}
    return panel(h("p", None, h("a", link, f"Save {name}")), h("pre", box, shown))


def versions(found: Mapping[str, str]) -> str:
    """`blockviz 0.1, torch 2.13`, in the order of names."""
    return ", ".join(visible(f"{name} {number}", 60) for name, number in sorted(found.items()))


def _tag(tag: Sequence[str]) -> Markup:
    kind, text = tag
    return h("span", {"class": f"tag {kind}"}, text)


def _box(label: str, whole: Markup) -> Markup:
    scroll = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label}
    return h("div", scroll, whole)


def _panel_of(view: View, *children: object, note: str = "") -> Markup:
    foot = small(note) if note else None
    lead = h("p", {"class": "lead", "dir": "auto"}, view["lead"])
    return panel(h("h3", {"dir": "auto"}, view["title"]), lead, *children, foot)
