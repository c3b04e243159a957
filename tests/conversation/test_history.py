"""The history of executions: what is kept, of whom, and how little of what is endless."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.conversation.history import LARGE, MOST_BYTES, MOST_ENTRIES, Clipping, History
from kallichore.models.bodies import ExecutionError
from kallichore.wire.client_messages import ClientMessage
from kallichore.wire.envelope import KernelMessage, KernelReader
from kallichore.wire.frames import MessageParts, join
from kallichore.wire.signing import Signer

SIGNER = Signer("")


def request(msg_id: str, code: str = "1", metadata: Any = None, **content: Any) -> ClientMessage:
    """Return an execute_request."""
    header = {"msg_id": msg_id, "msg_type": "execute_request"}
    body = json.dumps({"code": code, **content}).encode()
    return ClientMessage(msg_id, "execute_request", "shell", header, None, body, json.dumps(metadata or {}).encode())


def message(parent: str, msg_type: str, content: Any) -> KernelMessage:
    """Return a message of the kernel."""
    headers = ({"msg_id": "x", "msg_type": msg_type}, {"msg_id": parent, "msg_type": "execute_request"})
    parts = [json.dumps(part).encode() for part in (*headers, {}, content)]
    return KernelReader("iopub", SIGNER).read(join(MessageParts(*parts, []), SIGNER))


def test_entries_tell_input_output_and_attribution() -> None:
    """Streams, displays and the result are joined in order, and the request's metadata says whose it was."""
    history = History()
    attribution = {"attribution": {"source": "agent", "agent_name": "Ada"}}
    history.begin(request("a", "x", attribution), 17)
    history.hear(message("a", "stream", {"name": "stdout", "text": "one\n"}))
    history.hear(message("a", "display_data", {"data": {"image/png": "…", "text/html": "…"}}))
    history.hear(message("a", "execute_result", {"data": {"text/plain": ["4", "2"]}}))
    history.hear(message("b", "stream", {"name": "stdout", "text": "of another"}))
    history.hear(message("a", "execute_reply", {"status": "ok"}))
    (entry,) = history.entries()

    assert ("x", "one\n[image/png, text/html]\n42\n") == (entry.input, entry.output)
    assert (17, "agent", "Ada", None, False) == (
        entry.timestamp,
        entry.source,
        entry.agent,
        entry.error,
        entry.truncated,
    )


@pytest.mark.parametrize("msg_types", [("error", "execute_reply"), ("execute_reply",)])
def test_error_is_kept_once(msg_types: tuple[str, ...]) -> None:
    """An error message counts, and the reply's where there was none before."""
    history = History()
    history.begin(request("a"), 0)
    for number, msg_type in enumerate(msg_types):
        error = {"status": "error", "ename": f"E{number}", "evalue": "no", "traceback": ["one", "two"]}
        history.hear(message("a", msg_type, error))

    assert ExecutionError(name="E0", message="no", traceback=("one", "two")) == history.entries()[0].error


def test_long_errors_keep_their_end() -> None:
    """Name and message are cut, and of the traceback the last lines stay."""
    history = History()
    history.begin(request("a"), 0)
    lines = [f"line {number:04} " + "é" * 50 for number in range(200)]
    history.hear(message("a", "error", {"ename": "n" * 999, "evalue": "é" * 9999, "traceback": lines}))
    (entry,) = history.entries()
    assert entry.error is not None

    assert (256, 2048) == (len(entry.error.name), len(entry.error.message.encode()))
    assert lines[-len(entry.error.traceback) :] == list(entry.error.traceback)
    assert len("".join([entry.error.name, entry.error.message, *entry.error.traceback]).encode()) <= MOST_BYTES
    assert entry.truncated


