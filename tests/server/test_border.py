"""What is raised in a block of ours comes out of it as it is; several errors at once stay a group."""

from __future__ import annotations

import asyncio

import pytest
import trio

import kallichore
from kallichore.errors import ConfigurationError, KallichoreError, lone_error

BLOCKS = (kallichore.serve, kallichore.open_server)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("raised", [kallichore.StartupError("KS-8", "it ended"), KeyboardInterrupt(), ValueError(1)])
async def test_block_raises_what_was_raised_in_it(block: type, raised: BaseException) -> None:
    """An error in the block can be caught around it, whatever it is, and says nothing of nurseries."""
    with pytest.raises(type(raised)) as info:
        async with block():
            raise raised

    assert raised is info.value
    assert None is raised.__context__


@pytest.mark.parametrize("block", BLOCKS)
async def test_group_of_the_block_stays_its_authors(block: type) -> None:
    """A group that was raised in the block is not taken apart, though there is one error in it."""
    group = ExceptionGroup("mine", [ValueError(1)])
    with pytest.raises(ExceptionGroup) as info:
        async with block():
            raise group

    assert group is info.value


@pytest.mark.parametrize("block", BLOCKS)
async def test_cancelled_block_ends_without_an_error(block: type) -> None:
    """A cancellation around the block is nobody's error, and what the block raises on the way out is."""
    with trio.CancelScope() as scope:
        async with block():
            scope.cancel()
            await trio.sleep_forever()

    with pytest.raises(LookupError), trio.CancelScope() as scope:
        async with block():
            scope.cancel()
            raise LookupError

    assert scope.cancel_called


async def test_server_that_cannot_listen_says_so_without_a_group() -> None:
    """What `run` and `serve` raise of their own can be caught as documented."""
    async with kallichore.serve() as other:
        config = kallichore.ServerConfig(port=other.address.port)
        with pytest.raises(ConfigurationError, match="Could not listen"):
            async with kallichore.serve(config):
                pass
        with pytest.raises(ConfigurationError, match="Could not listen"):
            await kallichore.run(config)


async def _enter(block: type) -> None:
    async with block():
        pass


@pytest.mark.parametrize("call", [kallichore.run, *(lambda block=block: _enter(block) for block in BLOCKS)])
def test_under_asyncio_it_says_what_to_do(call: type) -> None:
    """Without Trio each way in names the ways out."""
    with pytest.raises(ConfigurationError, match="Trio") as info:
        asyncio.run(call())

    assert "trio.run(main)" in str(info.value)
    assert "start_guest_run" in str(info.value)


class _Passing(BaseException):
    """Stands for a cancellation."""


ONE, OTHER, PASSING = ValueError("one"), KallichoreError("other"), _Passing()
OWN = ExceptionGroup("own", [OTHER])
AGAIN = OWN.derive(OWN.exceptions)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([ONE], ONE),
        ([PASSING], PASSING),
        ([PASSING, _Passing()], PASSING),
        ([PASSING, ONE, PASSING], ONE),
        ([BaseExceptionGroup("inner", [ONE, PASSING])], ONE),
        ([OWN], OWN),
        ([BaseExceptionGroup("inner", [OWN, PASSING])], OWN),
        ([PASSING, AGAIN], OWN),
        ([ExceptionGroup("another", [ONE])], ONE),
        ([ONE, OTHER], None),
        ([OWN, ONE], None),
        ([ExceptionGroup("inner", [ONE, OTHER])], None),
    ],
)
def test_one_error_stands_alone_and_several_stay_together(
    errors: list[BaseException], expected: BaseException | None
) -> None:
    """Groups of nurseries are taken off one error, those of the block's author are not; of several nothing is lost."""
    group = BaseExceptionGroup("nursery", errors)

    assert (group if expected is None else expected) is lone_error(group, OWN, _Passing)


def test_group_of_which_a_part_is_gone_is_not_brought_back() -> None:
    """A cancellation that was in the block's group, and that its scope has taken, is not raised again."""
    raised = BaseExceptionGroup("own", [ONE, PASSING])

    assert ONE is lone_error(BaseExceptionGroup("nursery", [ONE]), raised, _Passing)
    assert raised is lone_error(BaseExceptionGroup("nursery", [PASSING, ONE]), raised, _Passing)
    assert PASSING is lone_error(BaseExceptionGroup("nursery", [PASSING]), None, _Passing)
    assert ONE is lone_error(BaseExceptionGroup("nursery", [ONE]), None, _Passing)
