"""Having the server of a state directory leave its sessions to another, which is about to start: an upgrade."""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from kallichore.client.address import from_connection_document
from kallichore.client.api_client import ApiClient
from kallichore.errors import ConfigurationError, KallichoreError
from kallichore.state.address import read_address
from kallichore.state.directory import is_held

logger = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that the other server may take to end: its sessions take none, those that do not outlive it their grace
periods."""

LOOK_AGAIN = 0.01
"""Seconds between two looks at whether it has ended: clients wait meanwhile."""


def hand_over(directory: Path | None) -> None:
    """Have the server that has this state directory leave it, if there is one, and wait until it has.

    Raises:
        ConfigurationError: It does not answer, or does not end.
    """
    if directory is not None and is_held(directory):
        trio.run(_ask, directory)


async def _ask(directory: Path) -> None:
    document = read_address(directory)
    pid = document.get("server_pid", "?")
    try:
        with trio.fail_after(PATIENCE):
            await ApiClient(from_connection_document(document)).call("POST", "/handover")
            # There is no event for a lock that becomes free.
            while is_held(directory):  # noqa: ASYNC110
                await trio.sleep(LOOK_AGAIN)
    except (KallichoreError, OSError, trio.TooSlowError) as error:
        why = str(error) or f"it did not end within {PATIENCE:.0f} s"
        raise ConfigurationError(
            f"--replace: the server with pid {pid} does not leave {directory} to this one: {why}; end it first"
        ) from error
    logger.info("The server with pid %s has left its sessions to this one", pid)
