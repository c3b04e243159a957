"""What Kubernetes tells of pods, in the forms in which a real 1.34 told it; pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.engines.kubernetes_words import PodState, Stage, describe_refusal, read_end, read_pod

SPEC = {
    "nodeName": "n1",
    "containers": [{"name": "proxy"}, {"name": "kernel", "resources": {"limits": {"memory": "2Gi"}}}],
}


def state(**state: Any) -> dict[str, Any]:
    """Return a status whose kernel's container is in a state."""
    others = {"name": "proxy", "state": {"running": {}}}
    return {"containerStatuses": [others, {"name": "kernel", "state": state}]}


def pod(phase: str, status: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """Return a pod in a phase."""
    return {"metadata": {"name": "p"}, "spec": SPEC, "status": {"phase": phase, **(status or {})}, **members}


def condition(kind: str, status: str, **more: Any) -> dict[str, Any]:
    """Return a status with a condition."""
    return {"conditions": [{"type": "Ready", "status": "False"}, {"type": kind, "status": status, **more}]}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({}, "it has no node yet"),
        (
            condition("PodScheduled", "False", reason="Unschedulable", message="0/1 nodes are available: 1 Too many. "),
            "Unschedulable: 0/1 nodes are available: 1 Too many",
        ),
        (condition("PodScheduled", "True"), "it has a node, and is being made"),
        (state(waiting={"reason": "ContainerCreating"}), "ContainerCreating: the container is being made"),
        (
            state(waiting={"reason": "ErrImagePull", "message": "not found"}),
            "ErrImagePull: the image cannot be pulled: not found",
        ),
        (
            state(waiting={"reason": "ImagePullBackOff", "message": ""}),
            "ImagePullBackOff: the image cannot be pulled, and is tried again",
        ),
        (state(waiting={"reason": "SomethingNew", "message": "x"}), "SomethingNew: x"),
    ],
)
def test_waiting_pod_says_why(status: dict[str, Any], reason: str) -> None:
    """The scheduler's words, or the container's, behind what they mean."""
    assert PodState(Stage.WAITING, reason, node="n1") == read_pod(pod("Pending", status))


@pytest.mark.parametrize(("reason", "is_hopeless"), [("InvalidImageName", True), ("ErrImagePull", False)])
def test_pod_that_can_never_run_is_told_from_one_that_waits(reason: str, is_hopeless: bool) -> None:
    """An image may come; a name that is none does not become one."""
    assert is_hopeless == read_pod(pod("Pending", state(waiting={"reason": reason}))).is_hopeless


@pytest.mark.parametrize(
    ("status", "reason", "is_plain"),
    [
        (state(terminated={"exitCode": 0, "reason": "Completed"}), "has ended", True),
        (state(terminated={"exitCode": 7, "reason": "Error"}), "ended with exit code 7", True),
        (state(terminated={"exitCode": 137, "reason": "Error"}), "was killed from outside", True),
        (
            state(terminated={"exitCode": 137, "reason": "OOMKilled"}),
            "ran out of memory, of which it may have 2Gi",
            False,
        ),
        (
            state(terminated={"exitCode": 128, "reason": "StartError", "message": "no such file"}),
            "could not be started: no such file",
            False,
        ),
        (
            {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than the deadline."},
            "ran into its time limit: Pod was active on the node longer than the deadline",
            False,
        ),
        ({"reason": "Evicted", "message": "low on memory"}, "was evicted from its node: low on memory", False),
        ({"reason": "News"}, "has ended: News", False),
        (
            condition("DisruptionTarget", "True", reason="PreemptionByScheduler", message="by pod x"),
            "was preempted by one that is more important: by pod x",
            False,
        ),
        ({}, "has ended", True),
    ],
)
def test_pod_that_is_over_says_why(status: dict[str, Any], reason: str, is_plain: bool) -> None:
    """Half a sentence that follows "its pod"; what only the program's end is, is known as that."""
    assert PodState(Stage.OVER, reason, is_plain=is_plain, node="n1") == read_pod(pod("Failed", status))


def test_pod_whose_kernel_ended_beside_another_container_is_over() -> None:
    """A sidecar that goes on keeps the phase at Running."""
    found = read_pod(pod("Running", state(terminated={"exitCode": 3})))

    assert (Stage.OVER, "ended with exit code 3") == (found.stage, found.reason)


@pytest.mark.parametrize(
    ("members", "status", "reason"),
    [
        ({}, {}, ""),
        ({"metadata": {"deletionTimestamp": "2026-11-27T00:00:00Z"}}, {}, "was deleted"),
        (
            {"metadata": {"deletionTimestamp": "2026-11-27T00:00:00Z"}},
            condition("DisruptionTarget", "True", reason="EvictionByEvictionAPI"),
            "was evicted from its node",
        ),
    ],
)
def test_running_pod_that_is_to_end_says_why(members: dict[str, Any], status: dict[str, Any], reason: str) -> None:
    """Who ends it is known before it has ended, while its host can still tell the rest."""
    assert PodState(Stage.RUNNING, reason, node="n1") == read_pod(pod("Running", status, **members))


@pytest.mark.parametrize(
    ("seconds", "started", "ends_at"),
    [
        (60, "1970-01-01T00:01:40Z", 160.0),
        (None, "1970-01-01T00:01:40Z", None),
        (60, None, None),
        (60, "yesterday", None),
    ],
)
def test_time_limit_is_known_once_it_runs(seconds: int | None, started: str | None, ends_at: float | None) -> None:
    """It is counted from the pod's start."""
    spec = {**SPEC, "activeDeadlineSeconds": seconds}

    assert ends_at == read_pod({"spec": spec, "status": {"phase": "Running", "startTime": started}}).ends_at


@pytest.mark.parametrize(
    ("finished", "ended_at"), [("1970-01-01T00:01:40Z", 100.0), (None, None), ("yesterday", None), (7, None)]
)
def test_end_of_a_kernel_has_a_time(finished: Any, ended_at: float | None) -> None:
    """When its container has ended, and not when another of the pod's has."""
    assert ended_at == read_end(pod("Failed", state(terminated={"exitCode": 0, "finishedAt": finished})))
    assert read_end(pod("Running", state(running={}))) is None


@given(st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.lists(inner), max_leaves=3))
def test_pod_of_which_nothing_is_known_waits(part: Any) -> None:
    """Members that are missing, or are something else, are no error."""
    found = read_pod({"metadata": part, "spec": part, "status": part})

    assert (Stage.WAITING, "it has no node yet") == (found.stage, found.reason)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"reason": "Forbidden", "message": "exceeded quota."}, "403 Forbidden: exceeded quota"),
        ({"reason": "Forbidden"}, "403 Forbidden"),
        ({}, "403"),
        ("<html>", "403"),
    ],
)
def test_refusal_is_in_the_apis_words(answer: Any, text: str) -> None:
    """With its reason, where it is a Status."""
    assert text == describe_refusal(403, answer)
