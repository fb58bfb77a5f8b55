"""A written model taken from its folder again, as any program with transformers would."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn

from blockviz.errors import BadSource
from blockviz.models.custom import class_of_config
from blockviz.models.load import quiet, read_config
from blockviz.models.readable import readable
from blockviz.models.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Reloaded:
    """wrong: tensors that were missing, unexpected or of another shape, by name."""

    module: nn.Module
    tokenizer: Any
    wrong: tuple[str, ...]


def reload(folder: Path, *, runs_own_file: bool = False) -> Reloaded:
    """The model on the CPU in the dtype it was written in; BadSource where nothing can be loaded.

    runs_own_file: let transformers run the modelling file of a custom export, which is for files
    that this machine has just written; otherwise the class that blockviz has of it is used.
    """
    config = read_config(folder, folder.name)
    how = {
        "dtype": "auto",
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
    }
    try:
        trusted = runs_own_file and "blockviz" in config
        with quiet(), nullcontext(folder) if trusted else readable(folder) as place:
            if "blockviz" in config and not trusted:
                module, found = class_of_config(config).from_pretrained(place, **how)
            else:
                module, found = transformers.AutoModelForCausalLM.from_pretrained(
                    place, trust_remote_code=trusted, **how
                )
            tokenizer = load_tokenizer(place, folder.name)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BadSource(
            f"The model in {folder.name} was to be loaded.",
            f"transformers cannot load it ({type(error).__name__}).",
            "Write the export again.",
        ) from error
    wrong = {*found["missing_keys"], *found["unexpected_keys"]}
    wrong |= {str(key) for key in found["mismatched_keys"]}
    return Reloaded(module.eval(), tokenizer, tuple(sorted(wrong)))


@torch.inference_mode()
def logits_of(module: nn.Module, ids: list[int]) -> torch.Tensor:
    """(seq, vocab) float32 of one text."""
    given = torch.tensor([ids], device=module.device)
    return module(input_ids=given, use_cache=False).logits[0].float().cpu()


@torch.inference_mode()
def written_greedily(module: nn.Module, ids: list[int], n: int, *, use_cache: bool) -> list[int]:
    """The n tokens that follow, whatever ends a text for this model."""
    step, cache, found = torch.tensor([ids]), None, []
    for _ in range(n):
        output = module(input_ids=step, past_key_values=cache, use_cache=use_cache)
        found.append(int(output.logits[0, -1].argmax()))
        cache = output.past_key_values if use_cache else None
        new = torch.tensor([[found[-1]]])
        step = new if use_cache else torch.cat([step, new], dim=1)
    return found
