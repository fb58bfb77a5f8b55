"""blockviz: which blocks of a language model can go, and what happens when they do."""

__version__ = "0.1.0"
