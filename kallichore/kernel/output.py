"""What a kernel's process prints: bytes to lines, and a record of the start for when it fails. [pure]

Nothing that a kernel prints may stop us from reading on, or its pipe would fill and it would hang: bytes that are not
UTF-8 become U+FFFD, and a line that never ends is passed on in pieces.
"""

from __future__ import annotations

import codecs
from collections import deque

import attrs

from kallichore.kernel.launch_plan import LaunchPlan
from kallichore.kernel.shell_wrapper import BEGIN_MARKER, SUCCESS_MARKER

LONGEST_LINE = 1 << 16
"""Characters after which a line without an end is passed on as it is."""

RECORD_HEAD = 1 << 14
RECORD_TAIL = 3 << 14
"""Characters of a start's output that are kept: the first quarter tells what went wrong, the rest how it ended."""

_MARKER_LINES = (f"{BEGIN_MARKER}\n", f"{SUCCESS_MARKER}\n")


class LineSplitter:
    """Decodes one stream and splits it into lines, each with its ending. Our markers are lines of their own."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._partial: list[str] = []
        self._partial_size = 0
        self._behind_newline = 0

    def feed(self, data: bytes) -> list[str]:
        """Take in bytes; return the lines that are complete with them."""
        newline = data.rfind(b"\n")
        self._behind_newline = len(data) - newline - 1 if newline >= 0 else self._behind_newline + len(data)
        return self._split(self._decoder.decode(data))

    @property
    def held(self) -> int:
        """How many of the bytes that were taken in belong to no line that was returned."""
        # A line that was passed on without an end leaves half a character behind at most.
        return self._behind_newline if self._partial else len(self._decoder.getstate()[0])

    @property
    def is_within_line(self) -> bool:
        """Whether the beginning of a line waits for the rest."""
        return self._partial_size > 0

    def take_partial(self) -> list[str]:
        """Return the beginning of a line whose rest takes long, at most one piece; the rest will be another."""
        return self._take_partial("")

    def finish(self) -> list[str]:
        """Return what is left at the end of the stream: at most one line, without an ending."""
        lines = self._split(self._decoder.decode(b"", final=True))
        return lines + self._take_partial("")

    def _split(self, text: str) -> list[str]:
        # Only "\n" ends a line: a progress bar's "\r" rewrites it, and str.splitlines would break at form feeds too.
        pieces = text.split("\n")
        lines: list[str] = []
        for piece in pieces[:-1]:
            lines.extend(self._take_partial(piece + "\n"))
        if pieces[-1]:
            self._partial.append(pieces[-1])
            self._partial_size += len(pieces[-1])
        if self._partial_size > LONGEST_LINE:
            lines.extend(self._take_partial(""))
        return lines

    def _take_partial(self, ending: str) -> list[str]:
        line = "".join((*self._partial, ending))
        self._partial.clear()
        self._partial_size = 0
        for marker in _MARKER_LINES:
            if line.endswith(marker):
                # Before it stands what a startup file or command printed without an ending.
                return [part for part in (line.removesuffix(marker), marker) if part]
        return [line] if line else []


@attrs.define
class StartupRecord:
    """What a kernel printed while it started, in order of arrival and within bounds.

    Attributes:
        began: Whether the startup command or script began to run.
        succeeded: Whether it succeeded.
    """

    began: bool = attrs.field(default=False, init=False)
    succeeded: bool = attrs.field(default=False, init=False)
    _head: list[str] = attrs.field(factory=list, init=False)
    _head_size: int = attrs.field(default=0, init=False)
    _tail: deque[str] = attrs.field(factory=deque, init=False)
    _tail_size: int = attrs.field(default=0, init=False)
    _left_out: int = attrs.field(default=0, init=False)

    def add(self, line: str) -> bool:
        """Take in a line of a kernel that starts; False if it is one of our markers, which nobody else should see."""
        match line.strip():
            case marker if marker == BEGIN_MARKER:
                self.began = True
                return False
            case marker if marker == SUCCESS_MARKER:
                self.succeeded = True
                return False
        if self._head_size < RECORD_HEAD and not self._tail:
            self._head.append(line)
            self._head_size += len(line)
            return True
        self._tail.append(line)
        self._tail_size += len(line)
        while self._tail_size > RECORD_TAIL and len(self._tail) > 1:
            gone = self._tail.popleft()
            self._tail_size -= len(gone)
            self._left_out += len(gone)
        return True

    @property
    def text(self) -> str:
        """The output: lines with newlines between them, and a note where the middle was left out."""
        note = [f"[... {self._left_out} characters left out ...]\n"] if self._left_out else []
        # A stream's last line may have no ending, and the other stream's next line must not run into it.
        # Windows' programs end theirs with two characters.
        lines = [line.removesuffix("\n").removesuffix("\r") for line in (*self._head, *note, *self._tail)]
        return "\n".join(lines)

    def diagnose(self, plan: LaunchPlan, stage: str) -> str:
        """Return which stage of a start failed, in words.

        Args:
            plan: What was launched.
            stage: What the kernel did not get through: ``exit`` (it ended), ``sockets`` or ``handshake``.
        """
        kernel = {
            "exit": f"The kernel {plan.program} ended before it answered.",
            "sockets": f"The kernel {plan.program} runs, but could not be reached on its sockets.",
            "handshake": f"The kernel {plan.program} runs, but did not register with the supervisor.",
        }[stage]
        if plan.stage is None:
            return kernel
        lines = [f"Shell: {plan.shell}", f"Startup {plan.stage}: {plan.stage_argument}"]
        if self.succeeded:
            lines.append(f"The startup {plan.stage} succeeded. {kernel}")
        elif stage != "exit":
            late = f"startup {plan.stage}" if self.began else "shell's own startup"
            lines.append(f"The {late} did not end in time, so the kernel was not started.")
        elif self.began:
            lines.append(f"The startup {plan.stage} failed, so the kernel was not started.")
        else:
            lines.append(f"The shell ended before the startup {plan.stage} could run.")
        return "\n".join(lines)
