"""Model folders as people have them: code beside the weights, odd configs, leftover files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny
import torch
import transformers
from safetensors.torch import load_file, save_file

from blockviz.errors import BlockvizError
from blockviz.export import checkpoint
from blockviz.models.generate import prompt_ids
from blockviz.models.load import load_model
from blockviz.models.model import BlockModel
from blockviz.models.readable import readable
from blockviz.models.reload import reload
from blockviz.models.weight_files import check_counts
from blockviz.session.opening import open_model
from blockviz.types import run

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698672\n"
Put = Callable[..., Path]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder a model type, which nobody changes."""
    found = {}
    for case in ("llama", "qwen3", "phi3", "falcon-two-norms"):
        found[case] = tmp_path_factory.mktemp(case)
        tiny.module(*tiny.EVERY[case]).save_pretrained(found[case])
        tiny.tokenizer().save_pretrained(found[case])
    return found


@pytest.fixture
def put(whole: dict[str, Path], tmp_path: Path) -> Put:
    """A copy of a whole folder with entries of its config changed; None takes one out."""

    def copied(case: str = "llama", file: str = "config.json", **changes: object) -> Path:
        folder = tmp_path / "model"
        if not folder.exists():
            shutil.copytree(whole[case], folder)
        entries = {**json.loads((folder / file).read_text()), **changes}
        entries = {key: value for key, value in entries.items() if value is not None}
        (folder / file).write_text(json.dumps(entries))
        return folder

    return copied


def opened(folder: Path | str) -> BlockModel:
    return run(open_model(str(folder), dtype="float32"))


def refusal(folder: Path | str) -> BlockvizError:
    with pytest.raises(BlockvizError) as caught:
        opened(folder)
    error = caught.value
    assert error.asked.strip() and error.todo.strip() and "\n" not in str(error)
    return error


# code


def with_code(folder: Path, marker: Path, *names: str) -> None:
    """Python files that leave a mark where they are imported."""
    for name in names:
        (folder / name).write_text(
            f"open({str(marker)!r}, 'w').close()\n"
            "from transformers import PreTrainedTokenizerFast\n"
            "class MyTokenizer(PreTrainedTokenizerFast):\n    pass\n"
        )


def of_own_tokenizer(put: Put, tmp_path: Path) -> tuple[Path, Path]:
    folder, marker = put(), tmp_path / "ran"
    own = {"AutoTokenizer": [None, "tok.MyTokenizer"]}
    put(file="tokenizer_config.json", auto_map=own, tokenizer_class="MyTokenizer")
    with_code(folder, marker, "tok.py")
    return folder, marker


def test_the_code_of_a_tokenizer_is_neither_asked_about_nor_run(put, tmp_path):
    folder, marker = of_own_tokenizer(put, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "blockviz", "info", "--model", str(folder)],
        input="y\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "custom code" not in done.stdout + done.stderr and not marker.exists()


