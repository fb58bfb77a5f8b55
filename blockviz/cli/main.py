"""Parses a command, runs it, and turns refusals into exit statuses: 0, 2, or 130 on Ctrl-C."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from blockviz.cli.console import Stopped, complain, is_output_lost, refuse
from blockviz.cli.options import parse
from blockviz.errors import BlockvizError
from blockviz.sources.cache import keep_inside_cache

BAD_INPUT, INTERRUPTED = 2, 130
MAX_NAME = 100


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status of one command."""
    try:
        args = parse(argv)
        # Before the libraries behind the commands are imported: they read it only then.
        keep_inside_cache(os.environ)
        from blockviz.cli import commands

        status = commands.COMMANDS[args.command](args)
        return BAD_INPUT if is_output_lost() else status
    except BlockvizError as error:
        refuse(f"blockviz: {error}")
        return BAD_INPUT
    except OSError as error:
        # Whatever else the system refuses: a name that is too long, a disk that is full.
        logging.getLogger(__name__).debug("refused by the system", exc_info=True)
        what = f"{str(error.filename)[-MAX_NAME:]}: " if error.filename else ""
        refuse(
            f"blockviz: A file was to be read or written. The system refused: {what}"
            f"{error.strerror or error}. Check its name, its permissions and the room on the disk."
        )
        return BAD_INPUT
    except (KeyboardInterrupt, Stopped):
        complain("blockviz: stopped.")
        return INTERRUPTED
