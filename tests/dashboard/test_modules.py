"""The dashboard's pure modules, asked in a browser: words, escapes, what was said, and what changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from browsing import Browsing, browse
from chromium import find_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here"),
]


class Modules:
    """Calls what modules export."""

    def __init__(self, browsing: Browsing) -> None:
        self._page = browsing.page

    async def __call__(self, module: str, name: str, *arguments: Any) -> Any:
        """Return what a function of a module returns; arguments are JSON."""
        given = json.dumps(arguments)[1:-1]
        return await self.told(module, f"((module) => module.{name}({given}))")

    async def told(self, module: str, function: str) -> Any:
        """Return what a function of JavaScript returns that is given a module."""
        return await self._page.evaluate(
            f"import(document.querySelector('script').src.replace('app.js', '{module}.js')).then({function})"
        )


@pytest.fixture
async def call() -> AsyncIterator[Modules]:
    """Return what calls modules."""
    async with browse() as browsing:
        await browsing.open_list()
        yield Modules(browsing)


@pytest.mark.parametrize(
    ("session", "words"),
    [
        ({}, None),
        ({"pending": None, "connection_lost": None}, None),
        ({"pending": {"reason": "Resources"}}, "Waits for a machine: Resources"),
        ({"pending": {"reason": "Priority", "position": 3}}, "Waits for a machine: Priority, 3 in the queue"),
        ({"connection_lost": {"reason": ""}}, "Computes on, and cannot be reached"),
        ({"connection_lost": {"reason": "no route"}}, "Computes on, and cannot be reached: no route"),
    ],
)
async def test_kernel_elsewhere_that_can_do_nothing_says_why(
    call: Modules, session: dict[str, Any], words: str | None
) -> None:
    """One without a machine, and one that is cut off, are told with the reason."""
    assert words == await call("words", "hindrance", session)


async def test_times_and_sizes_are_in_words(call: Modules) -> None:
    """A duration has one unit, a stopwatch is exact, and sizes have two digits at least."""
    expected = {
        ("duration", 0.4): "a moment",
        ("duration", 1): "1 second",
        ("duration", 59.9): "59 seconds",
        ("duration", 60): "1 minute",
        ("duration", 7300): "2 hours",
        ("duration", 200_000): "2 days",
        ("ago", 1000, 2500): "just now",
        ("ago", 0, 61_000): "1 minute ago",
        ("until", 61_000, 1000): "in 1 minute",
        ("until", 1000, 1000): "now",
        ("stopwatch", 0.0001): "1 ms",
        ("stopwatch", 0.0994): "99 ms",
        ("stopwatch", 0.0996): "0.10 s",
        ("stopwatch", 12.34): "12.3 s",
        ("stopwatch", 61): "01:01",
        ("stopwatch", 3725): "1:02:05",
        ("bytes", None): "–",
        ("bytes", 999): "999 bytes",
        ("bytes", 999.6): "1.0 kB",
        ("bytes", 54_400_000): "54 MB",
        ("bytes", 9_950_000): "10 MB",
        ("count", 1, "session"): "1 session",
        ("count", 1200, "session"): "1,200 sessions",
    }
    said = {question: await call("words", *question) for question in expected}

    assert expected == said


async def test_escapes_colour_and_do_no_more(call: Modules) -> None:
    """Colours become classes or colours, other escapes vanish, and text is never anything but text."""
    assert [{"text": "a<b>", "look": None}] == await call("ansi", "pieces", "a<b>")
    assert [
        {"text": "red", "look": {"classes": "a-f1", "style": {}}},
        {"text": "both", "look": {"classes": "a-bold a-f1", "style": {}}},
        {"text": "none", "look": None},
    ] == await call("ansi", "pieces", "\x1b[31mred\x1b[1mboth\x1b[0mnone")
    assert [{"text": "x", "look": {"classes": "", "style": {"color": "rgb(255 135 0)"}}}] == await call(
        "ansi", "pieces", "\x1b[38;5;208mx"
    )
    assert [{"text": "x", "look": {"classes": "", "style": {"backgroundColor": "rgb(1 2 3)"}}}] == await call(
        "ansi", "pieces", "\x1b[48;2;1;2;3mx"
    )
    assert "ab\nc" == await call("ansi", "plain", "\x1b]0;title\x07a\x1b[2K\x1b[1;1Hb\x00\nc")


async def test_what_is_written_over_is_gone(call: Modules) -> None:
    """A carriage return writes over the line, a backspace takes back, also where they come in pieces."""
    assert "50 %\ndone" == await call("ansi", "overwritten", "10 %\r50 %\r\ndone")
    assert "cdb" == await call("ansi", "overwritten", "aab\rcd")
    assert "ac" == await call("ansi", "overwritten", "ab\x08c")
    shown = ""
    for piece in ("10 %\r", "20 %\r", "30 %"):
        shown = await call("ansi", "appended", shown, piece)

    assert "30 %" == shown


def said(msg_type: str, parent: str = "m", **content: Any) -> dict[str, Any]:
    """Return a message of a kernel."""
    header = {"msg_id": "k", "msg_type": msg_type, "date": "2026-01-01T00:00:00Z"}
    return {"kind": "jupyter", "header": header, "parent_header": {"msg_id": parent}, "content": content}


EMPTY = {"cells": [], "seq": 0, "question": None, "exited": False}


async def test_messages_become_executions_with_their_outputs(call: Modules) -> None:
    """Code, output, results that are replaced, and the end belong to the execution that they name."""
    messages = [
        said("execute_input", code="f()", execution_count=3),
        said("stream", name="stdout", text="a"),
        said("stream", name="stdout", text="b\n"),
        said("stream", name="stderr", text="c"),
        said("display_data", data={"text/plain": "1"}, transient={"display_id": "d"}),
        said("update_display_data", data={"text/plain": "2"}, transient={"display_id": "d"}),
        said("error", ename="E", evalue="v", traceback=["t"]),
        {**said("status", execution_state="idle"), "seq": 9},
    ]
    console = await call("console", "hear", EMPTY, messages)
    (cell,) = console["cells"]

    assert (9, "f()", 3, False) == (console["seq"], cell["code"], cell["count"], cell["running"])
    assert [
        ("stream", "ab\n"),
        ("stream", "c"),
        ("display", {"text/plain": "2"}),
        ("error", ["t"]),
    ] == [(each["type"], each.get("text", each.get("data", each.get("traceback")))) for each in cell["outputs"]]


async def test_agents_code_bears_its_name(call: Modules) -> None:
    """Code that is announced is shown at once with who has it run, and what comes of it goes there; of what is in the
    history alone, it tells who that was.
    """
    announced = {"msg_id": "m", "code": "f()", "attribution": {"source": "agent", "agent_name": "Ada"}}
    messages = [
        {"kind": "kernel", "executionRequested": announced},
        said("execute_input", code="f()", execution_count=3),
    ]
    waiting = (await call("console", "hear", EMPTY, messages[:1]))["cells"]
    begun = (await call("console", "hear", EMPTY, messages))["cells"]
    nameless = {**announced, "attribution": {"source": "script", "agent_name": None}}
    other = (await call("console", "hear", EMPTY, [{"kind": "kernel", "executionRequested": nameless}]))["cells"]

    entry = {"input": "f()", "output": "x", "timestamp": 1, "truncated": False, "agent": "Ada"}
    older = await call("session", "cellOfEntry", entry)

    assert ("f()", "Ada", "x") == (older["code"], older["agent"], older["outputs"][0]["text"])
    assert [("f()", "Ada", False)] == [(cell["code"], cell["agent"], cell["running"]) for cell in waiting]
    assert [(3, "Ada", True)] == [(cell["count"], cell["agent"], cell["running"]) for cell in begun]
    assert ["script"] == [cell["agent"] for cell in other]


async def test_cleared_output_is_gone_at_once_or_with_the_next(call: Modules) -> None:
    """clear_output takes away what is there; with wait, only when something else comes."""
    begin = [said("execute_input", code="x", execution_count=1), said("stream", name="stdout", text="old")]
    wait = [*begin, said("clear_output", wait=True)]

    async def texts(messages: list[dict[str, Any]]) -> list[str]:
        console = await call("console", "hear", EMPTY, messages)
        return [output["text"] for output in console["cells"][0]["outputs"]]

    assert [] == await texts([*begin, said("clear_output", wait=False)])
    assert ["old"] == await texts(wait)
    assert ["new"] == await texts([*wait, said("stream", name="stdout", text="new")])


async def test_end_of_a_kernel_ends_what_ran_and_what_it_asked(call: Modules) -> None:
    """When a kernel ends nothing runs any more, no question is open, and the console says so."""
    messages = [
        said("execute_input", code="x", execution_count=1),
        said("input_request", prompt="? ", password=False),
        {"kind": "kernel", "exited": 1, "seq": 3},
    ]
    asked = await call("console", "hear", EMPTY, messages[:2])
    console = await call("console", "hear", EMPTY, messages)

    assert "? " == asked["question"]["prompt"]
    assert (None, [False, None]) == (console["question"], [cell.get("running") for cell in console["cells"]])
    assert "The kernel ended." == console["cells"][1]["notice"]


async def test_history_is_shown_up_to_where_the_channels_begin(call: Modules) -> None:
    """Of the history, what the channels tell as well is left out, by what ran in which order, and the rest is kept."""

    async def older(history: str, told: str) -> str:
        entries = [{"input": code} for code in history]
        cells = [{"code": None}, *({"code": code} for code in told)]
        return "".join(entry["input"] for entry in await call("console", "olderEntries", entries, cells))

    assert "abc" == await older("abc", "")
    assert "ab" == await older("abc", "c")
    assert "a" == await older("abc", "bcd")
    assert "" == await older("abc", "abcdef")
    assert "aa" == await older("aab", "b")
    assert "a" == await older("aaa", "aa")
    assert "abc" == await older("abc", "de")


async def test_sessions_are_arranged(call: Modules) -> None:
    """They are filtered by words and kind, and sorted by what is chosen, with the name where that is equal."""
    base = {"display_name": "Python", "language": "python", "working_directory": "/w", "running": None}
    sessions = [
        {**base, "session_id": name, "status": status, "started": started, "resource_usage": {"memory_bytes": memory}}
        for name, status, started, memory in [
            ("b", "idle", "2026-01-02T00:00:00Z", 5),
            ("a", "busy", "2026-01-03T00:00:00Z", 5),
            ("c", "exited", "2026-01-01T00:00:00Z", 9),
        ]
    ]

    async def names(**view: Any) -> str:
        view = {"text": "", "kind": "all", "key": "name", "down": False, **view}
        return "".join(each["session_id"] for each in await call("list", "arrange", sessions, view))

    assert ["abc", "cba"] == [await names(), await names(down=True)]
    assert ["abc", "abc"] == [await names(key="status"), await names(key="memory")]
    assert ["b", "a", "c"] == [await names(kind=kind) for kind in ("idle", "busy", "ended")]
    assert ["b", ""] == [await names(text="PYTH b"), await names(text="ruby")]


REMEMBER = """(({ remember }) => {
  const sessions = new Map(["a", "b"].map((id) => [id, { session_id: id, process_id: 1 }]));
  const seen = [{ time: 5100, memory: 4, cpu: 40 }, { time: 9000, memory: 5, cpu: 50 }];
  const after = remember({ sessions, samples: new Map([["a", seen]]), totals: [] }, { sessions: RECORD });
  return [Object.fromEntries(after.samples), after.totals];
})"""
"""Tells a page that has seen two samples of one of its sessions what the server kept."""


async def test_plots_begin_with_what_the_server_kept(call: Modules) -> None:
    """What the server kept comes before what the page has seen, in steps; the total begins where all are known."""
    record = {
        "a": {"time": [1000, 3000, 5000], "memory_bytes": [1, 2, 3], "cpu_percent": [10, 20, 30]},
        "b": {"time": [3500, 6000], "memory_bytes": [100, 200], "cpu_percent": [0, 5]},
        "gone": {"time": [1000], "memory_bytes": [9], "cpu_percent": [9]},
    }
    samples, totals = await call.told("live", REMEMBER.replace("RECORD", json.dumps(record)))
    seen = [(1000, 1, 10), (3000, 2, 20), (5000, 3, 30), (9000, 5, 50)]
    together = [(3500, 102, 20), (5000, 103, 30), (6000, 203, 35), (9000, 205, 55)]

    assert {"a", "b"} == samples.keys()
    assert seen == [tuple(each.values()) for each in samples["a"]]
    assert together == [tuple(each.values()) for each in totals]


async def test_points_of_a_plot_are_in_its_box(call: Modules) -> None:
    """The latest sample is at the right edge, older ones to the left, and what is too old is left out."""
    samples = [{"time": at, "cpu": cpu} for at, cpu in ((0, 50), (50, 0), (100, 100), (150, 300))]

    assert ["0.0,23.0", "50.0,1.0", "100.0,1.0"] == await call("plot", "points", samples, "cpu", 100, 100, 150)
