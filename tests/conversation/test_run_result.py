"""What an execution's messages come to: one value with its text, displays, result and error."""

from __future__ import annotations

from typing import Any

import pytest

from kallichore.conversation.run_result import Display, Output, Printed, ResultCollector, RunResult
from kallichore.models.bodies import ExecutionError

OK = {"status": "ok", "execution_count": 4}


def message(msg_type: str, **content: Any) -> dict[str, Any]:
    """Return a message as a listener gets it."""
    return {"header": {"msg_type": msg_type}, "content": content}


def printed(text: str, name: str = "stdout") -> dict[str, Any]:
    """Return a message with text that was printed."""
    return message("stream", name=name, text=text)


def shown(text: str, display_id: str | None = None, msg_type: str = "display_data") -> dict[str, Any]:
    """Return a message that shows text, under a name that may be shown anew."""
    transient = {} if display_id is None else {"display_id": display_id}
    return message(msg_type, data={"text/plain": text}, metadata={}, transient=transient)


def collect(*messages: dict[str, Any], reply: dict[str, Any] = OK) -> RunResult:
    """Return what messages come to."""
    collector = ResultCollector()
    for each in messages:
        collector.take(each)
    return collector.finish(reply)


def test_text_is_both_streams_in_order_and_each_is_there_alone() -> None:
    """What is printed in pieces is one text; of two streams in turn, each is told apart."""
    result = collect(printed("a"), printed("b"), printed("!", "stderr"), printed("c"))

    assert "ab!c" == result.text
    assert ("abc", "!") == (result.stdout, result.stderr)
    assert (Printed("stdout", "ab"), Printed("stderr", "!"), Printed("stdout", "c")) == result.outputs


def test_result_is_the_value_of_the_last_line() -> None:
    """The value is the result, is no display, and reads as its text."""
    bundle = {"text/plain": "42", "text/html": "<b>42</b>"}
    result = collect(message("execute_result", execution_count=7, data=bundle, metadata={"m": 1}))

    assert Display(bundle, {"m": 1}) == result.result
    assert "42" == str(result.result)
    assert () == result.outputs
    assert 7 == result.execution_count


def test_nothing_said_is_an_empty_result() -> None:
    """Code that says nothing has a status and a number."""
    assert RunResult(status="ok", execution_count=4) == collect()


def test_displays_stand_between_what_is_printed() -> None:
    """A display keeps its place, and is in the list of displays."""
    result = collect(printed("a"), shown("x"), printed("b"), shown("y"))

    assert ["a", "x", "b", "y"] == [str(output) for output in result.outputs]
    assert (Display({"text/plain": "x"}), Display({"text/plain": "y"})) == result.displays
    assert "ab" == result.text


def test_display_that_is_updated_is_the_newer_one_wherever_it_stands() -> None:
    """An update takes the place of all displays of its name, adds none, and leaves others."""
    update = shown("new", "d", "update_display_data")
    result = collect(shown("old", "d"), shown("other", "e"), shown("old", "d"), shown("nameless"), update)

    assert ["new", "other", "new", "nameless"] == [str(output) for output in result.outputs]


def test_update_of_what_was_never_shown_adds_nothing() -> None:
    """An update without a display, and one without a name, show nothing."""
    unknown = shown("new", "d", "update_display_data")
    nameless = shown("new", None, "update_display_data")

    assert ["old", "empty"] == [
        str(output) for output in collect(shown("old"), shown("empty", ""), unknown, nameless).outputs
    ]


def test_display_without_text_reads_as_nothing() -> None:
    """A picture has no text of its own."""
    assert "" == str(Display({"image/png": "aGk="}))


def test_what_a_careless_kernel_leaves_out_is_empty() -> None:
    """What is printed nowhere is on standard output; an error has no name and no words."""
    result = collect(message("stream", text="a"), message("stream", name="stderr"), message("error"))

    assert (Printed("stdout", "a"), Printed("stderr", "")) == result.outputs
    assert ExecutionError(name="", message="", traceback=()) == result.error


