"""Which kernels can be started: the server's where one is named and tells them, else this machine's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from kallichore.client.server import Server
from kallichore.errors import KernelNotFoundError
from kallichore.kernel.kernelspecs import KernelSpec, find_kernelspec, list_kernelspecs
from kallichore.models.bodies import InterruptMode, KernelProvisioner

DEFAULT_KERNEL = "python3"


async def list_kernels(server: Server | None) -> dict[str, KernelSpec]:
    """Return the installed kernels by name.

    Args:
        server: A server, whose kernels these are to be if it tells them; None for this machine's.

    Raises:
        ApiError: The server refused.
    """
    told = None if server is None else await server.installed()
    return list_kernelspecs() if told is None else {name: _spec(name, spec) for name, spec in told.specs.items()}


async def find_kernel(server: Server | None, name: str | None) -> KernelSpec:
    """Return the installed kernel of this name, or the usual one; case does not matter. See `list_kernels`.

    Raises:
        KernelNotFoundError: There is none, or it cannot be used; the message says what to do.
    """
    told = None if server is None else await server.installed()
    if told is None:
        return find_kernelspec(name or DEFAULT_KERNEL)
    wanted = name or told.default or DEFAULT_KERNEL
    found = {installed.lower(): installed for installed in told.specs}.get(wanted.lower())
    if found is None:
        installed = ", ".join(sorted(told.specs)) or "none"
        raise KernelNotFoundError(
            f"There is no kernel {wanted!r} where the server is; installed: {installed}",
            "To see them: kcclient kernels",
        )
    return _spec(found, told.specs[found])


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
        kernel_provisioner=_provisioner(told.get("kernel_provisioner")),
        engine=told.get("engine"),
    )


def _provisioner(told: Mapping[str, Any] | None) -> KernelProvisioner | None:
    if told is None:
        return None
    # A newer server may say more.
    known = {field.name for field in attrs.fields(KernelProvisioner)}
    return KernelProvisioner(**{name: value for name, value in told.items() if name in known})
