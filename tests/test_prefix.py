"""The first tokens of a long text are those of the whole, wherever it is cut, or all is read."""

from __future__ import annotations

import random

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    processors,
    trainers,
)
from tokenizers import pre_tokenizers as splitters
from transformers import PreTrainedTokenizerFast

from blockviz.data import Texts, build, prefix
from blockviz.data.prefix import first_tokens, tokens_of

WORDS = (
    *("the sea at night is dark and cold", "don't", "I'll", "3 1415926", "2,000", "x=y;", "a.b "),
    *("naïve", "café", "e\u0301", "日本語", "\u00b4", "\U0001f600", "\ufb01n", "Σίσυφος", "<pad>"),
    *("<x>", "\n", "\n\n", "\r\n", " ", "  ", "   \n ", "\t", "\u2028", "\u00a0", " \u0301"),
)  # fmt: skip
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDINGS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDINGS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def prose(seed: int, n: int = 6000) -> str:
    """Words, signs, digits, line ends and runs of spaces, in any order."""
    drawn = random.Random(seed)
    return "".join(drawn.choice(WORDS) + drawn.choice(("", " ", " ", " ")) for _ in range(n))


def trained(model: object, trainer: object, *, splitter: object = None, normalizer: object = None):
    inner = Tokenizer(model)
    inner.pre_tokenizer, inner.normalizer = splitter, normalizer or normalizers.Sequence([])
    inner.train_from_iterator([prose(1, 3000)], trainer)
    return inner


def merged(*steps: object) -> Tokenizer:
    """Byte-level BPE behind the splitting steps."""
    alphabet = splitters.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    inner = trained(models.BPE(), trainer, splitter=splitters.Sequence(list(steps)))
    inner.decoder = decoders.ByteLevel()
    return inner


def byte_level(regex: str) -> Tokenizer:
    split = splitters.Split(Regex(regex), "isolated")
    return merged(split, splitters.ByteLevel(add_prefix_space=False, use_regex=False))


def marked() -> Tokenizer:
    """As Llama 2 has it: spaces become marks, and the whole text is one word."""
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False)
    inner = trained(models.BPE(fuse_unk=True, unk_token="?"), trainer,
                    splitter=splitters.Metaspace())  # fmt: skip
    inner.pre_tokenizer = splitters.Sequence([])
    inner.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    return inner


def unigram() -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=150, unk_token="<unk>",
                                      special_tokens=["<unk>"], show_progress=False)  # fmt: skip
    return trained(models.Unigram(), trainer, splitter=splitters.Metaspace(),
                   normalizer=normalizers.NFKC())  # fmt: skip


def wordpiece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"],
                                        show_progress=False)  # fmt: skip
    return trained(models.WordPiece(unk_token="[UNK]"), trainer,
                   splitter=splitters.BertPreTokenizer(),
                   normalizer=normalizers.BertNormalizer())  # fmt: skip


CUT = {
    "gpt2": lambda: merged(splitters.ByteLevel(add_prefix_space=False)),
    "smollm": lambda: merged(splitters.Digits(individual_digits=True),
                             splitters.ByteLevel(add_prefix_space=False)),
    "llama3": lambda: byte_level(LLAMA3),
    "o200k": lambda: byte_level(O200K),
    "llama2": marked,
    "unigram": unigram,
    "wordpiece": wordpiece,
}  # fmt: skip


def superwords() -> Tokenizer:
    """Merges go across spaces."""
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False)
    return trained(models.BPE(), trainer, splitter=splitters.Sequence([]))


# Every text before a full stop is one piece; "ab cd" is, and "ab" alone is two.
WHOLE = {
    "superwords": superwords,
    "unknown pattern": lambda: byte_level(r"\w+ \w+|\w|\s+"),
    "lookahead": lambda: byte_level(r"\w(?=.*x)|\s+"),
    "words of their own end": lambda: Tokenizer(models.BPE({"a": 0, "a</w>": 1}, [],
                                                           end_of_word_suffix="</w>")),
}  # fmt: skip


