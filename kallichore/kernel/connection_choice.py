"""How the server and a kernel are to be connected: over TCP or Unix sockets, encrypted or not. [pure]

The policies are jupyter_client's (JEP 145). In one thing ours is milder: ``auto`` does not encrypt Unix sockets, which
are in a directory that nobody else may enter.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import attrs

from kallichore.config import ServerConfig
from kallichore.errors import StartupError, StartupReason
from kallichore.kernel.launch_plan import uses_handshake
from kallichore.models.bodies import ConnectionInfo, KernelTransport, NewSession, TransportEncryption
from kallichore.wire.curve_keys import CURVE


@attrs.frozen
class ConnectionChoice:
    """What was chosen."""

    transport: KernelTransport
    encrypts: bool


def choose_connection(
    request: NewSession,
    config: ServerConfig,
    platform: str,
    can_encrypt: Callable[[], bool],
    *,
    has_host: bool = False,
) -> ConnectionChoice:
    """Choose how a session's kernels are connected: as it says, else as the server is set.

    A session without an ``argv`` is for a kernel that somebody else starts, who knows whether it can encrypt.

    Args:
        request: What the session was created with.
        config: The server's settings.
        platform: As ``sys.platform``.
        can_encrypt: Whether this server can; asked only where it matters.
        has_host: Whether a host carries what they say, which knows nothing of encryption.

    Raises:
        StartupError: ``KS-5``: what is asked for cannot be had; the text names the setting.
    """
    transport = request.kernel_transport or KernelTransport(config.kernel_transport)
    registers = bool(request.argv) and uses_handshake(request.protocol_version)
    if transport is KernelTransport.IPC:
        if platform == "win32":
            raise _refusal(request, "kernel_transport is ipc, which does not work on Windows; use tcp")
        if registers:
            raise _refusal(request, "kernel_transport is ipc, but kernels that register themselves (JEP 66) use TCP")
    match encryption_policy(request, config):
        case TransportEncryption.DISABLED:
            encrypts = False
        case TransportEncryption.AUTO:
            wanted = transport is KernelTransport.TCP and CURVE in (request.supported_encryption or ())
            encrypts = wanted and not registers and not has_host and can_encrypt()
        case TransportEncryption.REQUIRED:
            _require_encryption(request, registers, can_encrypt)
            if has_host:
                raise _refusal(request, f"{_REQUIRED}, but {_of_host(request)}")
            encrypts = True
    return ConnectionChoice(transport, encrypts)


def encrypts(request: NewSession, config: ServerConfig, platform: str, can_encrypt: Callable[[], bool]) -> bool:
    """Return whether a session's kernels would encrypt; False where they could not be connected at all."""
    try:
        return choose_connection(request, config, platform, can_encrypt).encrypts
    except StartupError:
        return False


def encryption_policy(request: NewSession, config: ServerConfig) -> TransportEncryption:
    """Return whether a session's kernels are to encrypt: as it says, else as the server is set."""
    return request.transport_encryption or TransportEncryption(config.transport_encryption)


def is_private(info: ConnectionInfo) -> bool:
    """Whether nobody else can read what a kernel says: it is encrypted, or does not leave the machine."""
    stays = info.transport == KernelTransport.IPC.value or re.fullmatch(r"127(\.[0-9]+){3}|localhost|::1", info.ip)
    return bool(stays) or info.curve_publickey is not None


def check_encryption(request: NewSession, config: ServerConfig, info: ConnectionInfo) -> None:
    """See that a kernel which is there already encrypts, if it has to.

    Raises:
        StartupError: ``KS-6``: it does not.
    """
    if encryption_policy(request, config) is TransportEncryption.REQUIRED and info.curve_publickey is None:
        text = "transport_encryption is required, but the kernel's connection information has no curve_publickey"
        raise StartupError("KS-6", text, reason=StartupReason.BAD_CONNECTION)


def _require_encryption(request: NewSession, registers: bool, can_encrypt: Callable[[], bool]) -> None:
    if registers:
        raise _refusal(request, f"{_REQUIRED}, but kernels that register themselves (JEP 66) cannot be given keys")
    if request.argv and CURVE not in (request.supported_encryption or ()):
        raise _refusal(
            request,
            f"{_REQUIRED}, but the kernel does not say that it can encrypt: "
            "metadata.supported_encryption of its kernelspec, supported_encryption of the session",
        )
    if not can_encrypt():
        raise _refusal(request, f"{_REQUIRED}, but pyzmq was built without CurveZMQ here")


def _of_host(request: NewSession) -> str:
    """Return why a session's kernel has a host beside it, and what can be done about it."""
    if request.engine is not None:
        return (
            "a kernel on another machine is connected within that machine, to a program which does not encrypt that; "
            "from there on all is encrypted"
        )
    return "the session outlives its server; create it with `durable` false"


_REQUIRED = "transport_encryption is required"


def _refusal(request: NewSession, problem: str) -> StartupError:
    text = f"The kernel of session {request.session_id} cannot be connected as asked for: {problem}"
    return StartupError("KS-5", text, reason=StartupReason.BAD_CONNECTION)
