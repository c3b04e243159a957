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
from kallichore.cli.answers import END_OF_INPUT
from kallichore.cli.dialogue import Dialogue
from kallichore.cli.execution import attend
from kallichore.cli.show import Printer
from kallichore.client.api_client import ApiError
from kallichore.errors import KernelDiedError, innermost

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


class _Prompt:
    """Answers a kernel's questions from the line editor."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue

    async def answer(self, question: dict[str, Any]) -> str:
        session: PromptSession[str] = PromptSession()
        password = bool(question.get("password"))

        def read() -> str:
            return session.prompt(ANSI(str(question.get("prompt", ""))), is_password=password, handle_sigint=False)

        try:
            return await trio.to_thread.run_sync(read)
        except KeyboardInterrupt:
            await self._dialogue.interrupt()
            # The kernel does not wait for an answer any more, and its reply ends us.
            return await trio.sleep_forever()
        except EOFError:
            return END_OF_INPUT

    def show(self, text: str) -> None:
        """The line editor leaves the terminal in order."""


class Console:
    """The loop of reading, running and printing.

    Args:
        dialogue: With the kernel.
        printer: Prints what it says.
        count: The number of the first prompt.
    """

    def __init__(self, dialogue: Dialogue, printer: Printer, count: int = 1) -> None:
        self._dialogue = dialogue
        self._printer = printer
        self.count = count
        self._session: PromptSession[str] = PromptSession(
            history=_open_history(),
            completer=_KernelCompleter(dialogue),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_make_bindings(dialogue),
            prompt_continuation=lambda width, _line, _soft: "...: ".rjust(width),
        )

    def _read(self) -> str:
        prompt = ANSI(f"\x1b[32mIn [{self.count}]: \x1b[0m")
        # What programs print meanwhile goes above the line that is typed.
        with patch_stdout(raw=True):
            return self._session.prompt(prompt, handle_sigint=False)

    async def run(self) -> int:
        """Read and run until Ctrl-D, ``exit``, or the kernel's own wish; return the exit code.

        Raises:
            DisplacedError: Another client took the session over.
            KernelDiedError: The session is gone, or its server is.
        """
        print(HELP)
        while True:
            try:
                text = await self._read_or_end()
            except KeyboardInterrupt:
                continue
            except EOFError:
                self._dialogue.check_heard()
                return 0
            if not text.strip():
                continue
            if COMMANDS.get(text.strip()) == "end" or await self._obey(text):
                return 0

    async def _read_or_end(self) -> str:
        """Return what is typed; where the session is taken away meanwhile, end the prompt as Ctrl-D does."""
        text, ended = "", None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_prompt)
            try:
                text = await trio.to_thread.run_sync(self._read)
            except (KeyboardInterrupt, EOFError) as error:
                # Raised behind the nursery, or it would come out in a group.
                ended = error
            nursery.cancel_scope.cancel()
        if ended is not None:
            raise ended
        return text

    async def _end_prompt(self) -> None:
        await self._dialogue.ended.wait()
        app = self._session.app
        if app.is_running and app.loop is not None:
            app.loop.call_soon_threadsafe(lambda: app.exit(exception=EOFError))

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
                return await self._run(text)
        except (KernelDiedError, ApiError, BaseExceptionGroup) as error:
            self._explain(innermost(error))
        return False

    def _explain(self, error: BaseException) -> None:
        """Say why code did not run to its end.

        Raises:
            DisplacedError: Another client took the session over.
            KernelDiedError: The session is gone, or its server is.
        """
        self._dialogue.check_heard()
        match error:
            case KeyboardInterrupt():
                print("It is not waited for any more, and runs when its turn comes", file=sys.stderr)
            case KernelDiedError() | ApiError():
                print(f"{escapes.lines(str(error))}\nType %restart to start it again, or exit.", file=sys.stderr)
            case _:
                raise error

    async def _run(self, text: str) -> bool:
        prompt = _Prompt(self._dialogue)
        outcome = await attend(self._dialogue, text, self._printer.show, answers=prompt, ends_at_second=False)
        self.count = (outcome.reply.get("execution_count") or self.count) + 1
        return any(payload.get("source") == "ask_exit" for payload in outcome.reply.get("payload") or ())
