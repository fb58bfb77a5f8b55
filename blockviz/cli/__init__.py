"""The command line: the same engine without a browser."""

from blockviz.cli.main import main

__all__ = ["main"]
