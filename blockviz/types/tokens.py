"""Token ids that a model can read: those that its embedding has a row for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blockviz.errors import BadInput


def check_rows(ids: Iterable[int], n_rows: int, tokenizer: Any, *, asked: str) -> None:
    """Nothing, if all ids are below n_rows; else BadInput with the token's name and id.

    Tokenizers often know tokens that were added behind a model's training, such as a padding token,
    and for which its embedding was never given a row.
    """
    beyond = next((int(i) for i in ids if i >= n_rows), None)
    if beyond is None:
        return
    raise BadInput(
        asked,
        f"It holds the token {tokenizer.convert_ids_to_tokens(beyond)!r} (id {beyond}), and the "
        f"model's embedding has rows for ids 0 to {n_rows - 1}.",
        "Take that token out of the text, or put the tokenizer that the model was trained with "
        "beside it.",
    )
