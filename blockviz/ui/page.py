"""What of gradio's own page is done otherwise here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import gradio as gr

from blockviz.errors import report
from blockviz.ui.closed_routes import refuse_addresses
from blockviz.ui.failures import refuse_unreadable
from blockviz.ui.fair_queue import FairQueue
from blockviz.ui.file_names import FileNames
from blockviz.ui.listeners import Listeners


class Page(gr.Blocks):
    """Blocks whose generators send every value whole, and that fetch nothing for a visitor.

    Gradio sends the difference to the value before, which the browser writes into the very object
    that it may not have drawn yet: a component then shows half of each, or nothing.
    """

    def __init__(self, *args: Any, names: FileNames | None = None, **settings: Any) -> None:
        self.listeners, self.names = Listeners(), names or FileNames({})
        super().__init__(*args, **settings)

    def queue(self, *args: Any, **settings: Any) -> Page:
        """The same with a queue of which nobody may take more than a share."""
        super().queue(*args, **settings)
        plain = self._queue
        self._queue = FairQueue(
            plain.live_updates,
            plain.max_thread_count,
            plain.update_intervals,
            plain.max_size,
            self,
            plain.default_concurrency_limit,
        )
        return self

    async def process_api(self, *args: Any, **call: Any) -> dict[str, Any]:
        """The answer to an event. The session of a call that came without one ends with it.

        Whatever goes wrong leaves here as a gr.Error: gradio answers another exception with nothing
        at all, prints it with all that was sent, and never frees the place of one that is no
        Exception, as a panic in Rust.
        """
        is_going_on = False
        try:
            refuse_unreadable((call.get("inputs"), getattr(call.get("event_data"), "_data", None)))
            self.names.find(call.get("inputs"))
            answer = await super().process_api(*args, **call)
            self._show_names(answer["data"], call["block_fn"].outputs)
            is_going_on = bool(answer.get("is_generating"))
            return answer
        except gr.Error as error:
            error.print_exception = False
            raise
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001
            said = report(error, "an event failed")
            raise gr.Error(said, print_exception=False) from None
        finally:
            session, own = call.get("session_hash"), call.get("event_id")
            if session and session == own and not is_going_on:
                self.state_holder.drop(session)

    def _show_names(self, data: Any, outputs: Sequence[Any]) -> None:
        for value, component in zip(data, outputs, strict=False):
            if isinstance(component, (gr.DownloadButton, gr.UploadButton, gr.File)):
                self.names.show(value)

    async def preprocess_data(
        self,
        block_fn: Any,
        inputs: list[Any],
        state: Any,
        explicit_call: bool = False,  # noqa: FBT001, FBT002
    ) -> list[Any]:
        """What a handler is given for what the page has sent; gr.Error for a file elsewhere."""
        refuse_addresses(inputs)
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)

    def handle_streaming_diffs(
        self,
        block_fn: Any,
        data: list,
        session_hash: str | None,
        run: str | None,
        final: bool,  # noqa: FBT001
        simple_format: bool = False,  # noqa: FBT001, FBT002
    ) -> list:
        """The edits that put each changed value in place of the one before."""
        before = list(self.pending_diff_streams.get(session_hash, {}).get(run, ()))
        whole = super().handle_streaming_diffs(
            block_fn, data, session_hash, run, final, simple_format=True
        )
        if simple_format or final or not before:
            return whole
        return [
            [] if old == new else [["replace", [], new]]
            for old, new in zip(before, whole, strict=True)
        ]
