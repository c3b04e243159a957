"""What Kubernetes tells of a pod, and what that means in words. [pure]

Pods come as the API has them, in objects of which any member may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import attrs

from kallichore.engines.kubernetes_options import CONTAINER

HOPELESS = {"InvalidImageName": "the image's name is none", "ErrImageNeverPull": "the image is not on the node"}
"""Reasons of a waiting container that no waiting helps against."""

_WAITS = {
    "ContainerCreating": "the container is being made",
    "PodInitializing": "the pod's first containers run",
    "ErrImagePull": "the image cannot be pulled",
    "ImagePullBackOff": "the image cannot be pulled, and is tried again",
    "CreateContainerConfigError": "the container cannot be made as it is described",
    "CreateContainerError": "the container cannot be made",
}

_POD_ENDS = {
    "DeadlineExceeded": "ran into its time limit",
    "Evicted": "was evicted from its node",
    "NodeLost": "was lost with its node",
    "NodeShutdown": "was ended because its node was shut down",
    "Terminated": "was ended because its node was shut down",
    "Preempting": "was preempted",
    "UnexpectedAdmissionError": "was refused by its node",
    "OutOfcpu": "was refused by its node, which has no processors left",
    "OutOfmemory": "was refused by its node, which has no memory left",
}
"""Reasons of a pod that has failed."""

_DISRUPTIONS = {
    "PreemptionByScheduler": "was preempted by one that is more important",
    "DeletionByTaintManager": "was ended because its node is not to run it any more",
    "EvictionByEvictionAPI": "was evicted from its node",
    "TerminationByKubelet": "was ended by its node, which has too little left or is shut down",
}
"""Reasons of the condition ``DisruptionTarget``."""

KILLED, KILLED_FOR_MEMORY = 137, "OOMKilled"


class Stage(Enum):
    """How far a pod is."""

    WAITING = "waiting"
    RUNNING = "running"
    OVER = "over"


@attrs.frozen
class PodState:
    """What is known of a pod.

    Attributes:
        stage: How far it is.
        reason: Why it waits, or why it ended or is about to, in words; empty where nobody says.
        is_hopeless: Whether it waits for what cannot come.
        is_plain: Whether the reason says no more than that its program has ended.
        node: Its node.
        ends_at: When Kubernetes ends it, in seconds since 1970; None for never.
    """

    stage: Stage
    reason: str = ""
    is_hopeless: bool = False
    is_plain: bool = False
    node: str | None = None
    ends_at: float | None = None


GONE = PodState(Stage.OVER, "was deleted")


def read_pod(pod: Mapping[str, Any]) -> PodState:
    """Return what a pod says of itself."""
    status = _part(pod, "status")
    node, ends_at = _part(pod, "spec").get("nodeName"), _deadline(pod)
    terminated = _part(_container_state(pod), "terminated")
    if status.get("phase") in ("Succeeded", "Failed") or terminated:
        why = _why_it_must_go(pod) or _why_container_ended(pod, terminated)
        plain = "" if why else _plain_end(terminated)
        return PodState(Stage.OVER, why or plain, is_plain=not why, node=node, ends_at=ends_at)
    if status.get("phase") == "Running":
        return PodState(Stage.RUNNING, _why_it_must_go(pod), node=node, ends_at=ends_at)
    waiting = _part(_container_state(pod), "waiting")
    is_hopeless = waiting.get("reason", "") in HOPELESS
    return PodState(Stage.WAITING, _why_waiting(pod, waiting), is_hopeless, node=node, ends_at=ends_at)


def read_end(pod: Mapping[str, Any]) -> float | None:
    """Return when a pod's kernel has ended, in seconds since 1970; None if it has not, or nobody says."""
    return _moment(_part(_container_state(pod), "terminated").get("finishedAt"))


def _part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _items(value: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    items = value.get(name)
    return (each for each in items if isinstance(each, dict)) if isinstance(items, list) else iter(())


def _container_status(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    statuses = list(_items(_part(pod, "status"), "containerStatuses"))
    named = [each for each in statuses if each.get("name") == CONTAINER]
    return (named or statuses or [{}])[0]


def _container_state(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    return _part(_container_status(pod), "state")


def _condition(pod: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = _items(_part(pod, "status"), "conditions")
    return next((each for each in conditions if each.get("type") == kind), {})


def _deadline(pod: Mapping[str, Any]) -> float | None:
    seconds, started = _part(pod, "spec").get("activeDeadlineSeconds"), _part(pod, "status").get("startTime")
    moment = _moment(started)
    return None if moment is None or not isinstance(seconds, int) else moment + seconds


def _moment(told: Any) -> float | None:
    try:
        return datetime.fromisoformat(told).timestamp() if isinstance(told, str) else None
    except ValueError:
        return None


def _with_message(words: str, message: Any) -> str:
    return f"{words}: {message.strip().rstrip('.')}" if isinstance(message, str) and message.strip() else words


def _why_waiting(pod: Mapping[str, Any], waiting: Mapping[str, Any]) -> str:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _with_message(str(scheduled.get("reason", "it has no node yet")), scheduled.get("message"))
    if reason := waiting.get("reason"):
        words = HOPELESS.get(reason) or _WAITS.get(reason, "")
        return _with_message(f"{reason}: {words}" if words else str(reason), waiting.get("message"))
    return "it has a node, and is being made" if scheduled else "it has no node yet"


def _why_it_must_go(pod: Mapping[str, Any]) -> str:
    """Return why a pod was ended or is, as half a sentence that follows "its pod"; empty if nobody ends it."""
    status = _part(pod, "status")
    disruption, reason = _condition(pod, "DisruptionTarget"), status.get("reason", "")
    if words := _DISRUPTIONS.get(disruption.get("reason", "")):
        return _with_message(words, disruption.get("message"))
    if reason:
        return _with_message(_POD_ENDS.get(reason, f"has ended: {reason}"), status.get("message"))
    return "was deleted" if _part(pod, "metadata").get("deletionTimestamp") else ""


def _why_container_ended(pod: Mapping[str, Any], terminated: Mapping[str, Any]) -> str:
    if terminated.get("reason") == KILLED_FOR_MEMORY:
        limit = _memory_limit(pod)
        return f"ran out of memory{f', of which it may have {limit}' if limit else ''}"
    if terminated.get("reason") == "StartError":
        return _with_message("could not be started", terminated.get("message"))
    return ""


def _plain_end(terminated: Mapping[str, Any]) -> str:
    code = terminated.get("exitCode")
    if code == KILLED:
        return "was killed from outside"
    return f"ended with exit code {code}" if isinstance(code, int) and code else "has ended"


def _memory_limit(pod: Mapping[str, Any]) -> str | None:
    containers = list(_items(_part(pod, "spec"), "containers"))
    named = [each for each in containers if each.get("name") == CONTAINER]
    container = (named or containers or [{}])[0]
    limit = _part(_part(container, "resources"), "limits").get("memory")
    return None if limit is None else str(limit)


def describe_refusal(status: int, answer: Any) -> str:
    """Return why the API refused something, in its words.

    Args:
        status: HTTP's status.
        answer: The body, as JSON, which is mostly a ``Status``.
    """
    told = answer if isinstance(answer, dict) else {}
    message, reason = told.get("message"), told.get("reason")
    return _with_message(f"{status} {reason}" if reason else f"{status}", message)
