"""The engines of a server: opened when the first session asks for one, and what it asks for read in its words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any

import attrs
import trio

from kallichore.engines.engine import Engine, EngineServices
from kallichore.errors import EngineError

KINDS = {
    "slurm": "kallichore.engines.slurm",
    "ssh": "kallichore.engines.ssh",
    "kubernetes": "kallichore.engines.kubernetes",
}
"""Modules of engines, by what ``engine.kind`` says; each has an ``open_engine``, and is imported when it is needed."""

LOCAL = "local"
"""The kind that is no engine: this machine."""


@attrs.frozen
class Wish:
    """What a session asks for, with its profile filled in.

    Attributes:
        kind: The kind of engine.
        options: What it is asked.
    """

    kind: str
    options: Mapping[str, Any]


@attrs.define(eq=False)
class Engines:
    """Engines by kind.

    Args:
        profiles: Named sets of options, each with its ``kind``.
        services: What engines need of the server.
        nursery: Engines run in it.
    """

    profiles: Mapping[str, Mapping[str, Any]]
    services: EngineServices
    nursery: trio.Nursery
    _open: dict[str, Engine] = attrs.field(factory=dict, init=False)
    _opening: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def read(self, engine: Mapping[str, Any] | None) -> Wish | None:
        """Return what a session asks for; None for a kernel on this machine.

        Args:
            engine: The member of the new-session body: a ``kind``, or a ``profile``, and options, which come before
                the profile's.

        Raises:
            EngineError: There is no such profile, or kind.
        """
        if engine is None:
            return None
        options = dict(engine)
        name = options.pop("profile", None)
        if name is not None:
            if name not in self.profiles:
                known = ", ".join(sorted(self.profiles)) or "none; name a file of them by --config"
                raise EngineError(f"engine.profile is {name!r}, which is no profile; there are: {known}")
            options = {**self.profiles[name], **options}
        kind = options.pop("kind", None)
        if kind == LOCAL:
            return None
        if kind not in KINDS:
            raise EngineError(f"engine.kind is {kind!r}; it can be one of {', '.join((LOCAL, *KINDS))}")
        return Wish(kind, options)

    async def get(self, kind: str) -> Engine:
        """Return the engine of a kind, opened by the first who asks.

        Raises:
            EngineError: It cannot be used here; the text says why.
        """
        async with self._opening:
            if kind not in self._open:
                try:
                    module = import_module(KINDS[kind])
                except ImportError as error:
                    raise EngineError(
                        f"The engine {kind} cannot be used: {error}", "python -m pip install 'kallichore[engines]'"
                    ) from error
                self._open[kind] = await self.nursery.start(_run_engine, module.open_engine, self.services)
            return self._open[kind]

    async def check(self, name: str) -> Sequence[str]:
        """Return what is wrong with a profile, a sentence each; none if it can be used."""
        try:
            wish = self.read({"profile": name})
            if wish is None:
                return ()
            engine = await self.get(wish.kind)
            engine.check_options(wish.options)
            return await engine.check(wish.options)
        except EngineError as error:
            return (error.message,)


async def _run_engine(
    open_engine: Callable[[EngineServices], AbstractAsyncContextManager[Engine]],
    services: EngineServices,
    task_status: trio.TaskStatus[Engine],
) -> None:
    async with open_engine(services) as engine:
        task_status.started(engine)
        await trio.sleep_forever()
