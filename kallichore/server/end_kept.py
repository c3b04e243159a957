"""Ending sessions that outlived their server, where no server is there to do it.

A server is opened for that, for those sessions and without a way in. So a kernel ends as it always does: asked first,
then terminated, then killed; what it said last is written down, and so is how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from kallichore.config import ServerConfig
from kallichore.errors import StateDamagedError
from kallichore.server.hosts_desk import known_address
from kallichore.server.server import open_server
from kallichore.session.kept import KeptSession, kill_kernel

ENDED, HAD_ENDED, FORGOTTEN = "ended", "has no kernel", "forgotten"
"""What became of a session."""


async def end_kept(
    path: Path, sessions: Collection[KeptSession], on_done: Callable[[KeptSession, str], None], *, forget: bool
) -> None:
    """End the kernels of sessions that a state directory holds. Others are not touched.

    Cancelling leaves kernels that have not ended yet to the next server.

    Args:
        path: The state directory.
        sessions: The sessions.
        on_done: Called with each of them, as soon as its kernel has ended, and what became of it in a word or two.
        forget: Whether their directories are removed as well. Of a damaged one, that is all that can be done.

    Raises:
        StateDirectoryInUseError: A server has the directory.
        StateDamagedError: A session cannot be read, and is not to be forgotten.
        ConfigurationError: The directory cannot be used.
    """
    config = ServerConfig(
        state_directory=path, token=None, resource_sample_interval_ms=0, listen_hosts=known_address(path)
    )
    async with open_server(config, only={session.session_id for session in sessions}) as server:
        found = server.find_sessions(session.session_id for session in sessions)
        running = {name for name, session in found.items() if session is not None and session.is_running}
        for name in running:
            server.session(name).begin_stop()
        for kept in sessions:
            session = found[kept.session_id]
            if session is not None:
                await session.wait_ended()
            elif not forget:
                raise StateDamagedError(f"Session {kept.session_id!r} cannot be read; its files stay in {kept.place}")
            if session is None:
                await kill_kernel(kept.place)
                server.forget_place(kept.place)
            elif forget:
                server.delete_session(kept.session_id)
            on_done(kept, FORGOTTEN if forget else ENDED if kept.session_id in running else HAD_ENDED)
