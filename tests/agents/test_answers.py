"""What agents are answered: within their means, and honest about what is missing."""

from __future__ import annotations

import json

from hypothesis import given, strategies as st

from kallichore.agents.answers import (
    LARGEST_IMAGE,
    MOST_IMAGES,
    TEXT_BUDGET,
    Budget,
    Link,
    answer_run,
    error_members,
)
from kallichore.conversation.run_result import Display, Printed, RunResult
from kallichore.models.bodies import ExecutionError

LINK = Link("kallichore://sessions/s/outputs/1", "output 1")


def answer(result: RunResult) -> dict[str, object]:
    """Return the members of the answer to a run."""
    return dict(answer_run(result, status=result.status, session_id="s", elapsed=0.5, links=(LINK,)).members)


def test_small_run_is_told_whole() -> None:
    """What fits is there as it is: both streams apart, the result by MIME type, and nothing is called truncated."""
    outputs = (Printed("stdout", "a\n"), Printed("stderr", "b\n"), Printed("stdout", "c\n"))
    result = RunResult(status="ok", execution_count=3, outputs=outputs, result=Display({"text/plain": "42"}))
    expected = {
        "status": "ok",
        "session_id": "s",
        "execution_count": 3,
        "result": {"text/plain": "42"},
        "stdout": "a\nc\n",
        "stderr": "b\n",
        "images": 0,
        "truncated": False,
        "elapsed_ms": 500,
    }

    assert expected == answer(result)


@given(
    st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(min_size=1), st.integers(1, 50_000)), max_size=4),
    st.text(max_size=5),
    st.integers(1, 50_000),
)
def test_text_of_a_run_stays_within_its_budget(printed: list[tuple[str, str, int]], result: str, times: int) -> None:
    """However much code prints and returns, all texts of an answer together stay within the budget, but for the notes
    of what is missing; what was cut is said to be, and only then is there a link to the whole.
    """
    outputs = tuple(Printed(stream, text * count) for stream, text, count in printed)
    run = RunResult(status="ok", outputs=outputs, result=Display({"text/plain": result * times}))
    told = answer_run(run, status="ok", session_id="s", elapsed=0, links=(LINK,))
    texts = [told.members["stdout"], told.members["stderr"], told.members["result"]["text/plain"]]
    is_cut = texts != [run.stdout, run.stderr, str(run.result)]

    assert sum(len(text.encode("utf-8", "replace")) for text in texts) <= TEXT_BUDGET + 1000
    assert told.members["truncated"] == is_cut
    assert told.links == ((LINK,) if is_cut else ())


def test_cut_text_says_how_much_is_missing() -> None:
    """A text that is too long keeps its beginning and its end, with the number of bytes between them."""
    text = Budget().fit("begin" + "x" * 100_000 + "end")

    assert (text[:5], text[-3:]) == ("begin", "end")
    assert f"[... {100_008 - TEXT_BUDGET} bytes left out ...]" in text


def test_error_comes_first_and_keeps_the_end_of_its_traceback() -> None:
    """A long traceback keeps its last lines, without a terminal's colours."""
    lines = tuple(f"\x1b[31mline {number}\x1b[39m " + "." * 100 for number in range(1000))
    told = error_members(ExecutionError(name="E", message="why", traceback=lines), Budget())

    assert told["traceback"][-1] == "line 999 " + "." * 100
    assert len(json.dumps(told)) < 10_000


def test_images_are_beside_the_text_and_not_in_it() -> None:
    """An image is content of its own, once; one that is too large, and all but the latest of many, are counted."""
    pictures = tuple(Display({"image/png": f"{number}\n", "text/plain": "<Figure>"}) for number in range(10))
    huge = Display({"image/jpeg": "x" * (LARGEST_IMAGE + 1)})
    run = RunResult(status="ok", outputs=(*pictures, huge))
    told = answer_run(run, status="ok", session_id="s", elapsed=0)

    assert [image.data for image in told.images] == ["2", "3", "4", "5", "6", "7", "8", "9"]
    assert (told.members["images"], told.members["images_left_out"]) == (MOST_IMAGES, 3)
    assert "image/png" not in json.dumps(dict(told.members))


def test_table_in_html_is_whole_or_not_there() -> None:
    """What is worth nothing in halves is left out where it is large, and its plain text stays."""
    small = RunResult(status="ok", result=Display({"text/html": "<b>", "text/plain": "b"}))
    large = RunResult(status="ok", result=Display({"text/html": "<b>" * 20_000, "text/plain": "b"}))

    assert answer(small)["result"] == {"text/plain": "b", "text/html": "<b>"}
    assert (answer(large)["result"], answer(large)["truncated"]) == ({"text/plain": "b"}, True)
