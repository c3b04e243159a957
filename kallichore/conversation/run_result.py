"""What code that was run has to show for it: what it printed and displayed, its result, its error.

The messages of one execution (messaging spec, "Messages on the IOPub channel") go in one by one, and a value comes out.
A display that is updated, and output that is cleared, are what somebody in front of a notebook would see at the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Literal

import attrs

from kallichore.models.bodies import ExecutionError


@attrs.frozen
class Printed:
    """Text that code printed.

    Args:
        stream: ``stdout`` or ``stderr``.
        text: What was printed.
    """

    stream: str
    text: str

    def __str__(self) -> str:
        return self.text


@attrs.frozen
class Display:
    """Something that code showed: a picture, a table, the value of its last line.

    Args:
        data: What it is, by MIME type: text as it is, JSON as values, pictures in base64.
        metadata: What is known of it.
    """

    data: Mapping[str, Any]
    metadata: Mapping[str, Any] = attrs.field(factory=dict)

    def __str__(self) -> str:
        return str(self.data.get("text/plain", ""))


Output = Printed | Display
"""What comes while code runs, in the order that it comes."""


@attrs.frozen(kw_only=True)
class RunResult:
    """What came of code that was run.

    Args:
        status: ``ok``; ``error`` if the code raised one, which is in `error`; ``aborted`` if the kernel did not run it
            to its end and does not say why.
        execution_count: The kernel's number for this execution.
        outputs: All that it printed and displayed, in order, without its result.
        result: The value of its last line, if there is one.
        error: What it raised.
        user_expressions: What the kernel says to each of the ``user_expressions`` (messaging spec, "Execute").
        dropped: How many messages were dropped because they came too fast to be kept.
    """

    status: Literal["ok", "error", "aborted"]
    execution_count: int | None = None
    outputs: tuple[Output, ...] = ()
    result: Display | None = None
    error: ExecutionError | None = None
    user_expressions: Mapping[str, Any] = attrs.field(factory=dict)
    dropped: int = 0

    @property
    def text(self) -> str:
        """What was printed, on both streams, in order."""
        return "".join(output.text for output in self.outputs if isinstance(output, Printed))

    @property
    def stdout(self) -> str:
        """What was printed on standard output."""
        return self._printed("stdout")

    @property
    def stderr(self) -> str:
        """What was printed on standard error."""
        return self._printed("stderr")

    @property
    def displays(self) -> tuple[Display, ...]:
        """What was displayed: pictures, tables, widgets."""
        return tuple(output for output in self.outputs if isinstance(output, Display))

    def _printed(self, stream: str) -> str:
        printed = (output for output in self.outputs if isinstance(output, Printed))
        return "".join(output.text for output in printed if output.stream == stream)


@attrs.define
class ResultCollector:
    """Puts a `RunResult` together from the messages of one execution, as they come."""

    _outputs: list[Output] = attrs.field(factory=list, init=False)
    _places: dict[str, list[int]] = attrs.field(factory=dict, init=False)
    """Where among the outputs the displays with a ``display_id`` are."""
    _clears: bool = attrs.field(default=False, init=False)
    """Whether what comes next takes the place of all before it."""
    _result: Display | None = attrs.field(default=None, init=False)
    _error: ExecutionError | None = attrs.field(default=None, init=False)
    _count: int | None = attrs.field(default=None, init=False)

    def take(self, message: Mapping[str, Any]) -> Output | None:
        """Take in one message, and return what it adds to the output, if it does."""
        content = _object(message.get("content"))
        match message["header"]["msg_type"]:
            case "stream":
                return self._add(Printed(str(content.get("name", "stdout")), str(content.get("text", ""))))
            case "display_data":
                display = self._add(_display(content))
                if (name := _display_id(content)) is not None:
                    self._places.setdefault(name, []).append(len(self._outputs) - 1)
                return display
            case "update_display_data":
                return self._update(content)
            case "execute_result":
                self._result, self._count = _display(content), _count(content)
            case "error":
                self._error = _error(content)
            case "clear_output":
                self._clears = True
                if not content.get("wait"):
                    self._clear()
        return None

    def _add(self, output: Output) -> Output:
        if self._clears:
            self._clear()
        self._outputs.append(output)
        return output

    def _clear(self) -> None:
        self._outputs.clear()
        self._places.clear()
        self._clears = False

    def _update(self, content: Mapping[str, Any]) -> Output:
        display, name = _display(content), _display_id(content)
        for place in () if name is None else self._places.get(name, ()):
            self._outputs[place] = display
        return display

    def finish(self, reply: Mapping[str, Any], *, dropped: int = 0) -> RunResult:
        """Return what came of it, given the content of the ``execute_reply``.

        Args:
            reply: The content.
            dropped: How many messages could not be taken in.
        """
        status: Literal["ok", "error", "aborted"] = "aborted"
        error = self._error
        if reply.get("status") == "ok":
            status = "ok"
        elif reply.get("status") == "error":
            status, error = "error", _error(reply) if error is None else error
        return RunResult(
            status=status,
            execution_count=_count(reply) if self._count is None else self._count,
            outputs=tuple(_joined(self._outputs)),
            result=self._result,
            error=error,
            user_expressions=_object(reply.get("user_expressions")),
            dropped=dropped,
        )


def _joined(outputs: Iterable[Output]) -> Iterator[Output]:
    """Yield outputs with what was printed in pieces in one piece."""
    for stream, group in groupby(outputs, lambda output: output.stream if isinstance(output, Printed) else None):
        if stream is None:
            yield from group
        else:
            yield Printed(stream, "".join(map(str, group)))


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _display(content: Mapping[str, Any]) -> Display:
    return Display(_object(content.get("data")), _object(content.get("metadata")))


def _display_id(content: Mapping[str, Any]) -> str | None:
    name = _object(content.get("transient")).get("display_id")
    return name if isinstance(name, str) else None


def _error(content: Mapping[str, Any]) -> ExecutionError:
    traceback = content.get("traceback")
    return ExecutionError(
        name=str(content.get("ename", "")),
        message=str(content.get("evalue", "")),
        traceback=tuple(map(str, traceback)) if isinstance(traceback, list) else (),
    )


def _count(content: Mapping[str, Any]) -> int | None:
    count = content.get("execution_count")
    return count if type(count) is int else None
