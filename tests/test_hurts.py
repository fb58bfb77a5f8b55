"""Which words a cut costs: kinds of words, means by hand, pieces of text, and the figure."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
from fake_compare import make_comparison
from fake_engine import make_info
from test_figures import NASTY, texts_of

from blockviz.data import pieces_of
from blockviz.plots import WORD_CLASSES, can_draw_hurts, hurts_card, word_classes
from blockviz.plots.hurts import ALL, mean_rise
from blockviz.session.compare_views import CompareRequest
from blockviz.session.repair_views import RepairRequest
from blockviz.types import BlockId, PruningPlan

REQUEST = CompareRequest(
    RepairRequest(PruningPlan((BlockId(1, "attn"),)), ("writer_refit", "asc")), "Hello"
)


@pytest.fixture(autouse=True)
def short_plotly_js(monkeypatch):
    monkeypatch.setattr("blockviz.plots.card.plotly_js", lambda: "/* plotly.js */")


def kinds(*pieces: str) -> list[str]:
    """The classes of each piece without those of frequency, first letters in order."""
    (found,) = word_classes([pieces])
    return ["".join(sorted(k[:2] for k in row - {"frequent", "rare"})) for row in found]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (("The", " sea", " is", " old", "."), ["", "", "", "", "pu"]),
        (("In", " Paris", ",", " I", " ate"), ["", "na", "pu", "", ""]),
        (("It", " ended", ".", " Then", " Ann", " left"), ["", "", "pu", "", "na", ""]),
        (("He", " said", ":", ' "', "Go", "!", '"'), ["", "", "pu", "pu", "", "pu", "pu"]),
        (("A", " Mc", "Don", "ald", " farm"), ["", "na", "na", "na", ""]),
        ((" 1", "870", "s", " or", " 3", ".", "5"), ["nu", "nu", "", "", "nu", "pu", "nu"]),
        ((" ", "\n", "New", " day"), ["", "", "", ""]),
        (("x", "", " don", "'t"), ["", "", "", ""]),
        (("\u00e9t\u00e9", " \u00c9mile", " \u2014", " \u5317\u4eac"), ["", "na", "pu", ""]),
        ((), []),
    ],
)  # fmt: skip
def test_kinds_of_words_by_hand(pieces, expected):
    assert kinds(*pieces) == expected


def test_frequent_and_rare_by_hand():
    """The 8 words: the 4 times, sea 2, cat 1, dog 1. `the` alone makes up half of them."""
    (first,), (rest,) = (
        word_classes([("the", " sea", " the", " cat")]),
        word_classes([("the", " the", " sea", " the", " sea", " the", " cat", " dog", "!")]),
    )
    assert [sorted(row) for row in rest] == [
        ["frequent"], ["frequent"], [], ["frequent"], [], ["frequent"], ["rare"], ["rare"],
        ["punctuation"],
    ]  # fmt: skip
    assert "rare" in first[1]
    # What is rare is told over all windows.
    both = word_classes([("the", " cat"), ("a", " cat")])
    assert both[0][1] == both[1][1] and "rare" not in both[0][1]


def test_means_and_their_error_by_hand():
    """Windows of sums 3 over 2 words and 1 over 2: mean 1, and the sums lie 1 above and below what
    two words of the mean give, so the error is sqrt((1 + 1) * 2 / 1) / 4."""
    classes = ((frozenset(), frozenset({"rare"}), frozenset()),) * 2
    found = mean_rise(((1.0, 2.0), (1.0, 0.0)), classes, ALL)
    assert found == pytest.approx((4, 1.0, 0.5))
    assert mean_rise(((1.0, 2.0), (3.0, 0.0)), classes, "rare") == pytest.approx((2, 2.0, 1.0))
    assert mean_rise(((1.0, 2.0),), classes[:1], ALL) == pytest.approx((2, 1.5, 0.0))
    assert mean_rise(((1.0, 2.0), (1.0, 0.0)), classes, "name") is None


@pytest.mark.parametrize(
    "text",
    [
        "The sea, the sea.",
        "\u65e5\u672c\u8a9e and na\u00efve caf\u00e9s",
        "\U0001f600 ok \U0001f9d1\u200d\U0001f680",
        "a\n\n  b\t",
    ],
)
def test_pieces_put_together_are_the_text(text):
    """A tokenizer of bytes: every character but ASCII takes several tokens."""

    class Bytes:
        def decode(self, ids, **_):
            return bytes(ids).decode("utf-8", errors="replace")

    ids = list(text.encode())
    pieces = pieces_of(Bytes(), ids)
    assert "".join(pieces) == text and len(pieces) == len(ids)
    assert "\ufffd" not in "".join(pieces)


def test_bytes_that_never_make_a_character_are_not_waited_for():
    class Broken:
        def decode(self, ids, **_):
            return bytes(ids).decode("utf-8", errors="replace")

    pieces = pieces_of(Broken(), [0xFF, *b"abc", 0xC3])
    assert len(pieces) == 5 and pieces[-1] == "\ufffd" and "abc" in "".join(pieces)


def test_pieces_of_the_tiny_tokenizer_are_its_words():
    model = tiny.model("llama")
    ids = model.tokenizer("w3 w17 w40")["input_ids"]
    assert "".join(pieces_of(model.tokenizer, ids)) == model.tokenizer.decode(ids)


def test_dots_are_the_means_of_their_kind():
    comparison = make_comparison(make_info(4), REQUEST)
    card, classes = hurts_card(comparison), word_classes(comparison.pieces)
    names = (ALL, *WORD_CLASSES)
    variants = [c for c in comparison.columns if c.label != "original"]
    assert len(card.figure.data) == len(variants)
    for trace, column in zip(card.figure.data, variants, strict=True):
        rises = comparison.token_rises(column)
        expected = [mean_rise(rises, classes, name) for name in names]
        assert list(trace.x) == pytest.approx([e[1] for e in expected])
        assert list(trace.error_x.array) == pytest.approx([1.96 * e[2] for e in expected])
    assert len({trace.marker.symbol for trace in card.figure.data}) == 3
    assert [row[1] for row in card.rows[: len(names)]] == list(names)
    assert "8176 tokens predicted" in card.provenance_note


def test_the_figure_waits_for_losses_of_tokens():
    whole = make_comparison(make_info(4), REQUEST)
    assert can_draw_hurts(whole)
    assert not can_draw_hurts(make_comparison(make_info(4), REQUEST, n_columns=1))
    bare = replace(whole, columns=tuple(replace(c, token_nll=()) for c in whole.columns))
    assert not can_draw_hurts(bare)
    with pytest.raises(ValueError, match="losses of tokens"):
        hurts_card(bare)


@pytest.mark.parametrize("nasty", NASTY)
def test_foreign_names_are_neutral_in_the_figure(nasty):
    comparison = make_comparison(make_info(4), REQUEST, dataset=nasty)
    columns = tuple(replace(c, title=nasty) for c in comparison.columns)
    card = hurts_card(replace(comparison, columns=columns))
    assert not any("<img" in text or "<script" in text for text in texts_of(card.figure))
