"""What a session or a profile may ask of Kubernetes, and the pod and the Secret that come of it. [pure]

A pod is made from the user's own template, into which only that is put which a host needs: everything else in it stays
as it is. What is secret, the host's program among it, is in a Secret that is mounted; others who may look at pods see
neither.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import attrs

from kallichore.models import converter

MANAGER = "kallichore"

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED = f"{MANAGED_BY}={MANAGER}"
"""What finds what is any server's."""

OWNER, SESSION = "kallichore/owner", "kallichore/session"
"""Labels: which server, by a digest, and which session, by its label."""

CONTAINER = "kernel"
"""The name of the container that is the kernel's, where there are several, or none in the template."""

MOUNT = "/var/run/kallichore"
"""Where the host's program is in the pod."""

PROGRAM = "host.py"

VOLUME = "kallichore-host"

MOST_LABEL = 40
"""Characters of a label in a pod's name, which has to be a host's name."""

_AMOUNT = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@attrs.frozen
class KubernetesOptions:
    """What is asked of Kubernetes. What is None is the cluster's, or the template's, to say.

    Attributes:
        namespace: Where the pod goes; None for that of the credentials.
        kubeconfig: The file with the credentials; None for what ``kubectl`` would take, or those of the pod that the
            server runs in.
        context: Which of its contexts.
        image: The container's image, with the kernel and a Python 3.8 or later.
        python: That Python, as it is called there.
        cpu: Processors, as in ``500m`` or ``2``.
        memory: The memory, as in ``4Gi``: what it gets, and what it may not have more than.
        gpus: How many, of the resource ``gpu_resource``.
        gpu_resource: What GPUs are called there.
        time: Seconds until Kubernetes ends it.
        service_account: As whom it runs; without one in the template either, it gets no token.
        node_selector: Labels that its node has to have.
        template: The pod into which this is put, as in a manifest.
    """

    namespace: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    image: str | None = None
    python: str = "python3"
    cpu: str | None = None
    memory: str | None = None
    gpus: int | None = None
    gpu_resource: str = "nvidia.com/gpu"
    time: int | None = None
    service_account: str | None = None
    node_selector: dict[str, Any] | None = None
    template: dict[str, Any] | None = None


def read_options(options: Mapping[str, Any]) -> KubernetesOptions:
    """Return what is asked of Kubernetes.

    Args:
        options: The members of a session's ``engine`` besides ``kind`` and ``profile``.

    Raises:
        EngineError: An option is unknown, or has a value that it cannot have; all of them are named.
    """
    return converter.read_options(KubernetesOptions, options, "engine", _problems)


def _problems(options: KubernetesOptions) -> list[str]:
    problems = []
    if options.namespace is not None and not _NAME.fullmatch(options.namespace):
        problems.append(f"namespace is {options.namespace!r}; it has to be a name of a-z, 0-9 and -")
    for name in ("cpu", "memory"):
        value = getattr(options, name)
        if value is not None and not _AMOUNT.fullmatch(value):
            problems.append(f"{name} is {value!r}; it has to be an amount, such as {_EXAMPLES[name]}")
    for name in ("gpus", "time"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            problems.append(f"{name} is {value}; it has to be more than 0")
    problems += _template_problems(options)
    return problems


_EXAMPLES = {"cpu": "500m or 2", "memory": "4Gi"}


def _template_problems(options: KubernetesOptions) -> list[str]:
    template = options.template or {}
    parts = {"template.metadata": template.get("metadata", {}), "template.spec": template.get("spec", {})}
    wrong = [f"{name} is no object" for name, part in parts.items() if not isinstance(part, dict)]
    if wrong:
        return wrong
    containers = template.get("spec", {}).get("containers", [])
    if not isinstance(containers, list) or not all(isinstance(each, dict) for each in containers):
        return ["template.spec.containers is no list of containers"]
    if options.image is None and not _kernel_container(containers).get("image"):
        return ["image is missing, here and in the template's container; it has the kernel and a Python"]
    return []


def _kernel_container(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the kernel's container: that of this name, else the first; a new one if there is none."""
    named = [each for each in containers if each.get("name") == CONTAINER]
    return (named or containers or [{"name": CONTAINER}])[0]


def owner_label(owner: str) -> str:
    """Return by what a server's pods are known: labels have 63 characters, and not any."""
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def pod_name(label: str, digits: bytes) -> str:
    """Return the name of a pod, and of its Secret.

    Args:
        label: For people.
        digits: Random bytes, so that there is no other.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", label.lower())[:MOST_LABEL].strip("-")
    return f"kc-{readable}-{digits.hex()}" if readable else f"kc-{digits.hex()}"


def labels_of(owner: str, label: str) -> dict[str, str]:
    """Return the labels by which a pod and its Secret are found."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", label)[:63].strip("-")
    return {MANAGED_BY: MANAGER, OWNER: owner_label(owner), SESSION: readable}


def selector(owner: str) -> str:
    """Return what finds all that is a server's."""
    return f"{MANAGED},{OWNER}={owner_label(owner)}"


def make_secret(name: str, labels: Mapping[str, str], script: bytes) -> dict[str, Any]:
    """Return the Secret with a host's program."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": dict(labels)},
        "type": "Opaque",
        "immutable": True,
        "data": {PROGRAM: base64.b64encode(script).decode("ascii")},
    }


def make_pod(name: str, labels: Mapping[str, str], options: KubernetesOptions) -> dict[str, Any]:
    """Return the pod of a host: the template, with what it needs put into it."""
    pod = deepcopy(options.template or {})
    pod["apiVersion"], pod["kind"] = "v1", "Pod"
    metadata, spec = pod.setdefault("metadata", {}), pod.setdefault("spec", {})
    for other in ("generateName", "namespace"):
        metadata.pop(other, None)
    metadata["name"] = name
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    containers = spec["containers"] = list(spec.get("containers") or [])
    container = _kernel_container(containers)
    if container not in containers:
        containers.insert(0, container)
    _fill_container(container, options)
    _add(spec, "volumes", {"name": VOLUME, "secret": {"secretName": name}})
    # One that is begun anew would be another kernel.
    spec["restartPolicy"] = "Never"
    if options.service_account is not None:
        spec["serviceAccountName"] = options.service_account
    elif "serviceAccountName" not in spec:
        spec.setdefault("automountServiceAccountToken", False)
    if options.time is not None:
        spec["activeDeadlineSeconds"] = options.time
    if options.node_selector:
        spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **options.node_selector}
    return pod


def _fill_container(container: dict[str, Any], options: KubernetesOptions) -> None:
    container.setdefault("name", CONTAINER)
    if options.image is not None:
        container["image"] = options.image
    container["command"] = [options.python, f"{MOUNT}/{PROGRAM}"]
    container.pop("args", None)
    _add(container, "volumeMounts", {"name": VOLUME, "mountPath": MOUNT, "readOnly": True})
    wanted = {"cpu": options.cpu, "memory": options.memory}
    wanted[options.gpu_resource] = None if options.gpus is None else str(options.gpus)
    amounts = {resource: amount for resource, amount in wanted.items() if amount is not None}
    if amounts:
        resources = container["resources"] = dict(container.get("resources") or {})
        resources["requests"] = {**(resources.get("requests") or {}), **amounts}
        # Processors that nobody needs just now it may have.
        limits = {resource: amount for resource, amount in amounts.items() if resource != "cpu"}
        resources["limits"] = {**(resources.get("limits") or {}), **limits}


def _add(part: dict[str, Any], name: str, item: dict[str, Any]) -> None:
    part[name] = [*(each for each in part.get(name) or [] if each.get("name") != item["name"]), item]
