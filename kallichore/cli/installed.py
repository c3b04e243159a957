"""Which kernels can be started: the server's where one is named and tells them, else this machine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kallichore.client.api_client import ApiClient, ApiError
from kallichore.errors import KernelNotFoundError
from kallichore.kernel.kernelspecs import KernelSpec, find_kernelspec, list_kernelspecs
from kallichore.models.bodies import InterruptMode

DEFAULT_KERNEL = "python3"

NOT_FOUND = 404


async def list_kernels(client: ApiClient | None) -> dict[str, KernelSpec]:
    """Return the installed kernels by name.

    Args:
        client: A server, whose kernels these are to be if it tells them; None for this machine's.

    Raises:
        ApiError: The server refused.
    """
    told = None if client is None else await _ask(client)
    return list_kernelspecs() if told is None else told


async def find_kernel(client: ApiClient | None, name: str | None) -> KernelSpec:
    """Return the installed kernel of this name, or the usual one; case does not matter. See `list_kernels`.

    Raises:
        KernelNotFoundError: There is none, or it cannot be used; the message says what to do.
    """
    wanted = name or DEFAULT_KERNEL
    told = None if client is None else await _ask(client)
    if told is None:
        return find_kernelspec(wanted)
    found = {installed.lower(): spec for installed, spec in told.items()}.get(wanted.lower())
    if found is None:
        installed = ", ".join(sorted(told)) or "none"
        raise KernelNotFoundError(
            f"There is no kernel {wanted!r} where the server is; installed: {installed}",
            "To see them: kcclient kernels",
        )
    return found


async def _ask(client: ApiClient) -> dict[str, KernelSpec] | None:
    """Return the kernels that a server tells; None if it is one that does not."""
    try:
        answer = await client.call("GET", "/kernels")
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise
    return {name: _spec(name, told) for name, told in answer["kernels"].items()}


def _spec(name: str, told: Mapping[str, Any]) -> KernelSpec:
    return KernelSpec(
        name=name,
        argv=tuple(told["argv"]),
        display_name=told.get("display_name", name),
        language=told.get("language", ""),
        resource_dir=told.get("resource_dir", ""),
        env=dict(told.get("env") or {}),
        interrupt_mode=InterruptMode(told.get("interrupt_mode", "signal")),
        supported_encryption=tuple(told.get("supported_encryption") or ()),
    )
