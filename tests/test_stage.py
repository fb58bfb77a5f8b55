"""A model run from any layer on, and its head in pieces: the same numbers as the whole model."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch

from blockviz.models.model import BlockModel
from blockviz.models.stage import Head, Stage
from blockviz.types import CalibrationBatch

pytestmark = pytest.mark.usefixtures("one_thread")

BATCHES = {"full": tiny.batch(), "padded": tiny.batch(lengths=(20, 13, 5))}
REMOVED = ((), ("0.attn",), ("1.mlp", "2.attn"), ("0.layer", "3.mlp"), ("1.layer", "2.layer"))
removals = pytest.mark.parametrize("names", REMOVED, ids=lambda names: "+".join(names) or "none")

shared = functools.cache(tiny.model)


@pytest.fixture(params=tiny.EVERY)
def model(request: pytest.FixtureRequest) -> BlockModel:
    return shared(request.param)


@pytest.fixture(params=BATCHES)
def batch(request: pytest.FixtureRequest) -> CalibrationBatch:
    return BATCHES[request.param]


def _logits(model: BlockModel, stream: torch.Tensor) -> torch.Tensor:
    head = Head(model)
    return head.logits(head.hidden(stream)).view(*stream.shape[:2], -1)


@removals
def test_from_any_layer_on_it_is_the_masked_model(
    model: BlockModel, batch: CalibrationBatch, names: tuple[str, ...]
):
    """The streams are those of the whole plan; from each of them the plan's rest is run."""
    removed = tiny.ids(*names)
    with model.masked(removed):
        expected = model.logits(batch)
    stage = Stage(model, batch)
    streams = stage.streams(removed)
    assert len(streams) == tiny.LAYERS + 1
    valid = batch.attention_mask
    for start, stream in enumerate(streams):
        found = _logits(model, stage.run(stream, start, removed))
        assert tiny.distance(found[valid], expected[valid]) < 1e-6, start


def test_a_block_behind_a_kept_stream_is_left_out(model: BlockModel, batch: CalibrationBatch):
    """What the prefix reuse rests on: the unpruned stream in front of a block, then no block."""
    stage = Stage(model, batch)
    streams, valid = stage.streams(), batch.attention_mask
    for name in ("0.attn", "1.layer", "2.mlp", "3.attn", "3.layer"):
        removed = tiny.ids(name)
        with model.masked(removed):
            expected = model.logits(batch)
        layer = removed[0].layer
        found = _logits(model, stage.run(streams[layer], layer, removed))
        assert tiny.distance(found[valid], expected[valid]) < 1e-6, name


def test_every_other_stream_and_a_stop_in_between(model: BlockModel):
    stage = Stage(model, BATCHES["full"])
    dense, sparse = stage.streams(), stage.streams(every=2)
    assert all(map(torch.equal, sparse, (dense[0], dense[2], dense[4])))
    assert torch.equal(stage.run(dense[1], 1, (), stop=3), dense[3])
    assert torch.equal(stage.run(dense[1], 1, (), stop=1), dense[1])


def test_the_streams_are_what_the_library_calls_hidden_states(model: BlockModel):
    batch = BATCHES["full"]
    with torch.inference_mode():
        states = model.module(input_ids=batch.input_ids, output_hidden_states=True).hidden_states
    streams = Stage(model, batch).streams()
    assert all(map(torch.equal, streams[:-1], states[:-1]))
    assert torch.equal(Head(model).hidden(streams[-1]), states[-1].flatten(0, 1))


def test_a_chunked_head_gives_the_logits_of_the_whole(model: BlockModel, batch: CalibrationBatch):
    expected = model.logits(batch).flatten(0, 1)
    stage = Stage(model, batch)
    head = Head(model, chunk_bytes=17 * tiny.VOCAB * 4)
    hidden = head.hidden(stage.run(stage.stream, 0, ()))
    chunks = list(head.chunks(hidden))
    assert [(rows.start, rows.stop) for rows, _ in chunks] == [
        (0, 17),
        (17, 34),
        (34, 51),
        (51, 60),
    ]
    valid = batch.attention_mask.flatten()
    found = torch.cat([logits for _, logits in chunks])
    assert tiny.distance(found[valid], expected[valid]) < 1e-6


def test_a_softcapped_head_bends_its_logits():
    """cap * tanh(z / cap) by hand, cap 2: no logit is beyond it, and the plain head's would be."""
    model = shared("gemma3-softcap")
    head, stage = Head(model), Stage(shared("gemma3-softcap"), BATCHES["full"])
    hidden = head.hidden(stage.run(stage.stream, 0, ()))
    plain = hidden @ model.module.lm_head.weight.T
    assert plain.abs().max() > 2
    expected = 2 * torch.tanh(plain / 2)
    assert tiny.distance(head.logits(hidden), expected) < 1e-6


def test_a_pruned_model_has_a_stage_of_its_own(model: BlockModel, batch: CalibrationBatch):
    pruned, valid = model.prune(tiny.plan("0.layer", "2.attn")), batch.attention_mask
    stage = Stage(pruned, batch)
    found = _logits(pruned, stage.run(stage.stream, 0, tiny.ids("0.mlp")))
    with model.masked(tiny.ids("0.layer", "2.attn", "1.mlp")):
        assert tiny.distance(found[valid], model.logits(batch)[valid]) < 1e-6


def test_a_stage_leaves_no_mark_on_the_model(model: BlockModel):
    before = model.logits(BATCHES["full"])
    stage = Stage(model, BATCHES["padded"])
    stage.run(stage.stream, 0, tiny.ids("1.attn"))
    stage.streams(tiny.ids("2.layer"), every=3)
    assert not any("forward" in m.__dict__ for m in model.module.modules())
    assert torch.equal(model.logits(BATCHES["full"]), before)
