"""What a kernel's messages look like in a terminal: streams as they come, results as text, errors with traceback."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import attrs

from kallichore.cli import escapes
from kallichore.cli.graphics import image_of
from kallichore.cli.images import ImageFiles

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def plain_text(bundle: dict[str, Any]) -> str:
    """Return a result or display as text: its own, or what else there would be."""
    text = bundle.get("text/plain")
    if text is None:
        return "[" + ", ".join(bundle) + "]"
    return "".join(text) if isinstance(text, list) else str(text)


@attrs.define
class Printer:
    """Prints what executions say.

    Args:
        images: Takes images, which are shown as paths.
    """

    images: ImageFiles = attrs.field(factory=ImageFiles)
    _traceback_shown: bool = attrs.field(default=False, init=False)
    _owed: dict[str, Any] | None = attrs.field(default=None, init=False)
    _is_idle: bool = attrs.field(default=False, init=False)

    def show(self, message: dict[str, Any]) -> None:
        """Print a Jupyter message, if there is anything to see in it."""
        content = message["content"]
        match message["header"]["msg_type"]:
            case "stream":
                self.show_output(content["name"], content["text"])
            case "execute_result" | "display_data" | "update_display_data":
                self._show_bundle(content["data"])
            case "clear_output" if sys.stdout.isatty():
                # The line begins anew: what lies above is history, as in any terminal.
                print("\r\x1b[2K", end="", flush=True)
            case "error":
                self._show_error(content)
            case "execute_reply" if content.get("status") == "error":
                self._owed = content
            case "status":
                self._is_idle = content.get("execution_state") == "idle"
                if not self._is_idle:
                    self._owed, self._traceback_shown = None, False
        # A reply may overtake the output, and the error among it; only where that has none does the reply's count.
        if self._owed is not None and self._is_idle:
            self._show_error(self._owed)

    def show_output(self, stream: str, text: str) -> None:
        """Print what the kernel's process, or a program that it runs, printed by itself."""
        out = sys.stderr if stream == "stderr" else sys.stdout
        out.write(escapes.coloured(text))
        out.flush()

    def _show_bundle(self, bundle: dict[str, Any]) -> None:
        if (image := image_of(bundle)) is None:
            print(escapes.coloured(plain_text(bundle)), flush=True)
            return
        path = self.images.save(*image)
        if self.images.show is not None:
            self.images.show(path)
        print(path, flush=True)

    def _show_error(self, content: dict[str, Any]) -> None:
        if self._traceback_shown:
            return
        self._traceback_shown = True
        if content.get("ename") == "SystemExit":
            _show_exit(str(content.get("evalue", "")))
            return
        lines = content.get("traceback") or [f"{content.get('ename')}: {content.get('evalue')}"]
        text = escapes.coloured("\n".join(lines))
        print(text if sys.stderr.isatty() else _COLOURS.sub("", text), file=sys.stderr, flush=True)


def _show_exit(value: str) -> None:
    """Say what Python says when code asks for the end: nothing for a number, or the message that is there instead."""
    if not re.fullmatch(r"-?\d+|None|True|False|", value):
        print(escapes.coloured(value), file=sys.stderr, flush=True)


def show_log_line(line: dict[str, Any], as_json: bool) -> None:
    """Print a line of a log, as text or as a line of JSON."""
    shown = f"{line['time']} [{line['stream']}] {line['text']}"
    print(to_json(line) if as_json else escapes.one_line(shown), flush=True)


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON in which nothing acts on a terminal: of what does, JSON itself lets DEL stand."""
    return json.dumps(value, indent=indent).replace("\x7f", "\\u007f")


def print_json(value: Any) -> None:
    """Print a value as JSON, for programs."""
    print(to_json(value, indent=2))
