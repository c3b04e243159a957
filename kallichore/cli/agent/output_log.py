"""What the runs of a session have put out, numbered: so that an agent may leave a run and come back. [pure]

What is printed in pieces is one output as long as nobody was told its number; what comes then has the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs

from kallichore.agents.answers import IMAGE_TYPES, Budget, Link, ToolAnswer, images_of, without_colours
from kallichore.conversation.run_result import Display

MOST_BYTES = 64 << 20
"""Characters that are kept for each session; then the oldest outputs go, and who asks for them is told so."""

LARGEST_ENTRY = 4 << 20
"""Characters of one output of printed text; what follows is the next."""


@attrs.define
class Entry:
    """One output.

    Args:
        number: Its number, from 1 on.
        run: Which run put it out.
        kind: ``stdout``, ``stderr``, ``display``, ``result``, ``error`` or ``end``.
    """

    number: int
    run: int
    kind: str
    display: Display | None = None
    _pieces: list[str] = attrs.field(factory=list)
    size: int = attrs.field(default=0, init=False)

    def add(self, text: str) -> None:
        """Add text at its end."""
        self._pieces.append(text)
        self.size += len(text)

    @property
    def text(self) -> str:
        """Its text."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    @property
    def content(self) -> tuple[str, str]:
        """The whole of it, with its MIME type: text, or an image in base64."""
        if self.display is not None:
            for kind in IMAGE_TYPES:
                if isinstance(data := self.display.data.get(kind), str):
                    return kind, data.replace("\n", "")
        return "text/plain", self.text


@attrs.define
class OutputLog:
    """The outputs of one session.

    Args:
        session_id: Whose.
        most_bytes: Characters that are kept.
    """

    session_id: str
    most_bytes: int = MOST_BYTES
    latest: int = attrs.field(default=0, init=False)
    """The number of the latest output."""
    _entries: deque[Entry] = attrs.field(factory=deque, init=False)
    _told: int = attrs.field(default=0, init=False)
    """The latest number that somebody was told."""
    _size: int = attrs.field(default=0, init=False)

    def take(self, run: int, message: Mapping[str, Any]) -> None:
        """Take in a message of the kernel about a run."""
        content = message.get("content")
        content = content if isinstance(content, dict) else {}
        match message["header"]["msg_type"]:
            case "stream":
                self._print(run, str(content.get("name", "stdout")), str(content.get("text", "")))
            case "display_data" | "update_display_data":
                self._show(run, "display", content)
            case "execute_result":
                self._show(run, "result", content)
            case "error":
                lines = content.get("traceback")
                words = [f"{content.get('ename', '')}: {content.get('evalue', '')}", *(lines if lines else ())]
                self._add(run, "error", without_colours("\n".join(map(str, words))))

    def end(self, run: int, words: str) -> None:
        """Note that a run is over, and how."""
        self._add(run, "end", words)

    def _print(self, run: int, stream: str, text: str) -> None:
        last = self._entries[-1] if self._entries else None
        is_more = last is not None and (last.run, last.kind) == (run, stream) and last.number > self._told
        if last is not None and is_more and last.size + len(text) <= LARGEST_ENTRY:
            last.add(text)
            self._size += len(text)
            self._drop_oldest()
        else:
            self._add(run, stream, text)

    def _show(self, run: int, kind: str, content: Mapping[str, Any]) -> None:
        data = content.get("data")
        display = Display(data if isinstance(data, dict) else {})
        self._add(run, kind, str(display), display)

    def _add(self, run: int, kind: str, text: str, display: Display | None = None) -> None:
        self.latest += 1
        entry = Entry(self.latest, run, kind, display)
        entry.add(text)
        if display is not None:
            entry.size += sum(len(value) for value in display.data.values() if isinstance(value, str))
        self._entries.append(entry)
        self._size += entry.size
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while self._size > self.most_bytes and len(self._entries) > 1:
            self._size -= self._entries.popleft().size

    def find(self, number: int) -> Entry | None:
        """Return an output; None if there is none with this number, or it is gone."""
        place = number - self._entries[0].number if self._entries else -1
        return self._entries[place] if 0 <= place < len(self._entries) else None

    def link(self, entry: Entry) -> Link:
        """Return where the whole of an output is."""
        uri = f"kallichore://sessions/{self.session_id}/outputs/{entry.number}"
        return Link(uri, f"output {entry.number}: {entry.kind}", entry.size)

    def links(self, first: int) -> tuple[Link, ...]:
        """Return where the outputs from a number on are whole."""
        return tuple(self.link(entry) for entry in self._entries if entry.number >= first and entry.kind != "end")

    def since(self, number: int, **facts: Any) -> ToolAnswer:
        """Return what was put out beyond a number, as far as it fits into one answer.

        Args:
            number: The number.
            facts: More members of the answer.
        """
        budget, upto = Budget(), number
        shown: list[dict[str, Any]] = []
        displays: list[Display] = []
        links: list[Link] = []
        for entry in self._entries:
            if entry.number <= number:
                continue
            if budget.left <= 0 or len(shown) >= 200:
                break
            member: dict[str, Any] = {
                "number": entry.number,
                "run": entry.run,
                "kind": entry.kind,
                "text": budget.fit(entry.text),
            }
            if member["text"] != entry.text:
                member["truncated"] = True
                links.append(self.link(entry))
            if entry.display is not None:
                displays.append(entry.display)
            shown.append(member)
            upto = entry.number
        self._told = max(self._told, upto)
        images, left_out = images_of(displays)
        oldest = self._entries[0].number if self._entries else self.latest + 1
        gone = max(0, oldest - number - 1)
        members = {"session_id": self.session_id, "outputs": shown, "next": upto, "more": upto < self.latest, **facts}
        members |= {"images": len(images), "truncated": bool(links)}
        if left_out:
            members["images_left_out"] = left_out
        if gone:
            members["gone"] = gone
        return ToolAnswer(members, images, tuple(links))

    def seal(self) -> int:
        """Return the latest number, which somebody is told: what comes has the next."""
        self._told = self.latest
        return self.latest
