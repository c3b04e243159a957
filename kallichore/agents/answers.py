"""What a tool answers: members for programs, images, and links to what is too large. [pure]

All of it stays within an agent's means: what it reads takes room that it needs for thinking.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from kallichore.conversation.history import Clipping
from kallichore.conversation.run_result import Display, RunResult
from kallichore.models.bodies import ExecutionError

TEXT_BUDGET = 32 << 10
"""UTF-8 bytes of text in one answer, all members together: what an agent reads costs it room to think."""

ERROR_BUDGET = 8 << 10
"""Bytes of these that an error may take, which comes first: it is what the agent has to know."""

MOST_IMAGES = 8
LARGEST_IMAGE = 4 << 20
"""Characters of an image in base64. Models refuse larger ones."""

IMAGE_TYPES = ("image/png", "image/jpeg")

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")

_SMALL = 256
"""Bytes that a text gets in any case: the end of what was printed, also behind a huge result."""


@attrs.frozen
class Image:
    """An image: its MIME type, and its data in base64."""

    mime_type: str
    data: str = attrs.field(repr=False)


@attrs.frozen
class Link:
    """Where the whole is of something that was cut."""

    uri: str
    name: str
    size: int | None = None


@attrs.frozen
class ToolAnswer:
    """What a tool answers.

    Args:
        members: The answer as a JSON object.
        images: Images beside it.
        links: Where the whole is of what was cut.
        is_error: Whether the tool could not do what it was asked for.
    """

    members: Mapping[str, Any]
    images: tuple[Image, ...] = ()
    links: tuple[Link, ...] = ()
    is_error: bool = False


@attrs.define
class Budget:
    """Text that is shared out: what one member takes, the next ones cannot have.

    Args:
        left: UTF-8 bytes.
    """

    left: int = TEXT_BUDGET
    is_truncated: bool = attrs.field(default=False, init=False)

    def fit(self, text: str, most: int | None = None) -> str:
        """Return a text as it is if it fits, else its beginning and its end, with a note of how much is missing.

        Args:
            text: The text.
            most: Bytes at most; None for all that are left.
        """
        room = max(_SMALL, self.left if most is None else min(most, self.left))
        size = len(text.encode("utf-8", "replace"))
        if size <= room:
            self.left -= size
            return text.encode("utf-8", "replace").decode()
        self.is_truncated = True
        clipping = Clipping(room)
        clipping.add(text)
        self.left -= room
        return clipping.text()


def images_of(displays: list[Display]) -> tuple[tuple[Image, ...], int]:
    """Return the images among what was displayed, the latest first to stay, and how many were left out."""
    found = [
        Image(kind, data.replace("\n", ""))
        for display in displays
        if (kind := next((kind for kind in IMAGE_TYPES if isinstance(display.data.get(kind), str)), None))
        and isinstance(data := display.data[kind], str)
    ]
    fitting = [image for image in found if len(image.data) <= LARGEST_IMAGE][-MOST_IMAGES:]
    return tuple(fitting), len(found) - len(fitting)


def _texts_of(display: Display, budget: Budget) -> dict[str, str]:
    """Return what is text in a display, by MIME type, the plain text first to have room."""
    texts: dict[str, str] = {}
    for kind in sorted(display.data, key=lambda kind: kind != "text/plain"):
        value = display.data[kind]
        text = value if isinstance(value, str) else json.dumps(value)
        if kind == "text/plain":
            texts[kind] = budget.fit(text)
        elif not kind.startswith("image/") or kind == "image/svg+xml":
            if len(text) * 4 <= budget.left:
                texts[kind] = budget.fit(text)
            else:
                # Half of a table in HTML is worth nothing, and its plain text is there.
                budget.is_truncated = True
    return texts


def without_colours(text: str) -> str:
    """Return a text without the escapes that colour it in terminals: to an agent they are noise."""
    return _COLOURS.sub("", text)


def error_members(error: ExecutionError, budget: Budget) -> dict[str, Any]:
    """Return an error as agents get it; of a long traceback the end."""
    traceback: list[str] = []
    room = min(ERROR_BUDGET, budget.left)
    for line in map(without_colours, reversed(error.traceback)):
        room -= len(line.encode("utf-8", "replace"))
        if room < 0 and traceback:
            budget.is_truncated = True
            break
        traceback.insert(0, budget.fit(line, ERROR_BUDGET // 2))
    name, message = budget.fit(error.name, _SMALL), budget.fit(error.message, ERROR_BUDGET // 4)
    return {"name": name, "message": message, "traceback": traceback}


def answer_run(
    result: RunResult, *, status: str, session_id: str, elapsed: float, links: tuple[Link, ...] = (), **facts: Any
) -> ToolAnswer:
    """Return the answer to a run.

    Args:
        result: What came of it, so far.
        status: ``ok``, ``error``, ``timed_out``, ``interrupted``, or ``running``.
        session_id: In which session.
        elapsed: Seconds that it took.
        links: Where the whole is, if something is cut.
        facts: More members.
    """
    budget = Budget()
    displays = [*result.displays, *([] if result.result is None else [result.result])]
    images, left_out = images_of(displays)
    members: dict[str, Any] = {"status": status, "session_id": session_id}
    if result.execution_count is not None:
        members["execution_count"] = result.execution_count
    if result.error is not None:
        members["error"] = error_members(result.error, budget)
    if result.result is not None:
        members["result"] = _texts_of(result.result, budget)
    members["stderr"] = budget.fit(result.stderr, budget.left // 2)
    members["stdout"] = budget.fit(result.stdout)
    shown = [texts for display in result.displays if (texts := _texts_of(display, budget))]
    if shown:
        members["displays"] = shown
    members["images"] = len(images)
    if left_out:
        members["images_left_out"] = left_out
    if result.dropped:
        members["messages_dropped"] = result.dropped
    is_truncated = budget.is_truncated or bool(left_out)
    members |= {"truncated": is_truncated, "elapsed_ms": round(elapsed * 1000), **facts}
    return ToolAnswer(members, images, links if is_truncated else ())


def answer_error(code: str, message: str, facts: Mapping[str, Any]) -> ToolAnswer:
    """Return the answer of a tool that could not do it."""
    budget = Budget()
    return ToolAnswer({"error": {"code": code, "message": budget.fit(message)}, **facts}, is_error=True)


def fit_entries(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return entries of a history, the latest ones, as many as fit into one answer."""
    budget = Budget()
    kept: list[dict[str, Any]] = []
    for entry in reversed(entries):
        if budget.left <= 0:
            break
        kept.insert(0, {**entry, **{name: budget.fit(str(entry[name])) for name in ("output", "input")}})
    return kept
