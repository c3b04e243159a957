"""What a process prints before anybody listens, and that it never waits for that."""

from __future__ import annotations

import trio
from trio.testing import memory_stream_one_way_pair, wait_all_tasks_blocked

from kallichore.session.kept_output import MOST_KEPT, KeptOutput


async def keep(*pieces: bytes) -> tuple[KeptOutput, trio.testing.MemorySendStream]:
    """Have pieces be printed while nobody listens; return what keeps them, and where more is printed."""
    end, stream = memory_stream_one_way_pair()
    kept = KeptOutput(stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.keep)
        for piece in pieces:
            await end.send_all(piece)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return kept, end


async def test_what_was_printed_comes_first_and_then_what_follows() -> None:
    """Who receives gets what was kept, then the rest as it comes, and then the end."""
    kept, end = await keep(b"banner\n", b"warning\n")
    await end.send_all(b"later\n")
    received = [await kept.receive_some(), await kept.receive_some()]
    await end.aclose()

    assert [b"banner\nwarning\n", b"later\n", b""] == [*received, await kept.receive_some()]


async def test_of_too_much_the_latest_is_kept_and_the_rest_is_named() -> None:
    """A process that prints for hours is read on, and it is said how much of it is gone."""
    kept, _ = await keep(*(b"%07d\n" % number * 1024 for number in range(20)))
    received = bytes(await kept.receive_some())
    note, _, rest = received.partition(b"\n")

    assert (b"[... 98304 bytes left out ...]", MOST_KEPT) == (note, len(rest))
    assert b"0000019\n" == rest[-8:]


async def test_end_of_the_process_is_the_end_of_what_is_kept() -> None:
    """Keeping ends with the stream, and what was said before can be received."""
    end, stream = memory_stream_one_way_pair()
    kept = KeptOutput(stream)
    await end.send_all(b"last words")
    await end.aclose()
    await kept.keep()

    assert [b"last words", b""] == [await kept.receive_some(), await kept.receive_some()]


async def test_closing_closes_the_stream() -> None:
    """Who prints into what nobody reads any more is told so."""
    kept, end = await keep()
    await kept.aclose()
    try:
        await end.send_all(b"x")
    except trio.BrokenResourceError:
        return

    raise AssertionError("the stream is open")
