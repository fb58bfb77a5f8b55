"""A figure as a page of its own: everything inside, nothing asked of any other host."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from plotly.offline import get_plotlyjs

if TYPE_CHECKING:
    from blockviz.plots.card import FigureCard

CONFIG = '{"responsive": true, "displaylogo": false}'
# Nothing outside the file may be asked for anything, whatever a script in it tries.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
STYLE = (
    ":root{color-scheme:light dark}"
    "body{margin:0 auto;max-width:1100px;padding:24px 20px 48px;font:15px/1.5 system-ui,sans-serif;"
    "background:#fff;color:#1c2024}h1{font-size:21px;margin:0 0 4px}p{margin:0 0 14px}"
    "#figure{margin:12px 0;overflow-x:auto}table{border-collapse:collapse;font-size:13px;"
    "font-variant-numeric:tabular-nums}th,td{border-bottom:1px solid #8884;padding:3px 10px 3px 0;"
    "text-align:left}td{unicode-bidi:isolate}.scroll{overflow:auto;max-height:70vh}"
    "footer{margin-top:18px;font-size:13px;color:#6b737c}a{color:#0b6e69}"
    "@media(prefers-color-scheme:dark){body{background:#14171a;color:#e9e7e2}a{color:#4fc3b8}"
    "footer{color:#9aa3ab}}"
)


def plotly_js() -> str:
    """The text of plotly.js, which every saved page carries. It ends no script element."""
    return get_plotlyjs()


def html_around(card: FigureCard) -> tuple[str, str]:
    """The page before and after the text of plotly.js, which is the same for all figures."""
    # In a script only `<` could end the script, so it goes in by its number.
    drawing = card.figure.to_json().replace("<", "\\u003c")
    title, reading = _text(card.title), _text(card.reading)
    before = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{title}</h1><p>{reading}</p>"
        f'<div id="figure" role="img" aria-label="{title}"></div><script>'
    )
    after = (
        f"</script><script>const drawing = {drawing};\n"
        f'Plotly.newPlot("figure", drawing.data, drawing.layout, {CONFIG});</script>'
        f"<details open><summary>The same numbers as a table</summary>{_table(card)}</details>"
        f"<footer>{_sources(card)}<p>{_text(card.provenance_note)}</p></footer>"
        "</main></body></html>\n"
    )
    return before, after


def _table(card: FigureCard) -> str:
    head = "".join(f'<th scope="col">{_text(h)}</th>' for h in card.headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in card.rows
    )
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Table">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _sources(card: FigureCard) -> str:
    links = (
        f'<a href="{_text(address)}" rel="noopener noreferrer">{_text(name)}</a>'
        for name, address in card.citation
    )
    return f"<p>{'; '.join(links)}</p>" if card.citation else ""


def _text(value: object) -> str:
    return html.escape(str(value))
