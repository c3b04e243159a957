"""The outputs that an agent comes back for."""

from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from kallichore.cli.agent.output_log import LARGEST_ENTRY, OutputLog


def printed(text: str, stream: str = "stdout") -> dict[str, Any]:
    """Return a message of printed text."""
    return {"header": {"msg_type": "stream"}, "content": {"name": stream, "text": text}}


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=20)) | st.none(), max_size=30))
def test_who_asks_again_and_again_misses_nothing_and_gets_nothing_twice(pieces: list[tuple[str, str] | None]) -> None:
    """Whenever an agent asks for what is new, in whatever moments, it reads all that was printed, once, in order."""
    log, number, read = OutputLog("s"), 0, {"stdout": "", "stderr": ""}
    for piece in [*pieces, None]:
        if piece is not None:
            log.take(1, printed(piece[1], piece[0]))
            continue
        members = log.since(number).members
        number = members["next"]
        for output in members["outputs"]:
            read[output["kind"]] += output["text"]
    expected = {
        stream: "".join(piece[1] for piece in pieces if piece is not None and piece[0] == stream)
        for stream in ("stdout", "stderr")
    }

    assert expected == {name: text.encode("utf-8", "replace").decode() for name, text in read.items()}


def test_what_is_gone_is_counted() -> None:
    """Of a log that is full the oldest outputs go, and who asks for them is told how many are gone."""
    log = OutputLog("s", most_bytes=100)
    for run in range(10):
        log.take(run, printed("x" * 40))
    members = log.since(0).members

    assert (members["gone"], [output["number"] for output in members["outputs"]]) == (8, [9, 10])
    assert log.find(8) is None


def test_large_output_is_cut_with_a_link_to_the_whole() -> None:
    """An output that does not fit is cut in the answer, and its link leads to all of it."""
    log = OutputLog("s")
    log.take(1, printed("y" * 100_000))
    told = log.since(0)
    entry = log.find(1)

    assert told.members["outputs"][0]["truncated"] is True
    assert [link.uri for link in told.links] == ["kallichore://sessions/s/outputs/1"]
    assert entry is not None
    assert entry.content == ("text/plain", "y" * 100_000)


def test_endless_printing_becomes_several_outputs() -> None:
    """What is printed without an end is divided, so that its beginning can go while its end stays."""
    log = OutputLog("s")
    for _ in range(3):
        log.take(1, printed("z" * LARGEST_ENTRY))

    assert log.latest == 3


def test_image_is_read_as_what_it_is() -> None:
    """The whole of an output that is an image is the image."""
    log = OutputLog("s")
    log.take(1, {"header": {"msg_type": "display_data"}, "content": {"data": {"image/png": "aGk=\n"}}})
    entry = log.find(1)

    assert entry is not None
    assert entry.content == ("image/png", "aGk=")
    assert [image.data for image in log.since(0).images] == ["aGk="]
