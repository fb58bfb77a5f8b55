"""Whether a model's blocks are what they are taken for, tried out on random tokens at load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from blockviz.errors import UnsupportedModel
from blockviz.models.model import BlockModel, unwrap
from blockviz.models.overflow import is_finite, overflow
from blockviz.models.stage import Head, Stage
from blockviz.types import BlockId, CalibrationBatch

# What a layer of another make answers with when it is called or read like a plain one.
_MISFITS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def prove(model: BlockModel, *, seed: int = 0) -> None:
    """Returns if the blocks are what they are taken for; UnsupportedModel otherwise, or BadInput
    where the model's numbers are not finite in its dtype.

    Each within the dtype's tolerance: a layer gives its input + attention update + MLP update; the
    MLP reads the stream it is said to read; a layer without both its blocks returns its input
    unchanged; running layer by layer with our own head gives the library's logits.
    """
    generator = torch.Generator().manual_seed(seed)
    n = min(8, model.info.max_seq_len)
    ids = torch.randint(model.info.vocab_size, (1, n), generator=generator)
    batch = CalibrationBatch(ids, torch.ones_like(ids, dtype=torch.bool))
    try:
        if not is_finite(model.logits(batch)):
            raise overflow(model, "on the first tokens that it read")
        _prove_sums(model, batch)
        _prove_absence(model, batch)
        _prove_stage(model, batch)
    except torch.OutOfMemoryError:
        raise
    except _MISFITS as error:
        found = "A layer cannot be run without its blocks, or on its own, like a plain one."
        raise _refusal(model, found) from error


def _prove_sums(model: BlockModel, batch: CalibrationBatch) -> None:
    befores: dict[int, torch.Tensor] = {}
    sums: dict[int, torch.Tensor] = {}
    read: dict[int, torch.Tensor] = {}
    outputs: dict[int, torch.Tensor] = {}

    def note(block: BlockId, before: torch.Tensor, update: torch.Tensor) -> None:
        if block.part == "mlp":
            befores[block.layer] = before
        elif block.part == "layer":
            sums[block.layer] = before.float() + update.float()

    reader = model.family.reads("mlp") or model.family.mlp
    norms = [layer.get_submodule(reader) for layer in model.layers]
    with _outputs(model, outputs), model.watch(note):
        handles = [
            norm.register_forward_pre_hook(lambda _m, args, i=i: read.__setitem__(i, args[0]))
            for i, norm in enumerate(norms)
        ]
        try:
            model.logits(batch)
        finally:
            for handle in handles:
                handle.remove()
    for i, output in outputs.items():
        error = _distance(sums[i], output)
        if not error <= _tolerance(model):
            raise _refusal(
                model,
                f"Layer {i} misses its residual sum by {error:.1e}: it is not input + attention "
                "+ MLP.",
            )
        if not _distance(befores[i], read[i]) <= _tolerance(model):
            raise _refusal(model, f"The MLP of layer {i} does not read input + attention.")


def _prove_absence(model: BlockModel, batch: CalibrationBatch) -> None:
    outputs: dict[int, torch.Tensor] = {}
    everything = [BlockId(i, "layer") for i in range(len(model.layers))]
    with _outputs(model, outputs), model.masked(everything):
        model.logits(batch)
    for i in range(1, len(outputs)):
        if not torch.equal(outputs[i], outputs[0]):
            raise _refusal(model, f"Layer {i} changes the stream with both its blocks off.")


def _prove_stage(model: BlockModel, batch: CalibrationBatch) -> None:
    stage, head = Stage(model, batch), Head(model)
    own = head.logits(head.hidden(stage.run(stage.stream, 0, ())))
    error = _distance(own, model.logits(batch).flatten(0, 1))
    if not error <= _tolerance(model):
        raise _refusal(
            model,
            f"Its layers, final norm and vocabulary projection alone miss its logits by {error:.1e}"
            ": it does more than that to a text.",
        )


@contextmanager
def _outputs(model: BlockModel, into: dict[int, torch.Tensor]) -> Iterator[None]:
    """Inside, every layer's output is kept in `into`."""

    def keep(index: int) -> Callable[..., None]:
        return lambda _m, _a, output: into.__setitem__(index, unwrap(output).float())

    handles = [m.register_forward_hook(keep(i)) for i, m in enumerate(model.layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    gap = (found.float() - expected.float()).abs().max()
    return float(gap / expected.float().abs().max().clamp_min(1e-12))


def _tolerance(model: BlockModel) -> float:
    return min(64 * torch.finfo(model.dtype).eps, 0.05)


def _refusal(model: BlockModel, found: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"The blocks of {model.info.name} were to be told apart.",
        found,
        "Use a model whose layers are plain residual blocks; blockviz info --families lists the "
        "proven ones.",
    )
