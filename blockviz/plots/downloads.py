"""Pages that stand alone: everything inside, nothing asked of any other host."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from blockviz.plots.markup import Markup, h, joined, table

if TYPE_CHECKING:
    from blockviz.plots.card import FigureCard

# Nothing outside the file may be asked for anything, and no script runs but the two of ours, which
# are known by their digests: were a foreign text ever to become markup, it could still do nothing.
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
STYLE = (
    ":root{color-scheme:light dark}"
    "body{margin:0 auto;max-width:1100px;padding:24px 20px 48px;font:15px/1.5 system-ui,sans-serif;"
    "background:#fff;color:#1c2024}h1{font-size:21px;margin:0 0 4px}p{margin:0 0 14px}"
    "#figure{margin:12px 0;overflow-x:auto}table{border-collapse:collapse;font-size:13px;"
    "font-variant-numeric:tabular-nums}th,td{border-bottom:1px solid #8884;padding:3px 10px 3px 0;"
    "text-align:left}tbody th{font-weight:400}th,td{unicode-bidi:isolate}"
    ".scroll{overflow:auto;max-height:70vh}"
    "footer{margin-top:18px;font-size:13px;color:#6b737c}a{color:#0b6e69}"
    "@media(prefers-color-scheme:dark){body{background:#14171a;color:#e9e7e2}a{color:#4fc3b8}"
    "footer{color:#9aa3ab}}"
)
PRINTED = 640  # pixels, what a sheet of A4 or letter has room for
# One figure after the other, so that the page scrolls meanwhile. Paper has another width than the
# screen, and what is printed at once has to be drawn at once.
DRAW = """
const waiting = new Map(drawings), drawn = [];
const drawOne = (id) => {
  const figure = waiting.get(id);
  waiting.delete(id);
  drawn.push(id);
  return Plotly.newPlot(id, figure.data, figure.layout, config);
};
const fails = "This figure could not be drawn. Its numbers are in its table.";
(async () => {
  for (const [id] of drawings) {
    try {
      if (waiting.has(id)) await drawOne(id);
    } catch {
      document.getElementById(id).textContent = fails;
    }
    await new Promise((next) => setTimeout(next));
  }
  document.body.dataset.drawn = drawn.length;
})();
addEventListener("beforeprint", () => {
  for (const id of [...waiting.keys()]) drawOne(id);
  for (const id of drawn) Plotly.relayout(id, { autosize: false, width: printed });
});
addEventListener("afterprint", () => {
  for (const id of drawn) Plotly.relayout(id, { autosize: true, width: null });
});
"""
SAME_NUMBERS = "The same numbers as a table"


def plotly_js() -> str:
    """The text of plotly.js, which every saved page carries. It ends no script element."""
    return get_plotlyjs()


def html_around(card: FigureCard) -> tuple[str, str]:
    """The page before and after the text of plotly.js, which is the same for all figures."""
    main = h(
        "main", None, h("h1", None, card.title), h("p", None, card.reading),
        figure_box("figure", card.title),
        h("details", {"open": True}, h("summary", None, SAME_NUMBERS), numbers(card)),
        h("footer", None, sources(card), h("p", None, card.provenance_note)),
    )  # fmt: skip
    return page_around(card.title, main, {"figure": card.figure}, style=STYLE)


def page_around(
    title: str,
    main: Markup,
    figures: Mapping[str, go.Figure],
    *,
    style: str,
    has_tools: bool = True,
) -> tuple[str, str]:
    """A page before and after the text of plotly.js; figures: id of its box -> what is drawn there.

    has_tools: plotly's own buttons stand over a figure under the pointer.
    """
    config = {"responsive": True, "displaylogo": False}
    config |= {} if has_tools else {"displayModeBar": False}
    pairs = (f"[{json.dumps(k)}, {_in_script(f.to_json())}]" for k, f in figures.items())
    drawings = ",\n".join(pairs)
    script = (
        f"const drawings = [{drawings}];\n"
        f"const config = {json.dumps(config)}, printed = {PRINTED};{DRAW}"
    )
    policy = POLICY.format(scripts=f"'{_plotly_digest()}' '{digest(script)}'")
    head = h(
        "head", None, h("meta", {"charset": "utf-8"}),
        h("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        h("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        h("meta", {"name": "referrer", "content": "no-referrer"}),
        h("title", None, title), h("style", None, Markup(style)),
    )  # fmt: skip
    before = f'<!doctype html>\n<html lang="en">{head}<body>{main}<script>'
    return before, f"</script><script>{script}</script></body></html>\n"


def figure_box(figure_id: str, title: str, *, kind: str = "figure", height: int = 0) -> Markup:
    """Where a figure is drawn. height: in pixels, so that nothing moves when it is."""
    style = f"min-height:{height}px" if height else None
    named = {"id": figure_id, "class": kind, "role": "img", "aria-label": title, "style": style}
    return h("div", named)


def numbers(card: FigureCard) -> Markup:
    """The table of a figure."""
    return table(card.headers, card.rows, label=f"Table: {card.title}")


def sources(card: FigureCard) -> Markup | None:
    """Who says so, as links."""
    links = (
        h("a", {"href": address, "rel": "noopener noreferrer"}, name)
        for name, address in card.citation
    )
    between = [part for link in links for part in ("; ", link)][1:]
    return h("p", None, joined(between)) if between else None


def digest(script: str) -> str:
    """How a policy names the script of this text."""
    found = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(found).decode()}"


@cache
def _plotly_digest() -> str:
    return digest(plotly_js())


def _in_script(text: str) -> str:
    """JSON as it may stand in a script, which only a `<` could end."""
    return text.replace("<", "\\u003c")