@pytest.mark.parametrize(
    "ignored",
    [
        request("a", silent=True),
        ClientMessage("a", "execute_request", "shell", {}, None, b'{"code": 1}'),
        ClientMessage("a", "kernel_info_request", "shell", {}, None, b"{}"),
    ],
    ids=["silent", "no code", "no execution"],
)
def test_what_is_no_visible_execution_is_not_kept(ignored: ClientMessage) -> None:
    """Silent requests and everything else leave no entry."""
    history = History()
    history.begin(ignored, 0)

    assert () == history.entries()


def test_oldest_entries_go_first() -> None:
    """A hundred entries stay, and the latest few can be asked for."""
    history = History()
    for number in range(MOST_ENTRIES + 5):
        history.begin(request(str(number), code=str(number)), number)

    assert [history.code_of(msg_id) for msg_id in ("4", "5", "104")] == ["", "5", "104"]
    assert [str(number) for number in range(5, MOST_ENTRIES + 5)] == [entry.input for entry in history.entries()]
    assert ["103", "104"] == [entry.input for entry in history.entries(2)]


pieces = st.tuples(st.text(max_size=12), st.sampled_from([1, 1, 2, 40])).map(lambda piece: piece[0] * piece[1])


@given(st.lists(pieces, max_size=40), st.integers(8, 64))
def test_clipping_keeps_both_ends(pieces: list[str], most_bytes: int) -> None:
    """What fits is whole; else the first and the newest half stay, without half a character, and the rest is
    counted.
    """
    clipping, whole = Clipping(most_bytes), "".join(pieces)
    for piece in pieces:
        clipping.add(piece)
    text, data = clipping.text(), whole.encode("utf-8", "replace")

    if len(data) <= most_bytes:
        assert data.decode() == text
    else:
        head, rest = text.split("\n[... ", 1)
        missing, tail = rest.split(" bytes left out ...]\n", 1)
        assert data.startswith(head.encode())
        assert data.endswith(tail.encode())
        assert len(data) == len(head.encode()) + int(missing) + len(tail.encode())
        assert (most_bytes + 1) // 2 - 4 < len(head.encode()) <= (most_bytes + 1) // 2
        assert most_bytes // 2 - 4 < len(tail.encode()) <= most_bytes // 2
    assert clipping.is_truncated == (len(data) > most_bytes)


@pytest.mark.parametrize("pieces", [["x" * 64], ["x"] * 64, ["x" * 32, "x" * 32], ["x" * 40, "x" * 24]])
def test_what_just_fits_is_whole(pieces: list[str]) -> None:
    """A byte more is too much."""
    clipping = Clipping(64)
    for piece in pieces:
        clipping.add(piece)
    whole = (clipping.text(), clipping.is_truncated)
    clipping.add("y")

    assert whole == ("x" * 64, False)
    assert clipping.text() == "x" * 32 + "\n[... 1 bytes left out ...]\n" + "x" * 31 + "y"
    assert clipping.is_truncated


@pytest.mark.parametrize("text", ["\ud800", "\ud800" * 300, "é\ud800" * 300])
def test_half_a_pair_is_a_question_mark(text: str) -> None:
    """Text that no encoding takes is clipped all the same, at its beginning and later."""
    first, later = Clipping(64), Clipping(64)
    later.add("x" * 64)
    for clipping in (first, later):
        clipping.add(text)

    assert "?" in first.text()
    assert later.text().endswith("?")


def test_bytes_that_are_left_out_are_counted() -> None:
    """Characters of text, or of a JSON string that was not read."""
    added, literal = Clipping(64), Clipping(64)
    added.add("é" * 1000)
    literal.add_literal(b'"%s"' % (b"x" * 1000))

    assert "[... 1936 bytes left out ...]" in added.text()
    assert literal.text() == "x" * 32 + "\n[... 936 bytes left out ...]\n" + "x" * 32


def test_endless_output_takes_bounded_memory() -> None:
    """A flood leaves no more behind than the limit and one message."""
    clipping = Clipping()
    for _ in range(10_000):
        clipping.add("x" * 100)

    assert clipping._tail_bytes <= MOST_BYTES // 2 + 100