@pytest.mark.parametrize(
    ("wait", "after", "expected"),
    [(False, (), ""), (True, (), "a"), (False, ("b",), "b"), (True, ("b", "c"), "bc")],
)
def test_output_is_cleared_at_once_or_when_more_comes(wait: bool, after: tuple[str, ...], expected: str) -> None:
    """What was there before ``clear_output`` goes at once; with ``wait``, when its successor is there."""
    result = collect(printed("a"), message("clear_output", wait=wait), *map(printed, after))

    assert expected == result.text


def test_display_that_was_cleared_is_not_updated() -> None:
    """A name is forgotten with what it stood for."""
    update = shown("new", "d", "update_display_data")
    result = collect(shown("old", "d"), message("clear_output", wait=False), shown("another"), update)

    assert ["another"] == [str(output) for output in result.outputs]


def test_error_is_told_with_its_traceback() -> None:
    """What the code raised is in `error`, and the status says so."""
    raised = {"ename": "ValueError", "evalue": "no", "traceback": ["line 1", "line 2"]}
    expected = ExecutionError(name="ValueError", message="no", traceback=("line 1", "line 2"))
    result = collect(message("error", **raised), reply={"status": "error", "ename": "E", "evalue": "", "traceback": []})

    assert ("error", expected) == (result.status, result.error)


def test_error_of_a_kernel_that_only_replies_is_taken_from_the_reply() -> None:
    """Where no error was published, as with silent code, the reply has it."""
    result = collect(reply={"status": "error", "ename": "E", "evalue": "why", "traceback": None})

    assert ExecutionError(name="E", message="why", traceback=()) == result.error


@pytest.mark.parametrize("reply", [{"status": "aborted"}, {"status": "abort"}, {}])
def test_code_that_did_not_run_to_its_end_is_aborted(reply: dict[str, Any]) -> None:
    """Any other status is no success and no error of the code."""
    result = collect(reply=reply)

    assert ("aborted", None, None) == (result.status, result.error, result.execution_count)


def test_expressions_are_answered_and_the_count_is_the_replys() -> None:
    """What the kernel says to the user's expressions is passed on."""
    answers = {"x": {"status": "ok", "data": {"text/plain": "1"}}}

    assert answers == collect(reply={**OK, "user_expressions": answers}).user_expressions
    assert 4 == collect(reply={**OK, "user_expressions": None}).execution_count


def test_each_output_is_told_when_it_comes() -> None:
    """`take` returns what a watcher is to see, and nothing for other messages."""
    collector = ResultCollector()
    told: list[Output | None] = [
        collector.take(each)
        for each in (
            message("status", execution_state="busy"),
            printed("a"),
            shown("x", "d"),
            shown("y", "d", "update_display_data"),
            message("execute_result", data={"text/plain": "1"}),
        )
    ]

    assert [None, Printed("stdout", "a"), Display({"text/plain": "x"}), Display({"text/plain": "y"}), None] == told


def test_what_was_dropped_is_said() -> None:
    """The number of messages that could not be kept is in the result."""
    assert 3 == ResultCollector().finish(OK, dropped=3).dropped


@pytest.mark.parametrize("content", [{}, {"data": None, "metadata": [], "transient": 1}, {"name": None, "text": None}])
@pytest.mark.parametrize("msg_type", ["stream", "display_data", "update_display_data", "execute_result", "error"])
def test_careless_kernels_raise_nothing(msg_type: str, content: dict[str, Any]) -> None:
    """Members that are missing, or of another kind, are no reason to fail."""
    assert "ok" == collect(message(msg_type, **content)).status


def test_number_that_is_none_is_left_out() -> None:
    """A count that is true, or a text, is no count."""
    assert None is collect(reply={"status": "ok", "execution_count": True}).execution_count
