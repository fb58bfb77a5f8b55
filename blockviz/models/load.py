"""A BlockModel from a folder with config, safetensors and tokenizer; proved before it is used."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from blockviz.errors import BadInput, BadSource, UnsupportedModel
from blockviz.models.config_check import check_config
from blockviz.models.config_faults import CONFIG_FAULTS, config_refusal
from blockviz.models.custom import class_of_config, flattened
from blockviz.models.families import FAMILIES, family_of
from blockviz.models.model import BlockModel, find_blocks, leave_out_absent
from blockviz.models.proof import prove
from blockviz.models.readable import readable
from blockviz.models.repaired import RepairedModel
from blockviz.models.tokenizer import load_tokenizer
from blockviz.models.trial import tried
from blockviz.models.weight_files import check_counts, check_size, stored_tensors, unread_text
from blockviz.models.writers import gather_mlps, scale_writers
from blockviz.sources.local import read_config as read_json
from blockviz.types import Done, Events, ModelInfo, Progress, PruningPlan

log = logging.getLogger(__name__)

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
    config = read_json(folder / "config.json", name)
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
    is_known: bool = False,
) -> Events:
    """Done(BlockModel), in evaluation mode, its residual identity proved on random tokens.

    is_known: its tokenizer and chat template, which can loop or grow, are not tried first. What its
    files hold besides is logged, and said in the model's info.
    """
    config = read_config(folder, name)
    place = pick_device(device)
    yield Progress("loading weights", 0, 2, f"{name}")
    stored = stored_tensors(folder, name)
    check_counts(config, stored, name)
    if not is_known:
        yield from tried(folder, name)
    with quiet(), readable(folder) as cleaned:
        check_size(_without_weights(cleaned, name, config), stored, name)
        tokenizer = load_tokenizer(cleaned, name, source=folder)
        module, rest = _load_module(cleaned, name, config, pick_dtype(dtype, place), place)
    yield Progress("checking blocks", 1, 2, config["model_type"])
    leave_out_absent(module.config, config)
    unread = unread_text(rest, module.config.num_hidden_layers)
    if unread:
        log.warning("Not read of %s: %s.", name, unread)
    about = {"revision": revision, "quantisation": quantisation, "license": license}
    about["unread"] = unread
    how = _opened if "blockviz" in config else wrap
    try:
        model = how(module, tokenizer, name=name, **about)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, *CONFIG_FAULTS) as error:
        raise config_refusal(name, config, error) from error
    yield Done(model)


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


def _without_weights(folder: Path, name: str, config: dict) -> torch.nn.Module:
    """The model on the meta device, which takes no memory; UnsupportedModel where it has no class
    or its config cannot be used, by the entry."""
    if config["model_type"] not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnsupportedModel(
            f"The model {name} was to be loaded.",
            f"transformers {transformers.__version__} has no causal language model of the type "
            f"{config['model_type'][:40]!r}.",
            "Use a decoder-only model of a family that blockviz info --families lists.",
        )
    try:
        how = {"trust_remote_code": False, "local_files_only": True}
        settings = transformers.AutoConfig.from_pretrained(folder, **how)
        with torch.device("meta"):
            if "blockviz" in config:
                return class_of_config(config)(settings)
            return transformers.AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    except AssertionError as error:
        raise _bad_padding(name, config, error) from error
    except (RuntimeError, *CONFIG_FAULTS) as error:
        raise config_refusal(name, config, error) from error


def _bad_padding(name: str, config: dict, error: AssertionError) -> UnsupportedModel:
    padding = f"pad_token_id {config.get('pad_token_id')}, vocab_size {config.get('vocab_size')}"
    return UnsupportedModel(
        f"The model {name} was to be loaded.",
        f"Its config.json does not fit together ({str(error)[:80]}; {padding}).",
        "Set pad_token_id to null, or to an id below vocab_size: nothing is read at padding.",
    )


def _load_module(
    folder: Path, name: str, config: dict, dtype: torch.dtype, device: torch.device
) -> tuple[torch.nn.Module, list[str]]:
    """(the model, the names of what its files hold besides)."""
    how = {
        "dtype": dtype,
        "device_map": device,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # refused below, by name
    }
    try:
        if "blockviz" in config:
            module, found = class_of_config(config).from_pretrained(folder, **how)
        else:
            module, found = transformers.AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=False, **how
            )
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, RuntimeError) as error:
        raise BadSource(
            f"The weights of {name} were to be loaded.",
            "A safetensors file is damaged, or does not fit the config.",
            "Download or write the model again.",
        ) from error
    except CONFIG_FAULTS as error:
        raise config_refusal(name, config, error) from error
    except OSError as error:
        raise BadSource(
            f"The weights of {name} were to be loaded.",
            "The folder holds no complete safetensors weights.",
            "Only safetensors or GGUF weights are accepted: convert or download them again.",
        ) from error
    _refuse_wrong(name, found)
    return module, sorted(found["unexpected_keys"])


def _refuse_wrong(name: str, found: dict) -> None:
    shapes = {key: f"{key}: {stored} in the file, {asked} by config.json"
              for key, stored, asked in ((k, tuple(a), tuple(b))
                                         for k, a, b in found["mismatched_keys"])}  # fmt: skip
    if shapes:
        raise BadSource(
            f"The weights of {name} were to be loaded.",
            f"{len(shapes)} tensors have another shape, such as {min(shapes.values())}.",
            "Take the config.json and the weights of one and the same model.",
        )
    missing = sorted(found["missing_keys"])
    if missing:
        raise BadSource(
            f"The weights of {name} were to be loaded.",
            f"{len(missing)} tensors are missing, such as {missing[0]}.",
            "Load a complete checkpoint: with these gone it would run on random numbers.",
        )


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
