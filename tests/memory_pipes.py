"""An in-memory double of the operating system's named pipes, for what only Windows has."""

from __future__ import annotations

from itertools import count

import trio

from kallichore.transport.named_pipe import PipeBusyError


class MemoryPipes:
    """Pipes in memory: an instance is a pair of memory streams, of which a client takes the far end."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._streams: dict[int, trio.StapledStream] = {}
        self._connected: dict[int, trio.Event] = {}
        self._free: dict[str, list[tuple[int, trio.StapledStream]]] = {}
        self._instances: dict[str, set[int]] = {}
        self.refusals: list[OSError] = []
        """What making the next instances fails with."""
        self.failures: list[OSError] = []
        """What waiting for the next clients fails with."""

    def create_instance(self, name: str, *, first: bool) -> int:
        if first and self._free.get(name):
            raise OSError(5, "Access is denied")
        if self.refusals:
            raise self.refusals.pop()
        handle = next(self._numbers)
        ours, theirs = trio.testing.memory_stream_pair()
        self._streams[handle] = ours
        self._connected[handle] = trio.Event()
        self._free.setdefault(name, []).append((handle, theirs))
        self._instances.setdefault(name, set()).add(handle)
        return handle

    async def wait_client(self, handle: int) -> None:
        await self._connected[handle].wait()
        if self.failures:
            raise self.failures.pop()
        if handle not in self._streams:
            raise OSError("the handle was closed")

    def open_client(self, name: str) -> int:
        if name not in self._free:
            raise FileNotFoundError(2, "no such pipe", name)
        if not self._free[name]:
            raise PipeBusyError("busy")
        server, stream = self._free[name].pop(0)
        self._connected[server].set()
        handle = next(self._numbers)
        self._streams[handle] = stream
        return handle

    async def read(self, handle: int, most: int) -> bytes:
        try:
            return bytes(await self._streams[handle].receive_some(most))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Windows does not tell who closed it.
            return b""

    async def write(self, handle: int, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._streams[handle].send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise OSError("nobody reads") from error

    def close(self, handle: int) -> None:
        stream = self._streams.pop(handle)
        stream.send_stream.close()
        stream.receive_stream.close()
        if handle in self._connected:
            self._connected[handle].set()
        for name, free in list(self._free.items()):
            self._free[name] = [instance for instance in free if instance[0] != handle]
            self._instances[name].discard(handle)
            if not self._instances[name]:
                del self._free[name]
