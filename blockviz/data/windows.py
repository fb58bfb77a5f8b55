"""Texts to token windows: one stream cut into windows, or one text a row."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch

from blockviz.data.prefix import first_tokens, tokens_of
from blockviz.data.records import Role, Texts
from blockviz.errors import BadCalibration, BadInput
from blockviz.types import CalibrationSet, DataOrigin, check_rows

Mode = Literal["stream", "per_sample"]
MODES: tuple[Mode, ...] = ("stream", "per_sample")
_BLANK_LINE = "\n\n"


def build(
    texts: Texts,
    tokenizer: Callable[..., Any],
    *,
    mode: Mode = "stream",
    n_samples: int = 32,
    seq_len: int = 128,
    seed: int = 42,
    is_shuffled: bool = False,
    role: Role = "calibration",
    max_seq_len: int | None = None,
    n_rows: int | None = None,
) -> CalibrationSet:
    """The CalibrationSet of `texts`.

    `stream`: all texts joined with a blank line, one tokenizer call with its defaults, cut into
    windows of seq_len tokens, the tail dropped, the first n_samples taken; a long text is read only
    as far as that call's tokens are needed. `per_sample`: the first n_samples texts that are not
    blank, each cut to seq_len tokens, right-padded to the longest and masked. `is_shuffled` takes
    windows or texts in an order drawn with `seed` instead. n_rows: of the model's embedding;
    BadInput where a window holds a token that has no row there.
    """
    _check(mode, n_samples, seq_len, max_seq_len)
    if abs(seed) >= 2**63:
        raise BadInput(
            f"The seed {str(seed)[:40]} was asked for.",
            "A seed has no more than 63 bits.",
            "Take a smaller one, such as 42.",
        )
    generator = torch.Generator().manual_seed(seed) if is_shuffled else None
    if mode == "stream":
        ids, mask = _stream(texts, tokenizer, n_samples, seq_len, generator)
    else:
        ids, mask = _per_sample(texts, tokenizer, n_samples, seq_len, generator, n_rows)
    if n_rows is not None:
        asked = f"The text {texts.dataset} was to be read."
        check_rows(ids[mask].tolist(), n_rows, tokenizer, asked=asked)
    origin = DataOrigin(
        dataset=texts.dataset,
        split=texts.split,
        mode=mode,
        n_samples=n_samples,
        seq_len=seq_len,
        n_tokens=int(mask.sum()),
        seed=seed,
        token_hash=token_hash(ids, mask),
        role=role,
    )
    return CalibrationSet(ids, mask, origin)


def token_hash(ids: torch.Tensor, mask: torch.Tensor) -> str:
    """sha256 over ids (n_samples, seq) int64 and mask (same) bool, as little-endian bytes."""
    digest = hashlib.sha256(ids.contiguous().numpy().astype("<i8").tobytes())
    digest.update(mask.contiguous().numpy().tobytes())
    return digest.hexdigest()


def part_of(windows: CalibrationSet, first: int, last: int, *, role: Role) -> CalibrationSet:
    """Windows first to last - 1 for a role of their own, with an origin that says so."""
    ids, mask = windows.input_ids[first:last], windows.attention_mask[first:last]
    origin = replace(
        windows.origin,
        split=f"{windows.origin.split}, from window {first}" if first else windows.origin.split,
        n_samples=len(ids),
        n_tokens=int(mask.sum()),
        token_hash=token_hash(ids, mask),
        role=role,
    )
    return CalibrationSet(ids, mask, origin)


def _check(mode: str, n_samples: int, seq_len: int, max_seq_len: int | None) -> None:
    if mode not in MODES:
        raise BadInput(
            f"The calibration mode {mode!r} was asked for.", "No such mode.", f"Use {MODES}."
        )
    for name, value, least in (("n_samples", n_samples, 1), ("seq_len", seq_len, 2)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(
                f"{name} {value!r} was asked for.",
                f"It must be a whole number, {least} or more.",
                f"Set {name} to {least} or more.",
            )
    if max_seq_len is not None and seq_len > max_seq_len:
        raise BadInput(
            f"Windows of {seq_len} tokens were asked for.",
            f"The model's context holds {max_seq_len}.",
            f"Lower seq_len to {max_seq_len} or less.",
        )


def _stream(
    texts: Texts,
    tokenizer: Callable[..., Any],
    n_samples: int,
    seq_len: int,
    generator: torch.Generator | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    text = _BLANK_LINE.join(texts.texts)
    if generator is None:
        ids = first_tokens(tokenizer, text, n_samples * seq_len)
    else:
        ids = tokens_of(tokenizer, text)
    n_windows = len(ids) // seq_len
    if n_windows < n_samples:
        _refuse_short(n_samples, seq_len, n_windows, len(ids) // n_samples)
    if generator is None:
        chosen = range(n_samples)
    else:
        chosen = torch.randperm(n_windows, generator=generator)[:n_samples].tolist()
    rows = [ids[i * seq_len : (i + 1) * seq_len] for i in chosen]
    windows = torch.tensor(rows, dtype=torch.int64)  # (n_samples, seq)
    return windows, torch.ones_like(windows, dtype=torch.bool)


def _refuse_short(n_samples: int, seq_len: int, n_windows: int, fitting: int) -> None:
    ways = [f"n_samples to {n_windows}"] if n_windows else []
    ways += [f"seq_len to {fitting}"] if fitting >= 2 else []
    raise BadCalibration(
        f"{n_samples} samples of {seq_len} tokens asked,",
        f"the text gives {n_windows}:",
        f"lower {' or '.join(ways)}." if ways else "use a longer text.",
    )


def _per_sample(
    texts: Texts,
    tokenizer: Callable[..., Any],
    n_samples: int,
    seq_len: int,
    generator: torch.Generator | None,
    n_rows: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A row of one token predicts nothing, so it is left out like a blank text."""
    candidates = [text for text in texts.texts if text.strip()]
    if generator is not None:
        order = torch.randperm(len(candidates), generator=generator).tolist()
        candidates = [candidates[i] for i in order]
    rows: list[list[int]] = []
    for text in candidates:
        ids = first_tokens(tokenizer, text, seq_len)[:seq_len]
        if len(ids) > 1:
            rows.append(ids)
        if len(rows) == n_samples:
            break
    if len(rows) < n_samples:
        _refuse_few(n_samples, len(rows))
    longest = max(map(len, rows))
    ids = torch.full((n_samples, longest), _pad_id(tokenizer, n_rows), dtype=torch.int64)
    mask = torch.zeros((n_samples, longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = True
    return ids, mask


def _refuse_few(n_samples: int, n_rows: int) -> None:
    todo = f"lower n_samples to {n_rows} or use stream mode." if n_rows else "use stream mode."
    raise BadCalibration(
        f"{n_samples} samples of one text each asked,",
        f"the source holds {n_rows} texts of two or more tokens:",
        todo,
    )


def _pad_id(tokenizer: Any, n_rows: int | None) -> int:
    """An id that has a row, for masked places; pad id 0 is a pad id like any other."""
    for name in ("pad_token_id", "eos_token_id"):
        value = getattr(tokenizer, name, None)
        if isinstance(value, int) and (n_rows is None or 0 <= value < n_rows):
            return value
    return 0
