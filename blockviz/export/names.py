"""The files of an export."""

from __future__ import annotations

RECIPE = "blockviz_recipe.json"
FINGERPRINT = "blockviz_fingerprint.json"
SUMS = "SHA256SUMS"
HOW_TO_LOAD = "how_to_load.md"
CARD = "README.md"
MERGEKIT = "mergekit.yml"

NEEDED = ("config.json", "generation_config.json", "tokenizer_config.json", CARD, HOW_TO_LOAD,
          RECIPE, FINGERPRINT, SUMS)  # fmt: skip

# What weights come in; only the first is written, and taken.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
