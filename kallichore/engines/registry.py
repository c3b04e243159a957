"""The engines of a server: opened when the first session asks for one, and what it asks for read in its words."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib import import_module
from typing import Any

import attrs
import trio

from kallichore.engines.engine import Engine, EngineServices
from kallichore.engines.lasting import start_lasting
from kallichore.errors import EngineError

logger = logging.getLogger(__name__)

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
        nursery: Engines run in it.

    Attributes:
        services: What engines need of the server; set before the first is asked for.
    """

    profiles: Mapping[str, Mapping[str, Any]]
    nursery: trio.Nursery
    services: EngineServices = attrs.field(init=False)
    _scopes: set[trio.CancelScope] = attrs.field(factory=set, init=False)
    _open: dict[str, _Open] = attrs.field(factory=dict, init=False)
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
            if kind not in self._open or self._open[kind].over.is_set():
                try:
                    module = import_module(KINDS[kind])
                except ImportError as error:
                    raise EngineError(
                        f"The engine {kind} cannot be used: {error}", "python -m pip install 'kallichore[engines]'"
                    ) from error
                self._open[kind] = await self.start(_run_engine, kind, module.open_engine, self.services)
            return self._open[kind].engine

    async def start(self, function: Callable[..., Awaitable[None]], *arguments: Any) -> Any:
        """Start a task of an engine's, as `trio.Nursery.start`; it goes on until the server has ended all sessions."""
        return await self.nursery.start(partial(self._run_shielded, function, *arguments))

    async def _run_shielded(  # noqa: ASYNC128  # by what it runs
        self, function: Callable[..., Awaitable[None]], *arguments: Any, task_status: trio.TaskStatus[Any]
    ) -> None:
        # Sessions end by what engines do, so these are cancelled after them, whoever cancels the server.
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await function(*arguments, task_status=_Shielding(scope, task_status))
            finally:
                self._scopes.discard(scope)

    def close(self) -> None:
        """End all engines, as no session needs them any more."""
        for scope in self._scopes:
            scope.cancel()

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


@attrs.frozen
class _Shielding:
    """Has a task that has started cancelled no more by who cancels the server."""

    scope: trio.CancelScope
    task_status: trio.TaskStatus[Any]

    def started(self, value: Any = None) -> None:
        """See `trio.TaskStatus.started`."""
        start_lasting(self.scope, self.task_status, value)


@attrs.define(eq=False)
class _Open:
    """An engine that is open, or was."""

    engine: Engine
    over: trio.Event = attrs.field(factory=trio.Event, init=False)


async def _run_engine(
    kind: str,
    open_engine: Callable[[EngineServices], AbstractAsyncContextManager[Engine]],
    services: EngineServices,
    task_status: trio.TaskStatus[_Open],
) -> None:
    """Run an engine; if it fails, that is in the log, and the next session that asks for it has a new one."""
    opened = None
    try:
        async with open_engine(services) as engine:
            opened = _Open(engine)
            task_status.started(opened)
            await trio.sleep_forever()
    except Exception:
        if opened is None:
            raise
        logger.exception("The engine %s failed", kind)
    finally:
        if opened is not None:
            opened.over.set()
