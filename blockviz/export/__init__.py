"""A pruned model written as a stock checkpoint."""

from blockviz.export.packing import (
    Slot,
    packed,
    stock_module,
    stock_parameters,
    stored_parameters,
    zeroed,
)

__all__ = ["Slot", "packed", "stock_module", "stock_parameters", "stored_parameters", "zeroed"]
