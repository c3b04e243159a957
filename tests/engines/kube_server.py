"""A small Kubernetes for tests: as much of the API as pods need, and pods that run as processes of this machine.

What it answers is what a real 1.34 was seen to answer. A pod's container is its command, run here with the Secret's
files where they are mounted; what is asked of a node (labels, memory, an image) is compared with what this one has.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import attrs
import hypercorn.config
import hypercorn.trio
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from quart import Response, request
from quart_trio import QuartTrio

from kallichore.engines.certificate import Certificate

TOKEN = "a token"
IMAGE = "kernels:1"
NODE_MEMORY_GI = 64

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class KubeError(Exception):
    """What the API refuses."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@attrs.define(eq=False)
class Cluster:
    """The state of a cluster, and its faults.

    Attributes:
        place: Where pods have their files.
        token: What is let in.
        oldest: The version before which a watch is too old.
        is_silent: Whether requests are accepted and never answered.
        drops_answers: How many requests that make something are done and not answered.
        refuses: What the next requests that make pods are refused with.
    """

    place: Path
    nursery: trio.Nursery
    token: str = TOKEN
    oldest: int = 0
    is_silent: bool = False
    drops_answers: int = 0
    refuses: list[KubeError] = attrs.field(factory=list)
    items: dict[str, dict[str, dict[str, Any]]] = attrs.field(factory=lambda: {"pods": {}, "secrets": {}})
    lists: int = 0
    watches: int = 0
    made: list[str] = attrs.field(factory=list)
    """Names of pods in the order in which they were made."""
    processes: dict[str, trio.Process] = attrs.field(factory=dict)
    _version: int = 100
    _history: list[tuple[int, dict[str, Any]]] = attrs.field(factory=list)
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def tell(self, kind: str, item: dict[str, Any]) -> None:
        """Give a pod a new version, and tell who watches."""
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, {"type": kind, "object": json.loads(json.dumps(item))}))
        self._changed.set()
        self._changed = trio.Event()

    def forget_history(self) -> None:
        """Have all watches be too old."""
        self.oldest = self._version + 1
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()

    async def watch(self, since: int) -> AsyncIterator[bytes]:
        """Yield events as lines."""
        self.watches += 1
        while True:
            changed = self._changed
            if since < self.oldest:
                gone = KubeError(410, "Expired", f"too old resource version: {since} ({self.oldest})")
                yield json.dumps({"type": "ERROR", "object": gone.body}).encode() + b"\n"
                return
            for version, event in self._history:
                if version > since:
                    since = version
                    yield json.dumps(event).encode() + b"\n"
            await changed.wait()

    def create(self, kind: str, item: dict[str, Any], *, is_tried: bool) -> dict[str, Any]:
        """Make something."""
        name = item["metadata"]["name"]
        if not _NAME.fullmatch(name):
            raise KubeError(422, "Invalid", f"{kind} {name!r} is invalid: metadata.name")
        if name in self.items[kind]:
            raise KubeError(409, "AlreadyExists", f"{kind} {name!r} already exists")
        if kind == "pods" and self.refuses:
            raise self.refuses.pop(0)
        if is_tried:
            return item
        item["metadata"].update(uid=f"uid-{name}", creationTimestamp=now())
        self.items[kind][name] = item
        if kind == "pods":
            self.made.append(name)
            item["status"] = {"phase": "Pending", "conditions": []}
            self.tell("ADDED", item)
            self.nursery.start_soon(self._run_pod, item)
        return item

    def set_status(self, pod: dict[str, Any], **status: Any) -> None:
        """Change what a pod tells of itself."""
        pod["status"].update(status)
        self.tell("MODIFIED", pod)

    async def _run_pod(self, pod: dict[str, Any]) -> None:
        container = pod["spec"]["containers"][0]
        if why := _why_unschedulable(pod, container):
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
            self.set_status(pod, conditions=[condition])
            return
        pod["spec"]["nodeName"] = "node-1"
        scheduled = {"type": "PodScheduled", "status": "True"}
        self.set_status(pod, conditions=[scheduled], **_waiting(container, "ContainerCreating"))
        if container["image"] != IMAGE:
            reason = "InvalidImageName" if " " in container["image"] else "ErrImagePull"
            self.set_status(pod, **_waiting(container, reason, f"cannot pull {container['image']}"))
            return
        process = await self._start(pod, container)
        running = {"running": {"startedAt": now()}}
        self.set_status(pod, phase="Running", startTime=now(), **_state(container, running))
        code = await process.wait()
        del self.processes[pod["metadata"]["name"]]
        terminated: dict[str, Any] = {"exitCode": code if code >= 0 else 128 - code, "reason": "Error"}
        if pod["status"].get("wasOutOfMemory"):
            terminated["reason"] = "OOMKilled"
        phase = "Succeeded" if code == 0 else "Failed"
        self.set_status(pod, phase=phase, **_state(container, {"terminated": terminated}))
        if "deletionTimestamp" in pod["metadata"]:
            self._remove(pod)

    async def _start(self, pod: dict[str, Any], container: dict[str, Any]) -> trio.Process:
        name = pod["metadata"]["name"]
        root = self.place / name
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        command = list(container["command"])
        for volume in pod["spec"]["volumes"]:
            secret = self.items["secrets"][volume["secret"]["secretName"]]
            folder = root / mounts[volume["name"]].lstrip("/")
            folder.mkdir(parents=True)
            for file, data in secret["data"].items():
                (folder / file).write_bytes(base64.b64decode(data))
            command = [word.replace(mounts[volume["name"]], str(folder)) for word in command]
        (root / "tmp").mkdir()
        environment = {**os.environ, "TMPDIR": str(root / "tmp"), "XDG_RUNTIME_DIR": str(root / "tmp")}
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        self.processes[name] = process
        return process

    def delete(self, kind: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
        """Remove something: a pod that runs after its grace period."""
        item = self.items[kind].get(name)
        if item is None:
            raise KubeError(404, "NotFound", f'{kind} "{name}" not found')
        if kind == "secrets":
            return self.items[kind].pop(name)
        item["metadata"].setdefault("deletionTimestamp", now())
        process = self.processes.get(name)
        if process is None:
            self._remove(item)
        else:
            self.tell("MODIFIED", item)
            process.terminate()
            self.nursery.start_soon(_kill_later, process, options.get("gracePeriodSeconds", 30))
        return item

    def _remove(self, pod: dict[str, Any]) -> None:
        self.items["pods"].pop(pod["metadata"]["name"], None)
        self.tell("DELETED", pod)

    def kill_for_memory(self, name: str) -> None:
        """Kill a pod's process as a node without memory does."""
        self.items["pods"][name]["status"]["wasOutOfMemory"] = True
        os.killpg(self.processes[name].pid, signal.SIGKILL)


async def _kill_later(process: trio.Process, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await process.wait()
        return
    process.kill()


def now() -> str:
    """Return now as the API has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(container: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    return {"containerStatuses": [{"name": container["name"], "state": state}]}


def _waiting(container: dict[str, Any], reason: str, message: str | None = None) -> dict[str, Any]:
    waiting = {"reason": reason, **({"message": message} if message else {})}
    return _state(container, {"waiting": waiting})


def _why_unschedulable(pod: dict[str, Any], container: dict[str, Any]) -> str | None:
    if pod["spec"].get("nodeSelector"):
        return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    memory = container.get("resources", {}).get("requests", {}).get("memory", "0Gi")
    if int(re.sub(r"\D.*", "", memory)) > NODE_MEMORY_GI:
        return "0/1 nodes are available: 1 Insufficient memory."
    return None


def make_app(cluster: Cluster) -> QuartTrio:
    """Return the API's HTTP side."""
    app = QuartTrio(__name__)

    @app.before_request
    async def admit() -> None:
        if cluster.is_silent:
            await trio.sleep_forever()
        if request.headers.get("Authorization") != f"Bearer {cluster.token}":
            raise KubeError(401, "Unauthorized", "Unauthorized")

    @app.errorhandler(KubeError)
    async def refuse(error: KubeError) -> tuple[dict[str, Any], int]:
        return error.body, error.body["code"]  # type: ignore[return-value]

    @app.get("/api/v1/namespaces/default/<kind>")
    async def get_all(kind: str) -> Any:
        if request.args.get("watch"):
            return Response(cluster.watch(int(request.args["resourceVersion"])), content_type="application/json")
        cluster.lists += 1
        wanted = dict(pair.split("=") for pair in request.args.get("labelSelector", "").split(",") if pair)
        items = [
            item
            for item in cluster.items[kind].values()
            if wanted.items() <= item["metadata"].get("labels", {}).items()
        ]
        return {"kind": "List", "metadata": {"resourceVersion": str(cluster._version)}, "items": items}

    @app.get("/api/v1/namespaces/default/<kind>/<name>")
    async def get(kind: str, name: str) -> Any:
        if name not in cluster.items[kind]:
            raise KubeError(404, "NotFound", f'{kind} "{name}" not found')
        return cluster.items[kind][name]

    @app.post("/api/v1/namespaces/default/<kind>")
    async def create(kind: str) -> Any:
        made = cluster.create(kind, await request.get_json(), is_tried=request.args.get("dryRun") == "All")
        if cluster.drops_answers:
            cluster.drops_answers -= 1
            await trio.sleep_forever()
        return made, 201

    @app.delete("/api/v1/namespaces/default/<kind>/<name>")
    async def delete(kind: str, name: str) -> Any:
        return cluster.delete(kind, name, await request.get_json())

    return app


@attrs.frozen
class KubeServer:
    """A cluster that can be asked.

    Attributes:
        cluster: What is in it.
        kubeconfig: A file by which it is found.
    """

    cluster: Cluster
    kubeconfig: Path


@asynccontextmanager
async def open_kube_server(
    place: Path, certificate: Certificate | None = None, of_client: Certificate | None = None
) -> AsyncIterator[KubeServer]:
    """Run a cluster for a block; on leaving all of its pods are gone.

    Args:
        place: A directory for pods' files.
        certificate: What its API shows; None for one that does not encrypt.
        of_client: The one certificate that clients have to have, if any.
    """
    async with trio.open_nursery() as nursery:
        cluster = Cluster(place, nursery)
        settings = hypercorn.config.Config()
        settings.bind = ["127.0.0.1:0"]
        settings.errorlog = settings.accesslog = None
        if certificate is not None:
            _encrypt(settings, place, certificate, of_client)
        urls = await nursery.start(hypercorn.trio.serve, make_app(cluster), settings)
        kubeconfig = place / "kubeconfig"
        kubeconfig.write_text(json.dumps(make_kubeconfig(urls[0], certificate, of_client)))
        try:
            yield KubeServer(cluster, kubeconfig)
        finally:
            for process in cluster.processes.values():
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True), trio.move_on_after(10):
                for process in list(cluster.processes.values()):
                    await process.wait()
            nursery.cancel_scope.cancel()
            for name in cluster.made:
                shutil.rmtree(place / name, ignore_errors=True)


def _encrypt(
    settings: hypercorn.config.Config, place: Path, certificate: Certificate, of_client: Certificate | None
) -> None:
    for name, text in (("cert.pem", certificate.pem), ("key.pem", certificate.key_pem)):
        (place / name).write_text(text)
    settings.certfile, settings.keyfile = str(place / "cert.pem"), str(place / "key.pem")
    if of_client is not None:
        (place / "clients.pem").write_text(of_client.pem)
        settings.ca_certs, settings.verify_mode = str(place / "clients.pem"), ssl.CERT_REQUIRED


def make_server_certificate() -> Certificate:
    """Return a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    today = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - timedelta(days=1)).not_valid_after(today + timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
    made = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Certificate(
        made.public_bytes(pem).decode(), key.private_bytes(pem, form, serialization.NoEncryption()).decode()
    )


def make_kubeconfig(
    server: str, certificate: Certificate | None = None, of_client: Certificate | None = None
) -> dict[str, Any]:
    """Return a kubeconfig, which is YAML and so may be JSON."""

    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    cluster = {"server": server}
    if certificate is not None:
        cluster["certificate-authority-data"] = encoded(certificate.pem)
    user = {"token": TOKEN}
    if of_client is not None:
        user["client-certificate-data"], user["client-key-data"] = encoded(of_client.pem), encoded(of_client.key_pem)
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "one", "user": "me"}}],
        "clusters": [{"name": "one", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
    }


PYTHON = sys.executable
