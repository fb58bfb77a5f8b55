"""Finding the blocks of any decoder model: load, watch, mask, prune, run part by part."""
