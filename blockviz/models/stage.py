"""Running a model block by block from any point of the residual stream (the prefix is reused).

Masking block b leaves the stream in front of b unchanged, so a stage holds what
every layer is called with for one batch, and runs any stretch of layers from a kept stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from blockviz.models.absence import replaced
from blockviz.models.model import BlockModel, unwrap
from blockviz.types import BlockId, CalibrationBatch


class Stage:
    """One batch made ready: the embedded stream and each layer's other inputs.

    `stream`: (batch, seq, hidden) in front of layer 0, in the model's dtype.
    """

    def __init__(self, model: BlockModel, batch: CalibrationBatch) -> None:
        self.model = model
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def recorder(*args: Any, **kwargs: Any) -> Any:
            hidden = args[0] if args else kwargs.pop("hidden_states")
            if not self._calls:
                self.stream = hidden
            self._calls.append((args[1:], kwargs))
            return (hidden, None) if model.family.returns_tuple else hidden

        mask = batch.attention_mask
        padded = None if bool(mask.all()) else mask.to(model.device)
        with replaced((layer, recorder) for layer in model.layers), torch.inference_mode():
            ids = batch.input_ids.to(model.device)
            model.module.base_model(input_ids=ids, attention_mask=padded, use_cache=False)

    @torch.inference_mode()
    def layer(self, index: int, stream: torch.Tensor) -> torch.Tensor:
        """The stream behind layer `index`, given the one in front of it."""
        args, kwargs = self._calls[index]
        return unwrap(self.model.layers[index](stream, *args, **kwargs))

    def run(
        self,
        stream: torch.Tensor,
        start: int,
        removed: Iterable[BlockId],
        *,
        stop: int | None = None,
    ) -> torch.Tensor:
        """The stream in front of layer `stop` (or behind the last), from that in front of `start`.

        No mask outlives the call, so another plan may run on the same model in between.
        """
        removed = {part for b in removed for part in b.parts}
        stop = len(self._calls) if stop is None else stop
        with self.model.masked(b for b in removed if start <= b.layer < stop):
            for index in range(start, stop):
                if not removed.issuperset(BlockId(index, "layer").parts):
                    stream = self.layer(index, stream)
        return stream

    def streams(self, removed: Iterable[BlockId] = (), *, every: int = 1) -> list[torch.Tensor]:
        """The stream in front of layers 0, every, 2*every, ...; then the one behind the last."""
        removed = frozenset(part for b in removed for part in b.parts)
        stream, kept = self.stream, []
        with self.model.masked(removed):
            for index in range(len(self._calls)):
                if index % every == 0:
                    kept.append(stream)
                if not removed.issuperset(BlockId(index, "layer").parts):
                    stream = self.layer(index, stream)
        return [*kept, stream]


# On a CPU a metric passes over its logits several times: a piece should stay in the cache. The
# product that makes the logits wants more rows, so pieces are cut from its chunks.
PIECE_BYTES = 6 << 20


def piece_rows(vocab: int, device: torch.device) -> int:
    """How many rows of logits to read at a time."""
    return max(8, PIECE_BYTES // (4 * vocab)) if device.type == "cpu" else 1 << 20


class Head:
    """Final norm and vocabulary projection, in chunks: no (batch, seq, vocab) tensor is made."""

    def __init__(self, model: BlockModel, *, chunk_bytes: int = 48 << 20) -> None:
        self._norm = model.final_norm
        self._out = model.module.get_output_embeddings()
        self._project = projection(self._out)
        self._config = model.module.config
        vocab, itemsize = self._out.weight.shape[0], 4
        self.chunk_rows = max(4, chunk_bytes // (vocab * itemsize))
        self.device = self._out.weight.device
        self.piece_rows = piece_rows(vocab, self.device)
        read = min(self.piece_rows, self.chunk_rows) * vocab * 4 * 3
        self.transient_bytes = self.chunk_rows * vocab * self._out.weight.element_size() + read

    @torch.inference_mode()
    def hidden(self, stream: torch.Tensor) -> torch.Tensor:
        """(token, hidden): the normed stream, one row per position."""
        return self._norm(stream).flatten(0, 1)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, vocab) of (rows, hidden), in the model's dtype, as the library computes them."""
        return finished(self._project(hidden), self._config)

    @torch.inference_mode()
    def logits_at(self, hidden: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """(rows, n, K) of (rows, n, hidden): only the K words that (rows, K) names for each row."""
        words = words.long()
        logits = hidden @ self._out.weight[words].transpose(1, 2)
        if self._out.bias is not None:
            logits = logits + self._out.bias[words][:, None]
        return finished(logits, self._config)

    def chunks(self, hidden: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """(rows, logits of these rows) until all rows of (token, hidden) were given."""
        for start in range(0, hidden.shape[0], self.chunk_rows):
            rows = slice(start, min(start + self.chunk_rows, hidden.shape[0]))
            yield rows, self.logits(hidden[rows])


def finished(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What the library makes of the products with the vocabulary, which most families leave."""
    scaling = getattr(config, "logits_scaling", None)
    cap = getattr(config, "final_logit_softcapping", None)
    if scaling is not None:
        logits = logits / scaling
    return logits if cap is None else torch.tanh(logits / cap) * cap


def projection(out: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """What `out` computes, (rows, vocab) of (rows, hidden), by a faster library if there is one.

    torch hands float32 products on a CPU to BLAS; oneDNN, which it uses for bfloat16, took less
    than half the time for this tall product on a processor with AVX-512 (equal to 1e-6).
    """
    weight = out.weight
    is_plain = type(out) is nn.Linear and not hasattr(out, "_hf_hook")
    has_op = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not (is_plain and has_op and weight.dtype == torch.float32 and weight.device.type == "cpu"):
        return out
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda hidden: linear(hidden, weight, out.bias, "none", [], "")
