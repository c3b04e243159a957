"""Sessions of installed kernels, by name: for who has one line of curl, and no kernelspec at hand."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import attrs
import trio

from kallichore.errors import KallichoreError, KernelNotFoundError
from kallichore.kernel.kernelspecs import KernelSpec, default_kernel, find_kernelspec, list_kernelspecs
from kallichore.models.bodies import Kernel, KernelList, NewSession, StartKernel
from kallichore.models.converter import unstructure
from kallichore.server import Server
from kallichore.session.session import Session


def describe_kernels(specs: Mapping[str, KernelSpec]) -> KernelList:
    """Return the installed kernels as the API shows them."""
    names = {field.name for field in attrs.fields(Kernel)}
    kernels = {
        name: unstructure(Kernel(**{member: getattr(spec, member) for member in names})) for name, spec in specs.items()
    }
    return KernelList(kernels=kernels, default=default_kernel(specs))


async def start_by_name(server: Server, wanted: StartKernel) -> Session:
    """Create a session with an installed kernel and start it; if it does not start, there is no session.

    Cancelling the wait leaves the session, and its start goes on.

    Raises:
        KernelNotFoundError: There is no such kernel, or none at all.
        SessionExistsError: The id is taken.
        StartupError: It did not start.
    """
    request = await trio.to_thread.run_sync(_make_request, wanted)
    session = server.create_session(request)
    try:
        await session.start()
    except KallichoreError:
        if not session.is_running:
            server.delete_session(request.session_id)
        raise
    return session


def _make_request(wanted: StartKernel) -> NewSession:
    name = wanted.kernel or default_kernel(list_kernelspecs())
    if name is None:
        raise KernelNotFoundError("No kernel is installed here", "To get one: python -m pip install ipykernel")
    spec = find_kernelspec(name)
    session_id = wanted.session_id or f"{spec.name}-{secrets.token_hex(4)}"
    request = spec.new_session(session_id)
    return attrs.evolve(
        request,
        working_directory=wanted.working_directory or "",
        notebook_uri=wanted.notebook_uri,
        env=(*request.env, *(wanted.env or ())),
        cull_idle_after=wanted.cull_idle_after,
        cull_connected=wanted.cull_connected,
        cull_busy=wanted.cull_busy,
        engine=wanted.engine or request.engine,
        spares=wanted.spares,
    )
