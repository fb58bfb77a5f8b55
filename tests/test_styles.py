"""The stylesheet once gradio has rewritten every selector, as it does before a browser reads it."""

from __future__ import annotations

import re

import pytest
from fake_engine import FakeEngine

from blockviz.ui.launch import launch_settings

# What holds gradio's `.contain`, or is it: a selector after its prefix finds none of these.
OUTSIDE = re.compile(r"(html|body|main|:root|\.dark|\.gradio-container|\.contain)\b")


def rules(css: str) -> list[tuple[str, str]]:
    """(what the rule stands in, its selector or at-rule), in the order of the text."""
    text = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    around: list[str] = []
    found = []
    for before, brace in re.findall(r"([^{};]*)([{};])", text):
        if brace == "{":
            found.append((" ".join(around), before.strip()))
            around.append(before.strip())
        elif brace == "}":
            around.pop()
    return found


def lost(css: str) -> list[str]:
    """The selectors that mean something else, or nothing, once gradio has written its prefix."""
    wrong = []
    for around, selector in rules(css):
        if selector.startswith("@"):
            is_known = around or selector.startswith(("@media", "@keyframes", "@font-face"))
            wrong += [] if is_known else [selector]
        elif re.search(r"\([^()]*(\([^()]*\)[^()]*)*,", selector):
            wrong.append(selector)
        elif around.startswith("@media"):
            wrong += [s for s in selector.split(",") if OUTSIDE.match(s.strip())]
    return wrong


@pytest.mark.parametrize(
    "css",
    [
        "#a:has(b, c) { top: 0; }",
        ".a :is(th, td) { top: 0; }",
        "#a:not(:has(b:not(c), d)) e { top: 0; }",
        "@media (width < 9px) { #a:has(b, c) { top: 0; } }",
        "@media (width < 9px) { .a { top: 0; } .a, body .b { top: 0; } }",
        "@media (width < 9px) { .gradio-container * { top: 0; } }",
        "@supports (top: 0) { .a { top: 0; } }",
    ],
)
def test_a_selector_that_gradio_would_break_is_found(css):
    assert len(lost(css)) == 1


def test_no_selector_is_broken_by_the_prefix_that_gradio_writes():
    css = launch_settings(FakeEngine())["css"]
    assert len(rules(css)) > 300
    assert lost(css) == []