def test_a_tokenizer_with_code_opens_by_its_tokenizer_json_in_a_thread_too(put, tmp_path):
    folder, marker = of_own_tokenizer(put, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        model = pool.submit(opened, folder).result()
    assert model.tokenizer("w7 w9")["input_ids"] == [7, 9] and not marker.exists()


def test_a_tokenizer_that_is_code_only_is_refused_with_the_true_reason(put, tmp_path):
    folder, marker = of_own_tokenizer(put, tmp_path)
    (folder / "tokenizer.json").unlink()
    error = refusal(folder)
    assert "code of its own (tok.MyTokenizer)" in error.found and not marker.exists()
    assert "tokenizer.json" in error.todo


@pytest.mark.parametrize(
    "case, auto_map",
    [
        ("phi3", {"AutoConfig": "configuration_phi3.C", "AutoModelForCausalLM": "modeling_phi3.M"}),
        ("phi3", {"AutoModelForCausalLM": "modeling_phi3.M", "AutoTokenizer": "Xenova/gpt-4o"}),
        ("falcon-two-norms", {"AutoModelForCausalLM": "modeling_falcon.FalconForCausalLM"}),
    ],
)
def test_a_family_that_transformers_has_opens_without_its_old_code(put, tmp_path, case, auto_map):
    folder, marker = put(case), tmp_path / "ran"
    plain = opened(folder)
    put(auto_map=auto_map)
    with_code(folder, marker, "modeling_phi3.py", "configuration_phi3.py", "modeling_falcon.py")
    model = opened(folder)
    assert torch.equal(model.logits(tiny.batch()), plain.logits(tiny.batch()))
    assert not marker.exists()
    assert "auto_map" not in model.module.config.to_dict()
    assert not hasattr(reload(folder).module.config, "auto_map")


KERNEL = "evil/kernels"


@pytest.mark.parametrize(
    "entries",
    [
        {"attn_implementation": KERNEL},
        {"_attn_implementation": KERNEL},
        {"_attn_implementation_internal": KERNEL},
        {"attn_implementation": {"": KERNEL, "text_config": KERNEL}},
        {"experts_implementation": KERNEL},
        {"_experts_implementation": {"": KERNEL}},
        {"parts": {"_attn_implementation": KERNEL}},
        {"parts": [{"deep": [{"attn_implementation": KERNEL}]}]},
    ],
)
def test_a_config_never_names_the_kernels_that_are_used(put, monkeypatch, entries):
    loads = []
    for place in ("transformers.modeling_utils", "transformers.integrations.hub_kernels"):
        for name in ("load_and_register_attn_kernel", "get_kernel", "lazy_load_kernel"):
            monkeypatch.setattr(f"{place}.{name}", lambda *a, **k: loads.append(a), raising=False)
    folder = put(**entries)
    module = opened(folder).module
    assert module.config._attn_implementation in ("sdpa", "eager") and not loads
    assert KERNEL not in json.dumps(module.config.to_dict(), default=str)
    with readable(folder) as cleaned:
        assert KERNEL not in (cleaned / "config.json").read_text()
    assert KERNEL in (folder / "config.json").read_text()  # the folder itself is as it was


def test_a_folder_without_anything_to_leave_out_is_read_itself(put):
    folder = put()
    with readable(folder) as found:
        assert found == folder


# configs


@pytest.mark.parametrize(
    "changes, found",
    [
        ({"hidden_act": "selu2"}, "hidden_act 'selu2'"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}, "rope_type 'spiral'"),
        ({"dtype": "float7"}, "dtype 'float7'"),
        ({"pad_token_id": [0, 1]}, "pad_token_id"),
        ({"num_hidden_layers": "4"}, "num_hidden_layers"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"num_hidden_layers": -1}, "num_hidden_layers -1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000"),
        ({"hidden_size": 10**9}, "parameters, and its files hold"),
        ({"vocab_size": 10**13}, "parameters, and its files hold"),
        ({"vocab_size": 10**30}, ""),
        ({"intermediate_size": 10**12}, "parameters, and its files hold"),
        ({"num_attention_heads": 5}, "attention heads (5)"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"hidden_size": 0}, ""),
        ({"head_dim": 7}, ""),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"rope_parameters": "none"}, "rope_parameters"),
        ({"model_type": "llama5"}, "type 'llama5'"),
        ({"vocab_size": 300}, "(64, 32) in the file, (300, 32) by config.json"),
        ({"num_key_value_heads": 1}, "k_proj"),
        ({"num_hidden_layers": 5}, "tensors are missing, such as model.layers.4."),
        ({"layer_types": ["full_attention"] * 3}, "layer_types"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_config_that_cannot_be_used_is_refused_by_its_entry(put, changes, found):
    case = "qwen3" if "layer_types" in changes else "llama"
    assert found in refusal(put(case, **changes)).found


def test_experts_are_counted_before_they_are_built():
    config = {"num_hidden_layers": 1, "num_experts": 10**9}
    with pytest.raises(BlockvizError, match="num_experts 1000000000, and its files hold 1 tensors"):
        check_counts(config, {"a": (64, 32)}, "a/b")
    check_counts({"num_hidden_layers": 1, "num_experts": 64}, {"a": (64, 32)}, "a/b")


def test_a_config_of_more_than_a_mebibyte_is_not_read(put):
    folder = put(note="x" * (1 << 20))
    assert "1,048,576 are the most" in refusal(folder).found


def test_lists_are_cut_only_where_they_are_per_layer(put):
    """Each list has as many entries as there are layers; one of them is per layer."""
    chance = {name: [1, 2, 3, 4] for name in ("mrope_section", "quant_levels", "eos_token_id")}
    folder = put("qwen3", **chance, languages=["de", "en", "fr", "it"])
    old = opened(folder)
    config = old.prune(tiny.plan("1.layer")).module.config
    assert {name: getattr(config, name) for name in chance} == chance
    assert config.languages == ["de", "en", "fr", "it"] and config.num_hidden_layers == 3
    types = old.module.config.layer_types
    assert config.layer_types == [types[0], types[2], types[3]]


def test_numbers_of_layers_follow_their_layers():
    config = transformers.Qwen2MoeConfig(num_hidden_layers=4, mlp_only_layers=[0, 2, 3])
    from blockviz.models.model import trim_config

    trim_config(config, [1, 2, 3])
    assert config.mlp_only_layers == [1, 2]


# weights


def shards(folder: Path) -> None:
    """The weights in two files with an index, in place of one."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, index = sorted(tensors), {}
    for i in range(2):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({k: tensors[k] for k in names[i::2]}, folder / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(names[i::2], file))
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.mark.parametrize(
    "file, content, found, todo",
    [
        ("model.safetensors", POINTER, "model.safetensors is a Git LFS pointer", "git lfs pull"),
        ("tokenizer.json", POINTER, "tokenizer.json is a Git LFS pointer", "git lfs pull"),
        ("config.json", POINTER, "config.json is a Git LFS pointer", "git lfs pull"),
        ("model.safetensors", "<!DOCTYPE html><p>401", "is a web page", "Download the file"),
        ("tokenizer.json", "<html>", "tokenizer.json is a web page", "Download the file"),
        ("model.safetensors", "", "model.safetensors is empty", "again"),
        ("model.safetensors", "damaged beyond repair", "is no safetensors file", "again"),
        ("tokenizer.json", "{}", "transformers cannot read it", "tokenizer.json"),
    ],
)
def test_what_stands_for_a_file_is_named_with_its_remedy(put, file, content, found, todo):
    folder = put()
    (folder / file).write_text(content)
    error = refusal(folder)
    assert found in error.found and todo in error.todo


def test_weights_that_are_cut_short_are_told_with_numbers(put):
    folder = put()
    path = folder / "model.safetensors"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    assert f"cut short: {size - 100:,} of {size:,} bytes" in refusal(folder).found


def test_a_shard_that_is_not_there_is_named(put):
    folder = put()
    shards(folder)
    assert opened(folder).info.unread == ""
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "1 of 2 files are not there, such as model-00002-of-00002" in refusal(folder).found
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "does not say which file" in refusal(folder).found


def test_layers_that_the_config_leaves_out_are_said(put, caplog):
    folder = put(num_hidden_layers=3)
    model = opened(folder)
    n = len([k for k in load_file(folder / "model.safetensors") if ".layers.3." in k])
    assert model.info.unread.startswith(f"{n} tensors of the files, such as model.layers.3.")
    assert "layer 3, where config.json has 3 layers" in model.info.unread
    assert model.info.unread in caplog.text


def test_a_whole_model_leaves_nothing_unread(put, caplog):
    assert opened(put()).info.unread == "" and not caplog.text


def adapter(folder: Path) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "owner/base-1B"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    save_file({"a.lora_A.weight": torch.zeros(8, 32)}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("has_config", [True, False])
def test_an_adapter_is_told_to_be_merged_into_its_base(put, has_config):
    folder = put()
    (folder / "model.safetensors").unlink()
    adapter(folder)
    if not has_config:
        (folder / "config.json").unlink()
    error = refusal(folder)
    assert "an adapter of owner/base-1B" in error.found and "merge_and_unload" in error.todo


def test_an_adapter_beside_a_whole_model_is_not_read(put):
    folder = put()
    plain = opened(folder).logits(tiny.batch())
    adapter(folder)
    assert torch.equal(opened(folder).logits(tiny.batch()), plain)
    with readable(folder) as cleaned:
        assert not (cleaned / "adapter_config.json").exists()


def test_a_folder_with_a_gguf_file_says_to_give_it(put):
    folder = put()
    (folder / "model.safetensors").unlink()
    (folder / "small-Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "small-Q4_K_M.gguf" in refusal(folder).todo


@pytest.mark.parametrize(
    "file, found, todo",
    [
        ("tokenizer.model", "tokenizer.model is there without tokenizer.json", "pip install"),
        ("", "neither tokenizer.json nor tokenizer.model", "Put tokenizer.json"),
    ],
)
def test_a_folder_without_tokenizer_json_says_how_to_get_one(put, file, found, todo):
    folder = put(file="tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    (folder / "tokenizer.json").unlink()
    if file:
        (folder / file).write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    error = refusal(folder)
    assert found in error.found and todo in error.todo


def doubling(n: int) -> dict[str, object]:
    """A normalizer that writes 2**n letters for one."""
    rule = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"type": "Sequence", "normalizers": [rule] * n}


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LONG = "{% for i in range(99999) %}{{ 'more than ten letters' }}{% endfor %}"


@pytest.mark.parametrize(
    "file, entry, asked",
    [
        ("tokenizer.json", {"normalizer": doubling(40)}, "The tokenizer of model was tried"),
        ("tokenizer_config.json", {"chat_template": LOOPS}, "The chat template of model was tried"),
        ("tokenizer_config.json", {"chat_template": LONG}, "The chat template of model was tried"),
    ],
)
def test_a_tokenizer_or_template_that_does_not_end_is_refused(put, monkeypatch, file, entry, asked):
    monkeypatch.setattr("blockviz.models.trial.SECONDS", 1)
    monkeypatch.setattr("blockviz.models.trial.MEMORY_BYTES", 1 << 30)
    assert refusal(put(file=file, **entry)).asked.startswith(asked)


@pytest.mark.parametrize(
    "file, entry",
    [
        ("tokenizer.json", {"normalizer": doubling(2)}),
        ("tokenizer_config.json", {"chat_template": tiny.TEMPLATE}),
        ("tokenizer_config.json", {"chat_template": "{{ raise_exception('only for cats') }}"}),
        ("tokenizer_config.json", {"chat_template": "{% generation %}x{% endgeneration %}"}),
    ],
)
def test_tokenizers_and_templates_that_end_are_taken(put, file, entry):
    assert opened(put(file=file, **entry)).tokenizer("w7")["input_ids"] == [7]


def test_a_template_that_refuses_a_prompt_is_told(put):
    refuses = "{{ raise_exception('only for cats') }}"
    model = opened(put(file="tokenizer_config.json", chat_template=refuses))
    with pytest.raises(BlockvizError, match="only for cats") as caught:
        prompt_ids(model, "w7", is_chat=True)
    assert caught.value.todo == "Send it raw."


def test_a_plain_tokenizer_is_not_tried(put, monkeypatch):
    monkeypatch.setattr("blockviz.models.trial.child.started", None)
    assert opened(put()).info.n_layers == 4


def test_an_export_holds_no_entry_that_its_source_lacks(put, tmp_path):
    taken = {"max_position_embeddings": None, "rms_norm_eps": None}
    model = opened(put(**taken))
    pruned = model.prune(tiny.plan("1.layer"))
    made = checkpoint.Assembled("stock-compact", pruned.module, "model.layers", 3, 0)
    checkpoint.write_weights(tmp_path / "out", made, model.tokenizer)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert not taken.keys() & config.keys() and config["num_hidden_layers"] == 3
    again = opened(tmp_path / "out")
    assert again.info.max_seq_len == model.info.max_seq_len
    assert torch.equal(again.logits(tiny.batch()), pruned.logits(tiny.batch()))


def test_an_export_of_a_model_with_old_code_names_none(put, tmp_path):
    folder = put("phi3", auto_map={"AutoModelForCausalLM": "modeling_phi3.M"})
    model = opened(folder)
    out = tmp_path / "out"
    made = checkpoint.Assembled("stock-compact", model.module, "model.layers", 4, 0)
    checkpoint.write_weights(out, made, model.tokenizer)
    assert "auto_map" not in (out / "config.json").read_text()
    assert not list(out.glob("*.py"))
    assert run(load_model(out, name="out", dtype="float32")).info.n_layers == 4
