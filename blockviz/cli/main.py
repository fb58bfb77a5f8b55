"""Parses a command, runs it, and turns refusals into exit statuses: 0, 2, or 130 on Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Sequence

from blockviz.cli.console import Stopped, complain
from blockviz.cli.options import parse
from blockviz.errors import BlockvizError
from blockviz.sources.cache import keep_inside_cache

BAD_INPUT, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of one command."""
    try:
        args = parse(argv)
        # Before the libraries behind the commands are imported: they read it only then.
        keep_inside_cache(os.environ)
        from blockviz.cli import commands

        return commands.COMMANDS[args.command](args)
    except BlockvizError as error:
        complain(f"blockviz: {error}")
        return BAD_INPUT
    except (KeyboardInterrupt, Stopped):
        complain("blockviz: stopped.")
        return INTERRUPTED
