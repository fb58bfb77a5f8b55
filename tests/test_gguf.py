"""GGUF files: the header, damage, and a conversion compared with the numbers that went in."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from blockviz.errors import UnsupportedModel
from blockviz.models.gguf import convert, gguf_quantisation
from blockviz.models.gguf_header import read_header
from blockviz.types import Done, Progress, run

HIDDEN, HEADS, KV_HEADS, MLP, LAYERS = 32, 4, 2, 64, 2
HEAD_DIM = HIDDEN // HEADS
TEMPLATE = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"


def vocabulary() -> list[str]:
    """The 256 byte letters of byte-level BPE, then an end mark, then one merged pair."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = [chr(byte) for byte in visible] + [chr(256 + i) for i in range(len(hidden))]
    return [*letters, "<|end|>", "th"]


def q4_1(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bytes (rows, blocks * 20) uint8, the values they stand for), written from the definition.

    32 values v of a row share a scale d and a minimum m, both float16; v is d * q + m with q in
    0..15; byte i of the 16 holds value i in its low half and value i + 16 in its high half.
    """
    blocks = values.reshape(values.shape[0], -1, 32)
    low = blocks.min(axis=-1, keepdims=True)
    scale = ((blocks.max(axis=-1, keepdims=True) - low) / 15).astype(np.float16)
    low = low.astype(np.float16)
    q = np.clip(np.rint((blocks - low) / scale), 0, 15).astype(np.uint8)
    packed = q[..., :16] | (q[..., 16:] << 4)
    raw = np.concatenate([scale.view(np.uint8), low.view(np.uint8), packed], axis=-1)
    meant = scale.astype(np.float32) * q + low.astype(np.float32)
    return raw.reshape(values.shape[0], -1), meant.reshape(values.shape)


def rotary_halves(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """A query or key weight in transformers' order: GGUF pairs rows (0, 1), it pairs (0, half)."""
    rows = [
        head * HEAD_DIM + pair * 2 + side
        for head in range(n_heads)
        for side in (0, 1)
        for pair in range(HEAD_DIM // 2)
    ]
    return weight[rows]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    """(a GGUF file of a llama of two layers, the weights it holds by transformers' names)."""
    import gguf

    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    tokens = vocabulary()
    _write_metadata(writer, tokens)
    rng = np.random.default_rng(0)
    expected = {}

    def add(theirs: str, ours: str, shape: tuple[int, ...], n_heads: int = 0) -> None:
        values = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 2:
            raw, values = q4_1(values)
            writer.add_tensor(theirs, raw, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        else:
            writer.add_tensor(theirs, values)
        expected[ours] = rotary_halves(values, n_heads) if n_heads else values

    add("token_embd.weight", "model.embed_tokens.weight", (len(tokens), HIDDEN))
    add("output_norm.weight", "model.norm.weight", (HIDDEN,))
    for i in range(LAYERS):
        kv, layer = KV_HEADS * HEAD_DIM, f"model.layers.{i}."
        add(f"blk.{i}.attn_norm.weight", layer + "input_layernorm.weight", (HIDDEN,))
        add(f"blk.{i}.attn_q.weight", layer + "self_attn.q_proj.weight", (HIDDEN, HIDDEN), HEADS)
        add(f"blk.{i}.attn_k.weight", layer + "self_attn.k_proj.weight", (kv, HIDDEN), KV_HEADS)
        add(f"blk.{i}.attn_v.weight", layer + "self_attn.v_proj.weight", (kv, HIDDEN))
        add(f"blk.{i}.attn_output.weight", layer + "self_attn.o_proj.weight", (HIDDEN, HIDDEN))
        add(f"blk.{i}.ffn_norm.weight", layer + "post_attention_layernorm.weight", (HIDDEN,))
        add(f"blk.{i}.ffn_gate.weight", layer + "mlp.gate_proj.weight", (MLP, HIDDEN))
        add(f"blk.{i}.ffn_up.weight", layer + "mlp.up_proj.weight", (MLP, HIDDEN))
        add(f"blk.{i}.ffn_down.weight", layer + "mlp.down_proj.weight", (HIDDEN, MLP))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, expected


def _write_metadata(writer, tokens: list[str]) -> None:
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_file_type(3)  # mostly Q4_1
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token == "<|end|>" else 1 for token in tokens])
    writer.add_token_merges(["t h"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(tokens.index("<|end|>"))
    writer.add_chat_template(TEMPLATE)


def refusal(path: Path, tmp_path: Path) -> UnsupportedModel:
    with pytest.raises(UnsupportedModel) as caught:
        run(convert(path, tmp_path / "out"))
    error = caught.value
    assert path.name in error.asked and str(path.parent) not in str(error) and error.todo
    assert not (tmp_path / "out").exists()
    return error


def test_the_header_says_what_the_file_is(tiny):
    path, expected = tiny
    header = read_header(path)
    assert header.entries["general.architecture"] == "llama"
    assert header.entries["llama.block_count"] == LAYERS
    assert header.n_tensors == len(expected)
    assert header.n_bytes <= path.stat().st_size
    assert header.n_weights == sum(values.size for values in expected.values())
    assert gguf_quantisation(path) == "Q4_1, dequantised"


def test_a_conversion_gives_the_weights_that_were_packed(tiny, tmp_path):
    from safetensors.numpy import load_file
    from transformers import AutoTokenizer

    path, expected = tiny
    folder = tmp_path / "converted" / "tiny"
    events = list(convert(path, folder))
    assert events[-1] == Done(folder)
    assert all(isinstance(event, Progress) for event in events[:-1]) and len(events) > 1
    found = load_file(folder / "model.safetensors")
    assert set(found) == set(expected)  # the head is tied to the embedding
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-6, err_msg=name)
    config = json.loads((folder / "config.json").read_text())
    assert config["num_hidden_layers"] == LAYERS and "quantization_config" not in config
    assert (folder / "generation_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = vocabulary()
    assert tokenizer("tha")["input_ids"] == [words.index("th"), words.index("a")]
    assert tokenizer.chat_template == TEMPLATE
    assert {p.name for p in folder.parent.iterdir()} == {"tiny", ".tiny.lock"}
    assert list(convert(path, folder)) == [Done(folder)]  # once


def test_closing_a_conversion_leaves_nothing(tiny, tmp_path):
    events = convert(tiny[0], tmp_path / "out")
    assert next(events).note == "Starting"
    events.close()
    assert [p.name for p in tmp_path.iterdir()] == [".out.lock"]


def test_files_that_are_no_gguf(tmp_path):
    for content in (b"", b"GGUF", b"PK\3\4" + bytes(100)):
        path = tmp_path / "bad.gguf"
        path.write_bytes(content)
        assert "not a GGUF file" in refusal(path, tmp_path).found


def test_a_file_that_is_cut_short(tiny, tmp_path):
    whole = tiny[0].read_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(whole[:-100])
    assert f"{len(whole) - 100:,} of at least" in refusal(path, tmp_path).found
    path.write_bytes(whole[:1000])
    assert "damaged or cut short" in refusal(path, tmp_path).found


def test_a_header_with_impossible_numbers(tiny, tmp_path):
    whole = bytearray(tiny[0].read_bytes())
    path = tmp_path / "wrong.gguf"
    for place, value in (
        (4, b"\x63\0\0\0"),
        (8, b"\xff" * 8),
        (16, b"\xff" * 8),
        (24, b"\xff" * 8),
    ):
        broken = bytearray(whole)
        broken[place : place + len(value)] = value
        path.write_bytes(broken)
        assert "damaged or cut short" in refusal(path, tmp_path).found


def written(path: Path, architecture: str = "llama", tensors: int = 1, **entries) -> Path:
    """A GGUF file of a few numbers with these entries in its header."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in entries.items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint16
        add(key if "." in key else key.replace("_", "."), value)
    for i in range(tensors):
        writer.add_tensor(f"x{i}", np.zeros(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    "architecture, entries, found, todo",
    [
        ("llama", {"split_no": 0, "split_count": 3}, "part 1 of 3", "--merge"),
        ("llama", {"llama.block_count": 60_000}, "asks for 60000 layers", "again"),
        ("llama", {"tensors": 0}, "a vocabulary and no tensors", "the model itself"),
        ("llama", {"general_type": "adapter"}, "the kind 'adapter'", "the model itself"),
        ("clip", {}, "reads pictures or sound", "the language model"),
        ("llama", {"general_type": "mmproj"}, "reads pictures or sound", "the language model"),
    ],
)
def test_files_that_hold_no_whole_model(tmp_path, architecture, entries, found, todo):
    error = refusal(written(tmp_path / "a.gguf", architecture, **entries), tmp_path)
    assert found in error.found and todo in error.todo


def test_a_file_without_some_of_its_tensors_is_refused_by_their_names(tiny, tmp_path):
    """One tensor is renamed: the file has as many, and lacks one of the model's."""
    content, name = tiny[0].read_bytes(), b"blk.1.ffn_up.weight"
    assert content.count(name) == 1
    path = tmp_path / "lacking.gguf"
    path.write_bytes(content.replace(name, b"blk.1.ffn_xx.weight"))
    error = refusal(path, tmp_path)
    assert error.found.startswith("1 tensors of the model are missing, such as model.layers.1.mlp.")
    assert "random numbers" in error.todo


def test_a_converted_model_that_was_changed_is_converted_again(tiny, tmp_path):
    folder = tmp_path / "converted" / "tiny"
    run(convert(tiny[0], folder))
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    assert is_used(tiny[0], folder)
    weights.write_bytes(content[:100])
    assert not is_used(tiny[0], folder)
    weights.write_bytes(content)
    tokenizer = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    assert not is_used(tiny[0], folder)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    weights.write_bytes(content[:-64] + bytes(64))
    run(convert(tiny[0], folder))
    assert weights.read_bytes() == content and is_used(tiny[0], folder)


def is_used(path: Path, folder: Path) -> bool:
    """Whether what was converted before is taken as it is."""
    with contextlib.closing(convert(path, folder)) as events:
        return isinstance(next(events), Done)


def test_what_lies_beside_a_file_is_not_read(tiny, tmp_path):
    beside = tmp_path / "beside"
    beside.mkdir()
    path = beside / "tiny.gguf"
    path.write_bytes(tiny[0].read_bytes())
    own = {"auto_map": {"AutoTokenizer": [None, "tok.Own"]}, "tokenizer_class": "Own"}
    (beside / "tokenizer_config.json").write_text(json.dumps(own))
    (beside / "config.json").write_text("{")
    (beside / "tok.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    assert run(convert(path, tmp_path / "out")) == tmp_path / "out"
    assert not (tmp_path / "ran").exists()


def test_a_tensor_of_a_hundred_thousand_dimensions(tiny, tmp_path):
    content, name = bytearray(tiny[0].read_bytes()), b"token_embd.weight"
    place = content.index(name) + len(name)
    content[place : place + 4] = (100_000).to_bytes(4, "little")
    path = tmp_path / "deep.gguf"
    path.write_bytes(content)
    assert "damaged or cut short" in refusal(path, tmp_path).found


def test_an_architecture_that_cannot_be_unpacked(tmp_path):
    path = written(tmp_path / "new.gguf", "brandnew")
    assert "architecture brandnew cannot be unpacked" in refusal(path, tmp_path).found


def test_escape_codes_of_a_file_do_not_reach_the_terminal(tmp_path, capsys, monkeypatch):
    from blockviz.cli.main import main

    monkeypatch.setenv("BLOCKVIZ_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path / "new.gguf", "brand\x1b]0;gone\x07\x9bnew")
    assert main(["info", "--model", str(path)]) == 2
    said = capsys.readouterr().err
    assert r"brand\x1b]0;gone\x07\x9bnew cannot be unpacked" in said
    assert said.replace("\n", "").isprintable()
