"""Running ssh: what comes of a command, and where a host's bytes begin. Shell scripts stand for ssh."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from conftest import open_descriptors
from kallichore.engines.ssh_calls import Said, run_command, run_relay
from kallichore.engines.ssh_words import Complaint, Trouble

pytestmark = pytest.mark.posix_only("ssh takes a socket as its input")

PATIENCE = 30


def shell(script: str) -> Sequence[str]:
    """Return a command that is a shell script."""
    return ["/bin/sh", "-c", script]


@asynccontextmanager
async def open_relay(script: str) -> AsyncIterator[tuple[socket.socket, Said | Complaint | None]]:
    """Run a script as the way to a host, and yield our end and what became of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE):
                said = await nursery.start(run_relay, shell(script), theirs, ours)
            yield ours, said
            nursery.cancel_scope.cancel()


async def read(connection: socket.socket, size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    with trio.fail_after(PATIENCE):
        while len(data) < size:
            await trio.lowlevel.wait_readable(connection)
            data += connection.recv(size - len(data))
    return data


async def test_command_tells_its_code_and_what_it_printed() -> None:
    """What is told to it arrives, and both of its outputs come back with its exit code."""
    said = await run_command(shell("cat; echo wrong >&2; exit 7"), PATIENCE, b"told")

    assert Said(7, b"told", "wrong\n") == said


async def test_command_that_does_not_answer_has_an_end() -> None:
    """It is ended when its time is up, with what it has started, and that is no answer."""
    before = open_descriptors()
    said = await run_command(shell("trap '' TERM; sleep 600 & wait; sleep 600"), 0.2)

    assert Complaint(Trouble.SILENT, "nothing came for 0 seconds") == said
    assert before == open_descriptors()


async def test_outputs_that_somebody_holds_open_are_not_waited_for() -> None:
    """A shared connection that ssh leaves behind may hold its outputs; the command has ended all the same."""
    with trio.fail_after(PATIENCE):
        said = await run_command(shell("sleep 600 & echo $!"), PATIENCE)
    assert isinstance(said, Said)
    os.kill(int(said.out), signal.SIGKILL)

    assert (0, "") == (said.code, said.err)


async def test_program_that_is_not_there_is_said() -> None:
    """Neither a command nor a way to a host comes of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with trio.open_nursery() as nursery:
            said = await nursery.start(run_relay, ["/nowhere/ssh"], theirs, ours)

    assert Complaint(Trouble.MISSING, "/nowhere/ssh: No such file or directory") == said
    assert said == await run_command(["/nowhere/ssh"], PATIENCE)


@pytest.mark.parametrize(
    "greeting", ["", "Welcome!\\n", "<kallichore", "<kall<kallichore", "x" * 5000, "x" * 4090 + "<kal"]
)
async def test_way_begins_behind_the_mark(greeting: str) -> None:
    """What a login shell prints is dropped, however it ends, and not a byte of the host's is."""
    async with open_relay(f"printf '{greeting}<kallichore>host'; cat") as (ours, said):
        ours.send(b" and back")

        assert said is None
        assert b"host and back" == await read(ours, 13)


async def test_way_comes_in_pieces_of_any_size() -> None:
    """A mark that comes byte by byte is one."""
    script = "for c in w '<' k a l l i c h o r e '>' h o s t; do printf %s $c; sleep 0.01; done; cat"
    async with open_relay(script) as (ours, said):
        assert said is None
        assert b"host" == await read(ours, 4)


@pytest.mark.parametrize("printed", ["", "Welcome!", "<kallichore>"])
async def test_way_that_ends_before_the_hosts_first_byte_leads_nowhere(printed: str) -> None:
    """Who waits for it is told what was said, and the exit code."""
    async with open_relay(f"printf '{printed}'; echo wrong >&2; exit 3") as (_, said):
        assert Said(3, b"", "wrong\n") == said


async def test_way_that_hangs_up_first_and_ends_later_leads_nowhere() -> None:
    """Its end is waited for, which has the reason."""
    async with open_relay("exec 0<&- 1>&-; sleep 0.2; echo wrong >&2; exit 3") as (_, said):
        assert Said(3, b"", "wrong\n") == said
