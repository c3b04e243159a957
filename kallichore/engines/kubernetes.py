"""Kernels in pods of a Kubernetes cluster.

A pod's process 1 is the host (`kallichore.engines.host_program`), which comes with a Secret and calls the server; an
image needs a Python 3.8 and the kernel, and nothing of ours. Pod and Secret have one name, which is known before they
are made: so a request that nobody answered is made again, and there is one pod all the same.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from kallichore.engines.engine import EngineServices, Order, Ticket, Waiting
from kallichore.engines.host_program import dial_document, host_script
from kallichore.engines.kubernetes_api import RefusedError, SilentError, find_account, open_api
from kallichore.engines.kubernetes_cluster import Cluster, open_cluster
from kallichore.engines.kubernetes_options import (
    KubernetesOptions,
    labels_of,
    make_pod,
    make_secret,
    pod_name,
    read_options,
)
from kallichore.engines.kubernetes_words import PodState, Stage
from kallichore.errors import ConfigurationError, EngineError, HostGoneError
from kallichore.kernel.ending import Ending

EXPLAIN_PATIENCE = 5.0
"""Seconds in which the cluster may say why a pod has ended, after its host was lost."""

Key = tuple[str | None, str | None, str | None]
"""By what clusters are told apart: kubeconfig, context and namespace."""


@attrs.define(eq=False)
class KubernetesJob:
    """See `kallichore.engines.engine.Job`.

    Args:
        pod: The pod's name.
        cluster: Where it is.
        next_connection: Waits for its host.
        tell: Told when it waits.
    """

    pod: str
    cluster: Cluster
    next_connection: Callable[[], Any]
    tell: Callable[[Waiting | None], None]
    since: float = attrs.field(factory=time.time)
    state: PodState | None = attrs.field(default=None, init=False)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def name(self) -> str:
        """What it is, in words that follow a verb."""
        return f"in pod {self.pod}"

    @property
    def node(self) -> str | None:
        """Its node."""
        return None if self.state is None else self.state.node

    @property
    def time_left(self) -> float | None:
        """Seconds until Kubernetes ends it."""
        ends_at = None if self.state is None else self.state.ends_at
        return None if ends_at is None else max(0.0, ends_at - time.time())

    def take(self, state: PodState) -> None:
        """Take what is known of the pod now."""
        if state == self.state:
            return
        self.state = state
        if state.stage is Stage.WAITING:
            self.say(state.reason)
        self._changed.set()
        self._changed = trio.Event()

    def note_silence(self, text: str) -> None:
        """Take that nothing is known, and why; it is no end."""
        if self.state is None or self.state.stage is Stage.WAITING:
            self.say(text)

    def say(self, reason: str) -> None:
        """Tell why it waits."""
        self.tell(Waiting(reason, self.since))

    @property
    def _is_over(self) -> bool:
        return self.state is not None and (self.state.stage is Stage.OVER or self.state.is_hopeless)

    async def _wait_over(self) -> None:
        while not self._is_over:
            await self._changed.wait()

    async def connect(self) -> socket.socket:
        """Wait until its host calls; see `kallichore.engines.engine.Job.connect`."""
        found: list[socket.socket] = []
        try:
            async with trio.open_nursery() as nursery:

                async def take_call() -> None:
                    found.append(await self.next_connection())
                    nursery.cancel_scope.cancel()

                nursery.start_soon(take_call)
                await self._wait_over()
                nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            for connection in found:
                connection.close()
            raise
        if found:
            return found[0]
        assert self.state is not None
        waits = "cannot start: " if self.state.is_hopeless else ""
        raise HostGoneError(f"its pod {self.pod} {waits}{self.state.reason}")

    async def explain(self, ending: Ending | None) -> str:
        """Return why it ended; see `kallichore.engines.engine.Job.explain`."""
        if ending is None:
            with trio.move_on_after(EXPLAIN_PATIENCE):
                await self._wait_over()
        if self.state is None or (ending is not None and self.state.is_plain):
            return ""
        return "" if self.state.stage is Stage.WAITING else self.state.reason

    async def end(self) -> None:
        """See that nothing of it is left."""
        await self.cluster.end(self.pod)


@attrs.define(eq=False)
class KubernetesEngine:
    """See `kallichore.engines.engine.Engine`. Made by `open_engine`.

    Args:
        services: The server's.
        nursery: Clusters are looked at in it.
    """

    services: EngineServices
    _nursery: trio.Nursery
    _clusters: dict[Key, Cluster] = attrs.field(factory=dict, init=False)
    _opening: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    kind: str = attrs.field(default="kubernetes", init=False)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """See that options can be understood; raises `EngineError`."""
        read_options(options)

    async def check(self, options: Mapping[str, Any]) -> Sequence[str]:
        """Return what is wrong with a profile: the cluster itself is asked whether it would take such a pod."""
        wrong = []
        try:
            self.services.desk()
        except ConfigurationError as error:
            wrong.append(error.message)
        try:
            wanted = read_options(options)
            cluster = await self._get(wanted)
            pod = make_pod(pod_name("check", secrets.token_bytes(4)), labels_of(self.services.owner, "check"), wanted)
            path = f"/api/v1/namespaces/{cluster.namespace}/pods"
            await cluster.api.ask("POST", path, body=pod, query={"dryRun": "All"})
        except EngineError as error:
            wrong.append(error.message)
        except RefusedError as error:
            wrong.append(f"Kubernetes refuses such a pod: {error}")
        except SilentError as error:
            wrong.append(str(error.strerror))
        return wrong

    async def kernelspecs(self, options: Mapping[str, Any]) -> None:
        """Return None: what is installed in an image is known when a pod is there."""

    def ticket(self, order: Order) -> Ticket:
        """Return the name of a pod, and by what its host is known when it calls."""
        return {"name": pod_name(order.label, secrets.token_bytes(5)), "call": secrets.token_hex(16)}

    async def _get(self, options: KubernetesOptions) -> Cluster:
        key = (options.kubeconfig, options.context, options.namespace)
        async with self._opening:
            if key not in self._clusters:
                self._clusters[key] = await self._nursery.start(self._run_cluster, options)
            return self._clusters[key]

    async def _run_cluster(self, options: KubernetesOptions, *, task_status: trio.TaskStatus[Cluster]) -> None:
        account = find_account(options.kubeconfig, options.context)
        async with open_api(account, self.services.directory) as api:
            async with open_cluster(
                Cluster(api, options.namespace or account.namespace, self.services.owner)
            ) as cluster:
                task_status.started(cluster)
                await trio.sleep_forever()

    @asynccontextmanager
    async def open_job(
        self, order: Order, ticket: Ticket, tell: Callable[[Waiting | None], None], *, is_new: bool
    ) -> AsyncIterator[KubernetesJob]:
        """Make a pod, or find it again; see `kallichore.engines.engine.Engine.open_job`.

        Where the cluster does not answer this waits until it does. Cancelled in its middle, it leaves a pod that is
        ended as soon as the cluster answers.
        """
        options = read_options(order.options)
        try:
            desk = self.services.desk()
        except ConfigurationError as error:
            raise EngineError(error.message) from error
        cluster, name, identity = await self._get(options), ticket["name"], bytes.fromhex(ticket["call"])
        with desk.register(identity) as registration:
            job = KubernetesJob(name, cluster, registration.next_connection, tell)
            with cluster.follow(name, job):
                if is_new:
                    dial = dial_document(desk.address, identity, desk.certificate)
                    script = host_script(order.document(stays=True, dial=dial))
                    labels = labels_of(self.services.owner, order.label)
                    try:
                        await cluster.create(
                            make_secret(name, labels, script), make_pod(name, labels, options), job.say
                        )
                    except BaseException:
                        cluster.leave(name)
                        raise
                elif not await cluster.find(name, job.say):
                    job.take(PodState(Stage.OVER, "is not there any more"))
                yield job


@asynccontextmanager
async def open_engine(services: EngineServices) -> AsyncIterator[KubernetesEngine]:
    """Have Kubernetes for the block. Leaving it leaves all pods as they are, but those that were to be ended already.

    Args:
        services: What it needs of its server.
    """
    async with trio.open_nursery() as nursery:
        yield KubernetesEngine(services, nursery)
        nursery.cancel_scope.cancel()
