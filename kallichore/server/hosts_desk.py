"""Where the hosts of kernels on other machines dial in to this server: always the same place for a state directory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs
import msgspec
import trio

from kallichore.config import ServerConfig
from kallichore.errors import ConfigurationError, innermost
from kallichore.state.whole_file import replace_file

if TYPE_CHECKING:
    from kallichore.engines.certificate import Certificate
    from kallichore.engines.dial_in import Desk

logger = logging.getLogger(__name__)

FILE = "hosts.json"
"""The file in a state directory with what hosts were told: those of a server before come back to it."""


@attrs.frozen
class Known:
    """What hosts were told.

    Attributes:
        host: The address at which they dial in.
        port: The port.
        pem: The certificate.
        key_pem: Its private key.
    """

    host: str
    port: int
    pem: str
    key_pem: str = attrs.field(repr=False)


async def run_desk(config: ServerConfig, task_status: trio.TaskStatus[Callable[[], Desk]]) -> None:
    """Listen for hosts that dial in, if the server is to, until it is cancelled.

    Args:
        config: The server's settings.
        task_status: Is given what returns where they are waited for; it raises `ConfigurationError` without
            `ServerConfig.listen_hosts`.

    Raises:
        ConfigurationError: It cannot listen there, or has no certificate.
    """
    if config.listen_hosts is None:
        task_status.started(_no_desk)
        return
    # With TLS and what makes certificates: only who listens has to load it.
    from kallichore.engines.certificate import Certificate, make_certificate, read_certificate
    from kallichore.engines.dial_in import open_dial_in

    host, _, port = config.listen_hosts.rpartition(":")
    file = None if config.state_directory is None else config.state_directory / FILE
    known = None if file is None else _read(file)
    certificate: Certificate
    if config.hosts_certificate is not None and config.hosts_key is not None:
        certificate = read_certificate(config.hosts_certificate, config.hosts_key)
    elif known is not None:
        certificate = Certificate(known.pem, known.key_pem)
    else:
        certificate = make_certificate()
    number = int(port) or (0 if known is None else known.port)
    is_open = False
    try:
        async with open_dial_in(host.strip("[]"), number, certificate) as desk:
            is_open = True
            logger.info("Hosts dial in at %s:%d", *desk.address)
            if file is not None:
                _write(file, Known(host, desk.address[1], certificate.pem, certificate.key_pem))
            task_status.started(lambda: desk)
            await trio.sleep_forever()
    except OSError as error:
        if is_open:
            raise
        text = f"Could not listen for hosts at {config.listen_hosts}: {error.strerror or innermost(error)}"
        raise ConfigurationError(text) from error


def _write(file: Path, known: Known) -> None:
    try:
        replace_file(file, msgspec.json.encode(attrs.asdict(known)))
    except OSError as error:
        logger.error("Could not write %s, so the next server will not be found by hosts: %s", file, error)


def known_address(directory: Path) -> str | None:
    """Return where hosts dial in to servers with a state directory, ``HOST:PORT``; None where they do not.

    Args:
        directory: The state directory.
    """
    known = _read(directory / FILE)
    return None if known is None else f"{known.host}:{known.port}"


def _no_desk() -> NoReturn:
    raise ConfigurationError(
        "Kernels of this engine connect to the server, which does not listen for them; start it with "
        "--listen-hosts HOST:PORT, an address of this machine that they can reach"
    )


def _read(file: Path) -> Known | None:
    """Return what hosts were told; None where there is nothing, or it is damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Known)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        logger.error("%s cannot be read, so hosts of a server before will not find this one: %s", file, error)
        return None