@given(st.text(max_size=40), st.text(max_size=40), st.text(min_size=1, max_size=9), st.booleans())
def test_large_text_is_read_at_its_ends(first: str, last: str, middle: str, ascii_only: bool) -> None:
    """Of a large JSON string both ends are kept as they were, wherever the cuts are, and nothing else is read."""
    whole = first + middle * (LARGE // len(middle)) + last
    clipping = Clipping(64)
    clipping.add_literal(json.dumps(whole, ensure_ascii=ascii_only).encode("utf-8", "replace"))
    text = clipping.text()
    data = whole.encode("utf-8", "replace")
    head, _, tail = text.partition("\n[... ")

    assert data.startswith(head.encode())
    assert data.endswith(tail.partition(" bytes left out ...]\n")[2].encode())
    assert len(head.encode()) > 64 // 2 - 4


def test_large_message_is_clipped_in_the_history() -> None:
    """A message of megabytes leaves its ends and their note, also where the text is short after all."""
    history = History()
    history.begin(request("a"), 0)
    history.hear(message("a", "stream", {"name": "stdout", "text": "b" + "x" * 2 * LARGE + "e"}))
    history.begin(request("b"), 0)
    history.hear(message("b", "stream", {"name": "stdout", "text": "short", "more": "x" * 2 * LARGE}))
    clipped, short = (entry.output for entry in history.entries())

    assert clipped.startswith("bxxx")
    assert clipped.endswith("xxxe")
    assert "bytes left out" in clipped
    assert len(clipped) < 2 * MOST_BYTES
    assert "short" == short


def test_large_output_that_is_no_text_is_left_out() -> None:
    """What cannot be read is counted, and nothing else of it is there."""
    history = History()
    history.begin(request("a"), 0)
    history.hear(message("a", "stream", {"name": "stdout", "text": ["x" * 9] * LARGE}))
    (entry,) = history.entries()

    assert entry.output.startswith("\n[... ")
    assert entry.output.endswith(" bytes left out ...]\n")


def test_error_without_a_name_is_kept() -> None:
    """What is missing is empty."""
    history = History()
    history.begin(request("a"), 0)
    history.hear(message("a", "error", {}))

    assert history.entries()[0].error == ExecutionError(name="", message="", traceback=())
    assert not history.entries()[0].truncated


@pytest.mark.parametrize(
    ("traceback", "kept", "truncated"),
    [
        (["x" * MOST_BYTES], ["x" * MOST_BYTES], False),
        (["y" + "x" * MOST_BYTES], ["x" * MOST_BYTES], True),
        (["é" * MOST_BYTES + "x"], ["é" * (MOST_BYTES // 2 - 1) + "x"], True),
        (["a", "x" * MOST_BYTES, "b"], ["b"], True),
        (["a", "x" * (MOST_BYTES - 2), "b"], ["a", "x" * (MOST_BYTES - 2), "b"], False),
    ],
    ids=["fits", "one too long", "one with letters of two bytes", "a long one in the middle", "all fit"],
)
def test_end_of_a_traceback_is_kept(traceback: list[str], kept: list[str], truncated: bool) -> None:
    """As many whole lines as there is room for; of a last one that is too long its end."""
    history = History()
    history.begin(request("a"), 0)
    history.hear(message("a", "error", {"traceback": traceback}))
    (entry,) = history.entries()
    assert entry.error is not None

    assert (list(entry.error.traceback), entry.truncated) == (kept, truncated)


def test_message_is_cut_between_characters() -> None:
    """Half a letter is none."""
    history = History()
    history.begin(request("a"), 0)
    history.hear(message("a", "error", {"evalue": "x" + "é" * 9999}))
    error = history.entries()[0].error
    assert error is not None

    assert error.message == "x" + "é" * 1023


def test_attribution_that_cannot_be_read_is_none() -> None:
    """The execution is kept all the same."""
    history = History()
    history.begin(request("a", metadata={"attribution": 5}), 0)
    (entry,) = history.entries()

    assert (entry.input, entry.source, entry.agent) == ("1", None, None)
