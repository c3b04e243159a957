"""A server's link to a host: cut wherever it may be, nothing is missing in either direction, nor comes twice."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections import deque
from pathlib import Path

import pytest
import trio
import trio.testing

from conftest import open_descriptors
from hosts import (
    CONTROL,
    HEARTBEAT,
    IOPUB,
    PATIENCE,
    SECRET,
    SHELL,
    STDOUT,
    connect_all,
    open_host,
    read,
    read_line,
    read_to_end,
    tell,
    wait,
)
from kallichore.engines.host_link import HostLink, open_link
from kallichore.engines.reach import beside
from kallichore.errors import HostGoneError, HostRefusedError
from kallichore.wire.host_frames import HEAD, SIGNALS, Frame, Kind, encode_attach, head
from plain_kernel import lines

pytestmark = pytest.mark.posix_only("hosts")


class Server:
    """What a server remembers of a session from one link to the next, and no more."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.had = {SHELL: bytearray(), IOPUB: bytearray()}
        self.unaccepted: deque[Frame] = deque()
        self.positions: dict[int, int] = {}

    def take(self, link: HostLink, channel: int) -> None:
        """Take what is there, and confirm a part of it: the rest is forgotten if the link is cut."""
        state = link.channels[channel]
        begin = state.position - sum(map(len, state.pieces))
        data = b"".join(state.pieces)
        known = self.positions.get(channel, 0)
        had = self.dice.randint(0, len(data))
        state.pieces.clear()
        assert known == begin
        self.had[channel] += data[:had]
        self.positions[channel] = known + had
        if had < len(data):
            state.pieces.append(data[had:])
        if self.dice.random() < 0.7:
            link.confirm(channel, self.positions[channel])


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_missing_and_nothing_comes_twice_wherever_a_link_is_cut(
    private_place: Path, seed: int
) -> None:
    """A flood from the kernel, and payloads to it that it sends back, are whole after many cuts in the middle of them;
    some cuts are hard, and some are made by a second server.
    """
    dice = random.Random(seed)
    server = Server(dice)
    flood = lines(60_000, 100)
    sent = b""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            tell(link, "flood 60000 100")
            server.unaccepted, server.positions = link.unaccepted, {STDOUT: link.channels[STDOUT].position}
        cuts = 0
        with trio.fail_after(PATIENCE):
            while len(server.had[IOPUB]) < len(flood) or len(server.had[SHELL]) < len(sent) or cuts < 20:
                cuts += 1
                async with host.link(server.positions, server.unaccepted) as link:
                    for _ in range(dice.randint(1, 12)):
                        if len(sent) < 2_000_000:
                            payload = dice.randbytes(dice.choice([1, 200, 5000, 70_000, 300_000]))
                            link.send(SHELL, payload)
                            sent += payload
                        with trio.move_on_after(0.05):
                            await link.channels[dice.choice([SHELL, IOPUB])].wait()
                        server.take(link, SHELL)
                        server.take(link, IOPUB)
                    server.unaccepted = link.unaccepted
                    if dice.random() < 0.3:
                        async with host.link(server.positions, server.unaccepted) as second:
                            await link.lost.wait()
                            server.unaccepted = second.unaccepted

    assert flood == server.had[IOPUB]
    assert sent == server.had[SHELL]


async def test_payload_is_taken_once_however_often_it_is_sent(private_place: Path) -> None:
    """What a server sends again, not knowing that the host has it, reaches the kernel once; the new comes behind."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            link.send(SHELL, b"one ")
            link.send(SHELL, b"two ")
            before = tuple(link.unaccepted)
            await read(link, SHELL, 8)
        async with host.link({SHELL: 8}, before) as link:
            assert [] == list(link.unaccepted)
            link.send(SHELL, b"three")
            data = await read(link, SHELL, 5)

    assert b"three" == data


async def test_what_was_accepted_is_told_soon_without_other_frames(private_place: Path) -> None:
    """A payload to which nothing is answered is known to be accepted in a while."""
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        link.send(HEARTBEAT, b"x")
        with trio.fail_after(PATIENCE):
            while link.unaccepted:  # noqa: ASYNC110
                await trio.sleep(0.01)

    assert link.hello.accepted == 0


async def test_payloads_of_which_one_was_lost_go_on_all_the_same(private_place: Path) -> None:
    """Where a damaged state has lost the number before, what is there still reaches the kernel."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
        async with host.link({}, [Frame(5, SHELL, b"five"), Frame(6, SHELL, b"six")]) as link:
            data = await read(link, SHELL, 7)

    assert b"fivesix" == data


async def test_payload_that_may_be_lost_has_no_number(private_place: Path) -> None:
    """A handshake is sent, and nothing of it is remembered."""
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        link.send(SHELL, b"hello", may_be_lost=True)

        assert [] == list(link.unaccepted)
        assert b"hello" == await read(link, SHELL, 5)


