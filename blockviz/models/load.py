"""A BlockModel from a folder with config, safetensors and tokenizer; proved before it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from blockviz.errors import BadInput, BadSource, UnsupportedModel
from blockviz.models.config_check import check_config
from blockviz.models.custom import class_of_config, flattened
from blockviz.models.families import FAMILIES, family_of
from blockviz.models.marks import without_marks
from blockviz.models.model import BlockModel, find_blocks
from blockviz.models.proof import prove
from blockviz.models.repaired import RepairedModel
from blockviz.models.writers import gather_mlps, scale_writers
from blockviz.types import Done, Events, ModelInfo, Progress, PruningPlan

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(asked: str) -> torch.device:
    """The device `auto` stands for here, or the one asked for; BadInput if it is not there."""
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        has_mps = torch.backends.mps.is_available()
        return torch.device("mps" if has_mps else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(
            f"The device {asked!r} was asked for.",
            "This machine has no such device.",
            "Use auto, cpu, cuda, cuda:N or mps.",
        ) from error
    return device


def pick_dtype(asked: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it natively, else float32; or the one asked for."""
    if asked in DTYPES:
        return DTYPES[asked]
    if asked != "auto":
        raise BadInput(
            f"The dtype {asked!r} was asked for.",
            "blockviz does not run models in it.",
            f"Use auto, {', '.join(DTYPES)}.",
        )
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        native = features.get("amx_bf16") or features.get("avx512_bf16") or features.get("bf16")
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def read_config(folder: Path, name: str) -> dict:
    """config.json of a model folder, checked against remote code and unknown formats."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadSource(
            f"The model {name} was to be loaded.",
            "Its config.json cannot be read as JSON.",
            "Use a folder or hub id that holds a complete transformers model.",
        ) from error
    check_config(config, name)
    return config


def load_model(
    folder: Path,
    *,
    name: str,
    revision: str = "",
    dtype: str = "auto",
    device: str = "auto",
    quantisation: str = "",
    license: str = "",
) -> Events:
    """Done(BlockModel), in evaluation mode, its residual identity proved on random tokens."""
    config = read_config(folder, name)
    place = pick_device(device)
    yield Progress("loading weights", 0, 2, f"{name}")
    with quiet(), without_marks(folder) as readable:
        tokenizer = _load_tokenizer(readable, name)
        module = _load_module(readable, name, config, pick_dtype(dtype, place), place)
    yield Progress("checking blocks", 1, 2, config["model_type"])
    about = {"revision": revision, "quantisation": quantisation, "license": license}
    if "blockviz" in config:
        yield Done(_opened(module, tokenizer, name=name, **about))
    else:
        yield Done(wrap(module, tokenizer, name=name, **about))


def wrap(module: torch.nn.Module, tokenizer: object, *, name: str, **about: str) -> BlockModel:
    """A proved BlockModel of a transformers causal language model that is already in memory."""
    module.eval().requires_grad_(requires_grad=False)
    family = family_of(module)
    gather_mlps(module, family)
    scale_writers(module, family)
    config = module.config
    info = ModelInfo(
        name=name,
        revision=about.pop("revision", ""),
        family=family.name,
        dtype=str(module.dtype).removeprefix("torch."),
        device=str(module.device),
        n_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        vocab_size=module.get_input_embeddings().weight.shape[0],
        max_seq_len=getattr(config, "max_position_embeddings", 0) or 1 << 20,
        n_parameters=sum(p.numel() for p in module.parameters()),
        blocks=find_blocks(module, family),
        is_parallel=family.is_parallel,
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        **about,
    )
    model = BlockModel(module, tokenizer, family, info)
    prove(model)
    return model


def _opened(module: torch.nn.Module, tokenizer: object, *, name: str, **about: str) -> BlockModel:
    """A custom export of ours. Blocks that it lacks have no parameters; its maps are put in."""
    flat = flattened(module, family_of(module))
    model = wrap(flat.module, tokenizer, name=name, **about)
    if not flat.maps and not flat.inputs:
        return model
    found = RepairedModel(model, PruningPlan())
    for block, made in flat.inputs.items():
        found.put_input(block, made)
    for block, made in flat.maps.items():
        found.put_map(block, made)
    n_parameters = model.info.n_parameters + found.n_added
    found.info = replace(model.info, n_parameters=n_parameters)
    return found


def known_families() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(family, its model types) for every family of the table."""
    return tuple({f.name: f.model_types for f in FAMILIES}.items())


def _load_tokenizer(folder: Path, name: str) -> object:
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except StrictDataclassError as error:
        raise _bad_entry(name, error) from error
    except (OSError, ValueError, KeyError) as error:
        raise BadSource(
            f"The tokenizer of {name} was to be loaded.",
            "Its files are missing or not understood.",
            "Put tokenizer.json and tokenizer_config.json beside config.json.",
        ) from error


def _bad_entry(name: str, error: StrictDataclassError) -> UnsupportedModel:
    """`error`: what transformers says of a config entry, over several lines."""
    said = " ".join(str(error).partition(". Errors:")[0].split())
    return UnsupportedModel(
        f"The model {name} was to be loaded.",
        f"transformers does not take its config.json: {said[:240]}.",
        "Mend that entry of config.json, or download the file again.",
    )


def _load_module(
    folder: Path, name: str, config: dict, dtype: torch.dtype, device: torch.device
) -> torch.nn.Module:
    how = {
        "dtype": dtype,
        "device_map": device,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    try:
        if "blockviz" in config:
            module, found = class_of_config(config).from_pretrained(folder, **how)
        else:
            module, found = transformers.AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=False, **how
            )
    except StrictDataclassError as error:
        raise _bad_entry(name, error) from error
    except AssertionError as error:
        padding = (
            f"pad_token_id {config.get('pad_token_id')}, vocab_size {config.get('vocab_size')}"
        )
        raise UnsupportedModel(
            f"The model {name} was to be loaded.",
            f"Its config.json does not fit together ({str(error)[:80]}; {padding}).",
            "Set pad_token_id to null, or to an id below vocab_size: nothing is read at padding.",
        ) from error
    except (SafetensorError, RuntimeError) as error:
        raise BadSource(
            f"The weights of {name} were to be loaded.",
            "A safetensors file is damaged, or does not fit the config.",
            "Download or write the model again.",
        ) from error
    except ValueError as error:
        raise UnsupportedModel(
            f"The model {name} was to be loaded.",
            f"transformers {transformers.__version__} has no causal language model for it.",
            "Use a decoder-only model of a family that blockviz info --families lists.",
        ) from error
    except OSError as error:
        raise BadSource(
            f"The weights of {name} were to be loaded.",
            "The folder holds no complete safetensors weights.",
            "Only safetensors or GGUF weights are accepted: convert or download them again.",
        ) from error
    wrong = sorted({*found["missing_keys"], *map(str, found["mismatched_keys"])})
    if wrong:
        raise BadSource(
            f"The weights of {name} were to be loaded.",
            f"{len(wrong)} tensors are missing or of the wrong shape, such as {wrong[0]}.",
            "Load a complete checkpoint: with these gone it would run on random numbers.",
        )
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers neither draws its own progress bars nor warns on the console."""
    log = transformers.logging
    level, had_bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if had_bar:
            log.enable_progress_bar()
