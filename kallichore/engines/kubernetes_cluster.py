"""One namespace of a cluster: the pods of all sessions there, looked at together, and ended when nobody wants them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Protocol

import attrs
import trio

from kallichore.engines.kubernetes_api import CONFLICT, EXPIRED, NOT_FOUND, KubernetesApi, RefusedError, SilentError
from kallichore.engines.kubernetes_options import MANAGED, selector
from kallichore.engines.kubernetes_words import GONE, PodState, read_end, read_pod
from kallichore.errors import EngineError

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds until an API that did not answer is asked again: the first time, and in the end."""

EXPIRED_PAUSE = 0.2
"""Seconds until pods are listed anew, where a watch was too old: an API that says so each time is not besieged."""

OVERLOADED = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that say nothing of what was asked for, and that come to an end."""

GRACE = 8
"""Seconds that a pod gets between being told to end and being killed: its host has to end the kernel meanwhile."""

FIRST_SWEEP, SWEEP_PAUSE = 120.0, 300.0
"""Seconds after which pods that nobody claims are looked for, and between two such looks. Who comes after a server that
ended has to find its sessions first."""

FORGOTTEN_AFTER = 86400.0
"""Seconds after which pods that have ended are removed though they are another server's: that one had a day to come
back. Where a server was killed whose sessions end with it, nobody else would."""

LEFT_PAUSE = 5.0
"""Seconds after which what could not be ended is tried again."""


class Follower(Protocol):
    """Who wants to know what becomes of a pod."""

    def take(self, state: PodState) -> None:
        """Take what is known of the pod now."""

    def note_silence(self, text: str) -> None:
        """Take that nothing is known, and why."""


@attrs.define(eq=False)
class Cluster:
    """See the module.

    Args:
        api: The cluster's.
        namespace: Where the pods are.
        owner: By what this server's are known.
    """

    api: KubernetesApi
    namespace: str
    owner: str
    _followers: dict[str, Follower] = attrs.field(factory=dict, init=False)
    _created: set[str] = attrs.field(factory=set, init=False)
    """Pods of which the API has said that they are there."""
    _left: set[str] = attrs.field(factory=set, init=False)
    """Names of what nobody wants and may be there."""
    _has_left: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_needed: trio.Event = attrs.field(factory=trio.Event, init=False)

    def _path(self, kind: str, name: str | None = None) -> str:
        path = f"/api/v1/namespaces/{self.namespace}/{kind}"
        return path if name is None else f"{path}/{name}"

    # Pods that are wanted

    @contextmanager
    def follow(self, name: str, follower: Follower) -> Iterator[None]:
        """Tell somebody what becomes of a pod, and do not take it for left, as long as the block lasts."""
        self._followers[name] = follower
        self._is_needed.set()
        try:
            yield
        finally:
            del self._followers[name]
            self._created.discard(name)
            if not self._followers:
                self._is_needed = trio.Event()

    async def create(self, secret: Mapping[str, Any], pod: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """Make a pod and its Secret. One that is there already was made by a try that nobody answered.

        Cancelling may leave either, which `leave` sees to.

        Args:
            secret: The Secret.
            pod: The pod, of the same name.
            say: Told why it takes longer.

        Raises:
            EngineError: The cluster refuses; in its words.
        """
        for kind, item in (("secrets", secret), ("pods", pod)):
            try:
                await self._insist("POST", self._path(kind), say, item)
            except RefusedError as error:
                if error.status != CONFLICT:
                    raise EngineError(f"Kubernetes refuses the {kind[:-1]}: {error}") from error
        self._created.add(pod["metadata"]["name"])

    async def find(self, name: str, say: Callable[[str], None]) -> bool:
        """Return whether there is a pod.

        Raises:
            EngineError: We may not know.
        """
        try:
            await self._insist("GET", self._path("pods", name), say)
        except RefusedError as error:
            if error.status == NOT_FOUND:
                return False
            raise EngineError(f"Kubernetes does not tell of the pod {name}: {error}") from error
        self._created.add(name)
        return True

    async def _insist(self, method: str, path: str, say: Callable[[str], None], body: Any = None) -> dict[str, Any]:
        """Ask until there is an answer."""
        pause = PAUSE
        while True:
            try:
                return await self.api.ask(method, path, body=body)
            except SilentError as error:
                say(str(error.strerror))
            except RefusedError as error:
                if error.status not in OVERLOADED:
                    raise
                say(f"Kubernetes cannot answer now: {error}")
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    # What becomes of them

    async def run(self) -> None:
        """Look at all pods, as long as there are any; for ever."""
        pause = PAUSE
        while True:
            await self._is_needed.wait()
            began = trio.current_time()
            try:
                await self._watch()
            except RefusedError as error:
                if error.status == EXPIRED:
                    await trio.sleep(EXPIRED_PAUSE)
                    continue
                self._note_silence(f"Kubernetes does not tell of its pods: {error}")
            except SilentError as error:
                self._note_silence(str(error.strerror))
            except EngineError as error:
                self._note_silence(error.message)
            pause = PAUSE if trio.current_time() - began > LONGEST_PAUSE else min(2 * pause, LONGEST_PAUSE)
            await trio.sleep(pause)

    async def _watch(self) -> None:
        """List all pods, and follow what happens from there; returns only by an error."""
        expected = frozenset(self._created)
        query = {"labelSelector": selector(self.owner)}
        listed = await self.api.ask("GET", self._path("pods"), query=query)
        self._take_all(listed.get("items") or (), expected)
        version = str((listed.get("metadata") or {}).get("resourceVersion", ""))
        while self._followers:
            async with aclosing(self.api.watch(self._path("pods"), {**query, "resourceVersion": version})) as events:
                async for event in events:
                    metadata = event.item.get("metadata") or {}
                    version = str(metadata.get("resourceVersion") or version)
                    if event.kind != "BOOKMARK":
                        state = GONE if event.kind == "DELETED" else read_pod(event.item)
                        self._take(str(metadata.get("name")), state)

    def _take_all(self, pods: Any, expected: frozenset[str]) -> None:
        there = {str((pod.get("metadata") or {}).get("name")): read_pod(pod) for pod in pods}
        for name, state in there.items():
            self._take(name, state)
        for name in expected - there.keys():
            self._take(name, GONE)

    def _take(self, name: str, state: PodState) -> None:
        follower = self._followers.get(name)
        if follower is not None:
            follower.take(state)

    def _note_silence(self, text: str) -> None:
        for follower in self._followers.values():
            follower.note_silence(text)

    # Pods that are not wanted

    def leave(self, name: str) -> None:
        """Have a pod and its Secret ended as soon as the cluster takes that in."""
        self._left.add(name)
        self._has_left.set()

    async def end(self, name: str) -> None:
        """End a pod, and remove its Secret; what cannot be done now is done later. Cancelled, it is done later too."""
        self._left.add(name)
        try:
            await self._delete(name)
            self._left.discard(name)
        except (RefusedError, SilentError, EngineError) as error:
            logger.warning("Pod %s could not be ended, and is tried again: %s", name, error)
        finally:
            if name in self._left:
                self._has_left.set()

    async def _delete(self, name: str) -> None:
        bodies = {"pods": {"gracePeriodSeconds": GRACE, "propagationPolicy": "Background"}, "secrets": {}}
        for kind, options in bodies.items():
            body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
            try:
                await self.api.ask("DELETE", self._path(kind, name), body=body)
            except RefusedError as error:
                if error.status != NOT_FOUND:
                    raise

    async def sweep(self) -> None:
        """End again and again what nobody wants. Cancelling leaves the rest."""
        full_at = trio.current_time() + FIRST_SWEEP
        while True:
            with trio.move_on_at(full_at):
                await self._has_left.wait()
                await trio.sleep(LEFT_PAUSE)
            is_full = trio.current_time() >= full_at
            try:
                await self.sweep_once(is_full=is_full)
            except (RefusedError, SilentError, EngineError) as error:
                logger.info("What is left in namespace %s could not be looked at: %s", self.namespace, error)
            if is_full:
                full_at = trio.current_time() + SWEEP_PAUSE

    async def sweep_once(self, *, is_full: bool) -> None:
        """End what nobody wants.

        Args:
            is_full: Whether what servers before this one may have left is looked for as well.

        Raises:
            SilentError: The cluster does not answer.
            RefusedError: It does not let us.
        """
        if is_full:
            for kind in ("pods", "secrets"):
                listed = await self.api.ask("GET", self._path(kind), query={"labelSelector": selector(self.owner)})
                names = {str(each["metadata"]["name"]) for each in listed.get("items") or ()}
                for name in names - self._followers.keys() - self._left:
                    logger.warning("%s %s is nobody's any more, and is ended", kind[:-1].capitalize(), name)
                    self._left.add(name)
            await self._leave_forgotten()
        for name in self._left - self._followers.keys():
            await self._delete(name)
            self._left.discard(name)
        if not self._left:
            self._has_left = trio.Event()

    async def _leave_forgotten(self) -> None:
        """Have pods of servers go that will not come back for them."""
        listed = await self.api.ask("GET", self._path("pods"), query={"labelSelector": MANAGED})
        for pod in listed.get("items") or ():
            ended_at = read_end(pod)
            if ended_at is not None and ended_at < time.time() - FORGOTTEN_AFTER:
                self._left.add(str(pod["metadata"]["name"]))


@asynccontextmanager
async def open_cluster(cluster: Cluster) -> AsyncIterator[Cluster]:
    """Look after a namespace for a block. Leaving it leaves all pods as they are."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cluster.run)
        nursery.start_soon(cluster.sweep)
        yield cluster
        nursery.cancel_scope.cancel()