def wrapped(inner: Tokenizer, *, is_framed: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer with two added tokens; is_framed: BOS in front of a text and EOS behind it."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    tokenizer.add_tokens([AddedToken("<x>", rstrip=True, lstrip=True), AddedToken("<pad>")])
    if is_framed:
        tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
        ids = [("<s>", tokenizer.bos_token_id), ("</s>", tokenizer.eos_token_id)]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=ids
        )
    return tokenizer


class Counting:
    """A tokenizer that notes how many characters it is given."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer, self.n_chars = tokenizer, 0

    def __call__(self, text: str, **how: object):
        self.n_chars += len(text)
        return self._tokenizer(text, **how)

    def __getattr__(self, name: str):
        return getattr(self._tokenizer, name)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch):
    """Cuts lie anywhere, not only behind the first sixteen thousand characters."""
    monkeypatch.setattr(prefix, "LEAST_CHARS", 20)
    monkeypatch.setattr(prefix, "CHARS_PER_TOKEN", 1)


@pytest.mark.parametrize("is_framed", [False, True], ids=["bare", "framed"])
@pytest.mark.parametrize("name", CUT)
def test_the_first_tokens_are_those_of_the_whole_text(name, is_framed):
    """Random texts and random numbers of tokens, so that the cuts lie at random places."""
    tokenizer = Counting(wrapped(CUT[name](), is_framed=is_framed))
    drawn, n_read, n_all = random.Random(2), 0, 0
    for seed in range(10, 16):
        text = prose(seed, 1500)
        whole = tokens_of(tokenizer, text)
        for n in (1, 2, 3, *drawn.sample(range(4, len(whole) // 4), 12)):
            tokenizer.n_chars = 0
            found = first_tokens(tokenizer, text, n)
            assert len(found) >= n and found == whole[: len(found)]
            n_read, n_all = n_read + tokenizer.n_chars, n_all + len(text)
    assert n_read < 0.8 * n_all


@pytest.mark.parametrize("name", WHOLE)
def test_a_tokenizer_that_cannot_be_cut_reads_all(name):
    text = "aba ab cd x. " * 200
    tokenizer = Counting(wrapped(WHOLE[name]()))
    assert first_tokens(tokenizer, text, 5) == tokens_of(tokenizer, text)


def test_an_added_token_with_a_space_in_it_cannot_be_cut():
    tokenizer = wrapped(CUT["gpt2"]())
    tokenizer.add_tokens(["a b"])
    text = "a b" * 300
    assert first_tokens(tokenizer, text, 5) == tokens_of(tokenizer, text)


def test_a_text_without_a_cut_is_read_on_to_its_end():
    tokenizer, text = wrapped(CUT["gpt2"]()), "日本語。" * 300
    assert first_tokens(tokenizer, text, 5) == tokens_of(tokenizer, text)


@pytest.mark.parametrize("mode", ["stream", "per_sample"])
def test_windows_of_a_long_text_are_those_of_a_short_one(mode):
    """A million characters for 80 tokens: what is read does not grow with the text."""
    tokenizer = Counting(wrapped(CUT["gpt2"](), is_framed=True))
    text = prose(3, 4000)
    n, how = (5 if mode == "stream" else 1), {"seq_len": 16, "mode": mode}
    short = build(Texts((text,), "toy", "all"), tokenizer, n_samples=n, **how)
    tokenizer.n_chars = 0
    long = build(Texts((text + " " + text * 60,), "toy", "all"), tokenizer, n_samples=n, **how)
    assert tokenizer.n_chars < 5000
    assert long.origin == short.origin


def test_shuffled_windows_are_drawn_from_the_whole_text():
    tokenizer = Counting(wrapped(CUT["gpt2"]()))
    text = prose(4, 2000)
    build(Texts((text,), "toy", "all"), tokenizer, n_samples=2, seq_len=16, is_shuffled=True)
    assert tokenizer.n_chars == len(text)