async def test_nothing_leaves_before_the_flush(private_place: Path) -> None:
    """Who puts something else in the place of `on_waiting` is told once that something waits, and decides when it
    goes; it goes in order.
    """
    told = []
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        link.on_waiting = lambda: told.append(len(link.unaccepted))
        link.confirm(SHELL, 0)
        link.send(SHELL, b"one ")
        link.send(SHELL, b"two")
        with trio.move_on_after(0.1) as patience:
            await link.channels[SHELL].wait()
        link.flush()
        data = await read(link, SHELL, 7)

    assert patience.cancelled_caught
    assert [0] == told[:1]
    assert b"one two" == data


async def test_large_payload_waits_for_nobody(private_place: Path) -> None:
    """Megabytes that neither host nor kernel take at once go out while other things are done."""
    payload = random.Random(0).randbytes(20 << 20)
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        link.send(SHELL, payload)
        tell(link, "say there")
        assert b"there" == await read_line(link, CONTROL)
        data = await read(link, SHELL, len(payload))

    assert payload == data


async def test_second_server_takes_the_place_of_the_first(private_place: Path) -> None:
    """The first is told that it was replaced, and loses its link; the second goes on."""
    async with open_host(private_place / "s") as host, host.link() as first:
        await connect_all(first)
        async with host.link({STDOUT: first.channels[STDOUT].position}) as second:
            with trio.fail_after(PATIENCE):
                await first.lost.wait()
            second.send(SHELL, b"second")
            data = await read(second, SHELL, 6)

            assert first.replaced
            assert not second.lost.is_set()
            assert b"second" == data


async def test_first_server_that_does_not_read_is_replaced_all_the_same(private_place: Path) -> None:
    """A server in whose connection a flood is stuck does not keep the next one out."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            tell(link, "flood 100000 100")
            await wait(link, IOPUB)
        stuck = socket.socket(socket.AF_UNIX)
        stuck.connect(str(host.directory / "host.sock"))
        with stuck:
            await _attach_by_hand(stuck)
            async with host.link() as link:
                data = await read(link, IOPUB, 10_000_000)

    assert lines(100_000, 100) == data


async def _attach_by_hand(connection: socket.socket) -> None:
    """Prove to be the server, and read nothing."""
    challenge = connection.recv(HEAD.size + 32)
    connection.sendall(encode_attach(SECRET, challenge[HEAD.size :], bytes(32), {}))
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(connection)


async def test_wrong_secret_is_refused_and_disturbs_nobody(private_place: Path) -> None:
    """Who does not know the secret is told so by its own link, and the server there goes on."""
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        with trio.fail_after(PATIENCE):
            with pytest.raises(HostRefusedError):
                async with open_link(beside(host.directory), b"wrong"):
                    pass
        link.send(SHELL, b"still here")

        assert b"still here" == await read(link, SHELL, 10)


async def test_host_that_does_not_know_the_secret_is_refused(private_place: Path) -> None:
    """A socket at which somebody else listens is not taken for the host's."""

    async def pretend(stream: trio.SocketStream) -> None:
        await stream.send_all(head(Kind.CHALLENGE, size=32) + bytes(32))
        await stream.receive_some()
        await stream.send_all(head(Kind.HELLO, size=2) + b"{}")
        await stream.receive_some()

    listener = trio.socket.socket(socket.AF_UNIX)
    await listener.bind(str(private_place / "host.sock"))
    listener.listen()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, pretend, [trio.SocketListener(listener)])
        with trio.fail_after(PATIENCE):
            with pytest.raises(HostRefusedError, match="cannot be read"):
                async with open_link(beside(private_place), SECRET):
                    pass
        nursery.cancel_scope.cancel()


async def test_nobody_is_there_to_link_to(private_place: Path) -> None:
    """Where there is no directory, no socket, or nobody listens at it, the host is gone; no descriptor stays open."""
    before = open_descriptors()
    with socket.socket(socket.AF_UNIX) as deserted:
        deserted.bind(str(private_place / "host.sock"))
    for place in (private_place, private_place / "nowhere", private_place / ("x" * 200)):
        with pytest.raises(HostGoneError):
            async with open_link(beside(place), SECRET):
                pass

    assert before == open_descriptors()


@pytest.mark.parametrize(
    ("family", "numbers", "code"),
    [
        ("inet", ["127.0.0.1", 1], errno.ECONNREFUSED),
        ("unix", "/nowhere", errno.ENOENT),
        ("inet", ["nowhere"], errno.EINVAL),
        ("ipx", [], errno.EINVAL),
    ],
)
async def test_connection_that_is_refused_raises_its_number(
    private_place: Path, family: str, numbers: object, code: int
) -> None:
    """A channel that cannot be connected says why, and can be tried again."""
    async with open_host(private_place / "s") as host, host.link() as link:
        ports = await read_line(link, STDOUT)
        with trio.fail_after(PATIENCE):
            with pytest.raises(OSError) as caught:
                await link.open(SHELL, family, numbers)
            position = await link.open(SHELL, "inet", ["127.0.0.1", int(ports.split(b",")[0][1:])])

    assert code == caught.value.errno
    assert position == 0


