"""A pruned model written to files, put together by one of three modes, and checked."""

from blockviz.export.card import MODES, CardFacts, texts_of
from blockviz.export.checkpoint import (
    Assembled,
    assembled,
    custom_parameters,
    slots_of,
    weight_bytes,
    whole_layers,
    write_texts,
    write_weights,
)
from blockviz.export.checks import Shown, verify
from blockviz.export.custom import custom_module, modelling_file
from blockviz.export.fingerprint import distance, fingerprint
from blockviz.export.folding import Folded, fold
from blockviz.export.packing import (
    Slot,
    packed,
    stock_module,
    stock_parameters,
    stored_parameters,
    zeroed,
)
from blockviz.export.parts import no_repair

__all__ = [
    "MODES",
    "Assembled",
    "CardFacts",
    "Folded",
    "Shown",
    "Slot",
    "assembled",
    "custom_module",
    "custom_parameters",
    "distance",
    "fingerprint",
    "fold",
    "modelling_file",
    "no_repair",
    "packed",
    "slots_of",
    "stock_module",
    "stock_parameters",
    "stored_parameters",
    "texts_of",
    "verify",
    "weight_bytes",
    "whole_layers",
    "write_texts",
    "write_weights",
    "zeroed",
]
