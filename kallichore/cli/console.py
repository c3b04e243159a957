"""``kcclient console``: a session's kernel in a terminal, with history, completion, inspection and interrupts.

The line editor is prompt_toolkit, which brings an asyncio loop of its own; it runs in a worker thread and asks the
kernel through `trio.from_thread`. Between two prompts the terminal is an ordinary one, where Ctrl-C is a signal. What
is said to the kernel is `kallichore.cli.dialogue`'s business, what its messages look like `kallichore.cli.show`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio
from prompt_toolkit import ANSI, PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout

from kallichore.cli import escapes
from kallichore.cli.dialogue import Dialogue
from kallichore.errors import KernelDiedError

COMMANDS = {"exit": "end", "quit": "end", "%restart": "start the kernel anew"}

HELP = "Tab completes, F1 or NAME? explains, Ctrl-C interrupts, %restart starts anew, Ctrl-D ends."


def history_file() -> Path:
    """Return the file of the lines that were typed, made for its owner only."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "kallichore" / "console_history"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.touch(mode=0o600)
    return file


def _open_history() -> History:
    """Return what keeps the lines that were typed; only while we run where the home directory is closed, or full."""
    try:
        return FileHistory(str(history_file()))
    except (OSError, RuntimeError) as error:
        print(f"The history is not kept: {error}", file=sys.stderr)
        return InMemoryHistory()


class _KernelCompleter(Completer):
    """Asks the kernel for completions, from the editor's thread."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Yield what the kernel has to offer at the cursor."""
        content = trio.from_thread.run(self._dialogue.complete, document.text, document.cursor_position)
        start = content.get("cursor_start", document.cursor_position) - document.cursor_position
        for match in content.get("matches", []):
            yield Completion(match, start_position=min(start, 0))


def _make_bindings(dialogue: Dialogue) -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def enter(event: KeyPressEvent) -> None:
        """Send what is complete; the kernel decides what that is. A blank last line always is the end."""
        buffer = event.current_buffer
        text = buffer.text
        if text.strip() in COMMANDS or text.rstrip().endswith("?") or text.endswith("\n"):
            buffer.validate_and_handle()
            return
        indent = trio.from_thread.run(dialogue.missing_indent, text)
        if indent is None:
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n" + indent)

    @bindings.add("f1")
    def explain(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        text = trio.from_thread.run(dialogue.inspect, buffer.text, buffer.cursor_position)
        run_in_terminal(lambda: print(text or "Nothing is known about that"))

    return bindings


class Console:
    """The loop of reading, running and printing."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._count = 1
        self._session: PromptSession[str] = PromptSession(
            history=_open_history(),
            completer=_KernelCompleter(dialogue),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_make_bindings(dialogue),
            prompt_continuation=lambda width, _line, _soft: "...: ".rjust(width),
        )

    def _read(self) -> str:
        prompt = ANSI(f"\x1b[32mIn [{self._count}]: \x1b[0m")
        # What programs print meanwhile goes above the line that is typed.
        with patch_stdout(raw=True):
            return self._session.prompt(prompt, handle_sigint=False)

    async def run(self) -> int:
        """Read and run until Ctrl-D, ``exit``, or the kernel's own wish; return the exit code."""
        print(HELP)
        while True:
            try:
                text = await trio.to_thread.run_sync(self._read)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return 0
            if not text.strip():
                continue
            if COMMANDS.get(text.strip()) == "end" or await self._obey(text):
                return 0

    async def _obey(self, text: str) -> bool:
        """Run what was typed; True if the kernel wants this to be the end."""
        try:
            if text.strip() == "%restart":
                await self._dialogue.restart()
                print("The kernel is restarted")
            elif text.rstrip().endswith("?"):
                name = text.strip().strip("?")
                known = await self._dialogue.inspect(name, len(name))
                print(escapes.coloured(known) if known else f"Nothing is known about {name}")
            else:
                reply = await self._dialogue.run(text, ask=self._ask)
                self._count = reply.get("execution_count") or self._count
                self._count += 1
                return any(payload.get("source") == "ask_exit" for payload in reply.get("payload") or ())
        except KernelDiedError as error:
            print(f"{error}\nType %restart to start it again, or exit.", file=sys.stderr)
        return False

    async def _ask(self, content: dict[str, Any]) -> str:
        session: PromptSession[str] = PromptSession()
        password = bool(content.get("password"))

        def read() -> str:
            return session.prompt(ANSI(str(content.get("prompt", ""))), is_password=password, handle_sigint=False)

        return await trio.to_thread.run_sync(read)
