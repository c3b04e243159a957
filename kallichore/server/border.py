"""The border between a program's block and the nurseries that we run around it.

Trio's nurseries wrap what goes through them into groups. Whose block is run by us has opened no nursery, and expects to
catch in front of it what was raised in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from kallichore.errors import ConfigurationError, lone_error


@attrs.define(eq=False)
class Border:
    """What a block raised, if it raised anything. Made by `open_border`."""

    raised: BaseException | None = attrs.field(default=None, init=False)

    @contextmanager
    def block(self) -> Iterator[None]:
        """Note what is raised in here: it goes through the border as it is, be it a group."""
        try:
            yield
        except BaseException as error:
            self.raised = error
            raise


@contextmanager
def open_border() -> Iterator[Border]:
    """Let out of a `with` block a single error as itself; several errors at once as the group that they are.

    Raises:
        ConfigurationError: There is no Trio here.
    """
    require_trio()
    border = Border()
    try:
        yield border
    except BaseExceptionGroup as group:
        error = lone_error(group, border.raised, trio.Cancelled)
        context = error.__context__
        try:
            raise error
        finally:
            # Not the group: the error is in there, and would be told twice.
            error.__context__ = context


def require_trio() -> None:
    """Refuse to run under another event loop.

    Raises:
        ConfigurationError: There is no Trio here; the message says what to do.
    """
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        raise ConfigurationError(
            "Kallichore runs on Trio, and this is another event loop, or none",
            "Run the program with trio.run(main). In an asyncio program, run Trio as a guest of its loop "
            "(trio.lowlevel.start_guest_run), or run kcserver as a process and talk to it over HTTP",
        ) from None
