"""Where the messages of executions go: to the terminal, into outputs that are written at the end, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from kallichore.cli.execution import Outcome
from kallichore.cli.exit_warning import ExitWarning
from kallichore.cli.show import Printer, print_json

if TYPE_CHECKING:
    from kallichore.cli.notebook import Outputs

_OUTPUT = {"stream", "execute_result", "display_data", "update_display_data", "clear_output"}


@attrs.define
class Sink:
    """Takes the messages of executions, one after another.

    Args:
        printer: Prints them; None to be silent.
        outputs: Collects them; None where nobody asks for that.
        errors_only: Whether only errors are printed.
    """

    printer: Printer | None = None
    outputs: Outputs | None = None
    errors_only: bool = False
    _warning: ExitWarning = attrs.field(factory=ExitWarning, init=False)

    def begin(self) -> None:
        """Begin with the next execution."""
        self._warning = ExitWarning()
        if self.outputs is not None:
            self.outputs.begin()

    def take(self, message: dict[str, Any]) -> None:
        """Take in a message."""
        if (kept := self._warning.strip(message)) is None:
            return
        if self.outputs is not None:
            self.outputs.take(kept)
        if self.printer is not None and not (self.errors_only and kept["header"]["msg_type"] in _OUTPUT):
            self.printer.show(kept)

    def take_output(self, stream: str, text: str) -> None:
        """Take in what a process printed while nothing ran."""
        if self.outputs is not None:
            self.outputs.add_stream(stream, text)
        if self.printer is not None and not self.errors_only:
            self.printer.show_output(stream, text)

    def print_result(self, outcome: Outcome) -> None:
        """Print as JSON what became of the execution, if its outputs were collected for that."""
        if self.outputs is not None:
            print_json(result_of(outcome, self.outputs))


def result_of(outcome: Outcome, outputs: Outputs) -> dict[str, Any]:
    """Return what became of an execution, for programs."""
    reply, latest = outcome.reply, outputs.latest
    results = (output for output in latest if output["output_type"] == "execute_result")
    has_error = reply.get("status") == "error" and outcome.status != "ok"
    return {
        "status": outcome.status,
        "exit_code": outcome.exit_code,
        "execution_count": outputs.count,
        "text": "".join(output["text"] for output in latest if output.get("name") == "stdout"),
        "data": next((result["data"] for result in results), None),
        "error": {name: reply.get(name) for name in ("ename", "evalue", "traceback")} if has_error else None,
        "outputs": latest,
    }