async def test_channel_that_is_opened_again_begins_anew(private_place: Path) -> None:
    """What came of the connection before is forgotten on both sides, and positions go on."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            port = int((await read_line(link, STDOUT)).split(b",")[0][1:])
            await link.open(SHELL, "inet", ["127.0.0.1", port])
            link.send(SHELL, b"before")
            await wait(link, SHELL)
            with trio.fail_after(PATIENCE):
                position = await link.open(SHELL, "inet", ["127.0.0.1", port])
            assert not link.channels[SHELL].pieces
            link.send(SHELL, b"behind")
            await wait(link, SHELL)
        async with host.link() as link:
            data = await read(link, SHELL, 6)

    assert (6, b"behind") == (position, data)


async def test_closed_channel_has_nothing_and_takes_nothing(private_place: Path) -> None:
    """After a channel was closed what comes of it is dropped, and what is sent to it too."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            link.send(SHELL, b"before")
            await wait(link, SHELL)
            link.close_channel(SHELL)
            link.send(SHELL, b"behind")
            tell(link, "say there")
            await read_line(link, CONTROL)
            assert not link.channels[SHELL].pieces
        async with host.link() as link:
            state = link.hello.channels[SHELL]

    assert (False, 6, 6) == (state.is_open, state.begin, state.end)


async def test_channel_that_the_kernel_closes_ends_behind_what_came(private_place: Path) -> None:
    """The end of a connection comes after its last byte, and is told to the next server again."""
    async with open_host(private_place / "s") as host:
        async with host.link() as link:
            await connect_all(link)
            tell(link, "flood 1000 100")
            data = await read(link, IOPUB, 100_000)
            tell(link, "hang-up")
            rest = await read_to_end(link, IOPUB)
        async with host.link({IOPUB: 100_000}) as link:
            again = await read_to_end(link, IOPUB)

    assert (lines(1000, 100), b"", b"") == (data, rest, again)


async def test_cancelled_opening_leaves_the_channel_closed(private_place: Path) -> None:
    """Who gives up connecting leaves no connection that others could take for theirs."""
    async with open_host(private_place / "s") as host, host.link() as link:
        port = int((await read_line(link, STDOUT)).split(b",")[0][1:])
        with trio.CancelScope() as scope:
            scope.cancel()
            await link.open(SHELL, "inet", ["127.0.0.1", port])
        with trio.fail_after(PATIENCE):
            await link.open(CONTROL, "inet", ["127.0.0.1", port])
            async with host.link() as second:
                state = second.hello.channels[SHELL]

    assert scope.cancelled_caught
    assert not state.is_open


async def test_opening_that_another_takes_over_is_told(private_place: Path) -> None:
    """Of two tasks that open one channel the second has it, and the first is not left waiting."""
    gone = []

    async def open_first(link: HostLink, port: int) -> None:
        with pytest.raises(HostGoneError):
            await link.open(SHELL, "inet", ["127.0.0.1", port])
        gone.append(True)

    async with open_host(private_place / "s") as host, host.link() as link:
        port = int((await read_line(link, STDOUT)).split(b",")[0][1:])
        link.on_waiting = lambda: None
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_first, link, port)
                await trio.testing.wait_all_tasks_blocked()
                link.on_waiting = link.flush
                link.flush()
                await link.open(SHELL, "inet", ["127.0.0.1", port])
        link.send(SHELL, b"second")

        assert b"second" == await read(link, SHELL, 6)
    assert [True] == gone


async def test_cancelled_wait_loses_nothing(private_place: Path) -> None:
    """What comes after a wait was cancelled is there for the next."""
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.channels[SHELL].wait)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        link.send(SHELL, b"all")

        assert b"all" == await read(link, SHELL, 3)


async def test_loss_of_the_host_wakes_everybody(private_place: Path) -> None:
    """When the host is killed, who waits for bytes or for a connection is woken, and what is sent then is kept."""
    async with open_host(private_place / "s") as host, host.link() as link:
        await connect_all(link)
        tell(link, "say there")
        await read_line(link, CONTROL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.channels[SHELL].wait)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(host.pid, 9)
        with trio.fail_after(PATIENCE):
            await link.lost.wait()
            with pytest.raises(HostGoneError):
                await link.open(SHELL, "inet", ["127.0.0.1", 1])
        number = link.unaccepted[-1].number if link.unaccepted else 1
        link.send(SHELL, b"later")
        link.signal(2)
        link.confirm(SHELL, 0)
        link.release()

        assert not link.replaced
        assert Frame(number + 1, SHELL, b"later") == link.unaccepted[-2]
        assert Frame(number + 2, SIGNALS, b"2") == link.unaccepted[-1]
