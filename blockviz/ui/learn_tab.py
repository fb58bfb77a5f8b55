"""The Learn tab: the words of the screen and the traps of its numbers."""

from __future__ import annotations

import gradio as gr

from blockviz.ui.parts import part

WORDS = (
    ("Residual stream", "The row of numbers per token that every block reads from and adds to."),
    (
        "Block",
        "One addition to that stream: a layer's attention (7.attn) or its MLP (7.mlp), counted "
        "from 0. Without it the stream simply passes by.",
    ),
    (
        "Perplexity",
        "How many next tokens the model hesitates between, on average: lower is better, and the "
        "rise against the whole model is the damage.",
    ),
    (
        "Block influence",
        "How far a block turns the direction of the stream; a block that hardly turns it is a "
        "candidate for removal.",
    ),
    (
        "Calibration set",
        "The text on which blocks are scored. Perplexity on the scoreboard is measured on other "
        "text.",
    ),
    (
        "KV cache",
        "What attention remembers of earlier tokens; a removed attention block needs none of it.",
    ),
    ("Rank", "The order of removal under one metric: 1 goes first."),
    (
        "Could be 5\u201317",
        "The ranks that the text leaves open: blocks whose difference, window by window, may be "
        "chance (95 %, each pair by itself) are not told apart.",
    ),
    (
        "Kendall tau-b",
        "How alike two orders are: 1 = the same, 0 = unrelated, \u22121 = reversed. It counts the "
        "pairs that both orders agree on.",
    ),
    (
        "Early exit",
        "What the vocabulary head would say of the stream before the last block: the model stopped "
        "half-way.",
    ),
)
CAVEATS = (
    (
        "Small samples",
        "On a few thousand tokens, blocks in the middle of the ranking are nearly tied: another "
        "seed or text reorders them.",
    ),
    (
        "One number",
        "A low rise in perplexity does not promise that facts, arithmetic or long texts survive.",
    ),
    (
        "One at a time",
        "Scores speak of single cuts. Two harmless blocks can be harmful together, so watch the "
        "scoreboard as you cut.",
    ),
)


def build_learn() -> None:
    """Glossary and caveats."""
    with gr.Column(elem_classes=["bv-panel"], elem_id="learn"):
        part("glossary", {"words": WORDS, "caveats": CAVEATS})
