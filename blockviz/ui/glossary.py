"""The words of the screen in a sentence or two each, and what misleads in its numbers."""

from __future__ import annotations

Words = tuple[tuple[str, str], ...]

MODEL: Words = (
    ("Token", "A word or a piece of one; what a model reads and writes one at a time."),
    ("Residual stream", "The row of numbers per token that every block reads from and adds to."),
    (
        "Block",
        "One addition to that stream: a layer's attention (7.attn) or its MLP (7.mlp), counted "
        "from 0. Without it the stream simply passes by.",
    ),
    (
        "Layer",
        "An attention block and the MLP behind it; 7.layer means both. Other software can drop a "
        "layer, but not half of one.",
    ),
    ("Channel", "One of the numbers in that row, at every token the same place."),
    ("Norm", "Divides the stream by its size in front of a block, so that blocks read directions."),
    (
        "Logits",
        "One number for each word of the vocabulary; the softmax of them is the prediction.",
    ),
    (
        "KV cache",
        "What attention remembers of earlier tokens; a removed attention block needs none of it.",
    ),
    (
        "Chat template",
        "The marks around a question with which an instructed model was trained.",
    ),
)
SCORES: Words = (
    (
        "Perplexity",
        "How many next tokens the model hesitates between, on average: lower is better, and the "
        "rise against the whole model is the damage.",
    ),
    (
        "Nat",
        "The unit of the loss, whose exponential is perplexity: 0.01 nats are 1 % of perplexity.",
    ),
    (
        "Calibration set",
        "The text on which blocks are scored, sets are searched and repairs are fitted. The "
        "scoreboard measures perplexity on other text.",
    ),
    (
        "Held-out text",
        "Windows that nothing was fitted on. Only they show whether a fit has learnt the text by "
        "heart.",
    ),
    ("Window", "A stretch of text of fixed length; a mean and its error are taken over windows."),
    (
        "Metric",
        "A way to foretell which blocks can go. Low always means removable here.",
    ),
    ("Pass, sweep", "A pass reads the text once; a sweep reads it once more for every block."),
    ("Rank", "The order of removal under one metric: 1 goes first."),
    (
        "Could be 5–17",
        "The ranks that the text leaves open: blocks whose difference, window by window, may be "
        "chance (95 %, each pair by itself) are not told apart.",
    ),
    (
        "Block influence",
        "How far a block turns the direction of the stream; a block that hardly turns it is a "
        "candidate for removal.",
    ),
    (
        "Kendall tau-b",
        "How alike two orders are: 1 = the same, 0 = unrelated, −1 = reversed. It counts the "
        "pairs that both orders agree on.",
    ),
    (
        "Early exit",
        "What the vocabulary head would say of the stream before the last block: the model stopped "
        "half-way.",
    ),
    ("CKA", "Whether two places of the model find the same tokens alike; 1 = exactly the same."),
    (
        "Stand-ins",
        "Two blocks that do each other's work: removing both costs more than the sum of each.",
    ),
)
SEARCH: Words = (
    ("Plan", "The set of removed blocks, in the order in which they went."),
    ("Objective", "The number that a search keeps low while it removes blocks."),
    (
        "Greedy, one shot",
        "Greedy looks at every remaining block before each removal; one shot trusts the first "
        "look.",
    ),
    (
        "Beam, swap",
        "A beam follows several sets at once; a swap exchanges a removed block for a kept one.",
    ),
    (
        "Racing",
        "Candidates are measured on a little text first; those that are clearly behind are dropped "
        "before the rest is read.",
    ),
    (
        "Published recipe",
        "A paper's metric, search, protected layers and repair, set together under its name.",
    ),
)
REPAIR: Words = (
    (
        "Gap",
        "Removed blocks in a row. Behind it the stream is not what the next block was trained on.",
    ),
    (
        "Repair, correction",
        "A change behind a gap, or of surviving weights, that brings the stream nearer to what it "
        "was. No block comes back.",
    ),
    (
        "Gap closed",
        "The share of the rise in log-perplexity that a correction takes back; below 0 it does "
        "harm.",
    ),
    ("Surviving block", "One that is kept. Its last matrix, the writer, can take up a repair."),
    ("Affine correction", "The stream times a scale or a matrix, plus a constant."),
    (
        "Least squares, ridge",
        "The map with the smallest square error; the ridge draws it towards no change, so that it "
        "learns less of what is chance.",
    ),
    (
        "Anchored position",
        "The first token of a window: its stream is often many times larger. It is fitted, "
        "but does not set the scale.",
    ),
    (
        "Left unexplained",
        "How far the stream behind a gap still is from the whole model's, as a share of what that "
        "varies: 0 is perfect, 1 no better than its mean.",
    ),
    (
        "Correlation of a channel",
        "How well the channel without the removed blocks still follows what it was with them.",
    ),
    (
        "Fold",
        "To put a repair into weights that are there already, so that the file stores nothing "
        "more.",
    ),
    (
        "Stock export",
        "A checkpoint of the original architecture, which other software opens as it is.",
    ),
    (
        "Custom export",
        "A checkpoint with a modelling file of its own; software that runs no foreign code does "
        "not open it.",
    ),
    (
        "Recipe",
        "A file with all that is needed to repeat a run: model, text, seed, blocks and repair.",
    ),
)
CAVEATS: Words = (
    (
        "Small samples",
        "On a few thousand tokens, blocks in the middle of the ranking are nearly tied: another "
        "seed or text reorders them.",
    ),
    (
        "One number",
        "A low score, or a low rise in perplexity, does not promise that facts, arithmetic or long "
        "texts survive: it is not safe for every task.",
    ),
    (
        "One at a time",
        "Scores speak of single cuts. Two harmless blocks can be harmful together, so watch the "
        "scoreboard as you cut.",
    ),
    (
        "The ends",
        "The first and last blocks usually matter most, whatever a cheap metric says of them: "
        "protect them until you have measured.",
    ),
    (
        "The text that was fitted",
        "A repair is best on the kind of text it was fitted on. Measure it on what you will use.",
    ),
)
# (title, what it is about, entries), in the order in which they stand.
SECTIONS: tuple[tuple[str, str, Words], ...] = (
    ("Before you believe a number", "Five ways in which a good-looking cut misleads.", CAVEATS),
    ("The model", "What is being cut.", MODEL),
    ("Scores", "How blocks are judged.", SCORES),
    ("Search", "How sets are found.", SEARCH),
    ("Repair and export", "What becomes of the rest.", REPAIR),
)
