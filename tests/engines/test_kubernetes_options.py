"""What may be asked of Kubernetes, and what pod comes of it; pure."""

from __future__ import annotations

import base64
import re
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.engines.kubernetes_options import (
    MOUNT,
    KubernetesOptions,
    labels_of,
    make_pod,
    make_secret,
    owner_label,
    pod_name,
    read_options,
    selector,
)
from kallichore.errors import EngineError

MOUNTED = {"name": "kallichore-host", "mountPath": MOUNT, "readOnly": True}
VOLUME = {"name": "kallichore-host", "secret": {"secretName": "kc-a"}}

TEMPLATE: dict[str, Any] = {
    "metadata": {"name": "mine", "namespace": "other", "generateName": "x", "labels": {"team": "blue"}},
    "spec": {
        "containers": [
            {"name": "proxy", "image": "proxy:1"},
            {
                "name": "kernel",
                "image": "r:4",
                "args": ["serve"],
                "env": [{"name": "A", "value": "1"}],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                "resources": {"limits": {"memory": "1Gi", "x/y": "2"}},
            },
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "tolerations": [{"key": "gpu"}],
        "restartPolicy": "Always",
        "nodeSelector": {"zone": "a"},
    },
}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "image is missing"),
        ({"template": {"spec": {"containers": [{"name": "kernel"}]}}}, "image is missing"),
        ({"image": 5}, "image: must be a string, not 5"),
        ({"image": "a", "namespace": "A_b"}, "namespace is 'A_b'; it has to be a name of a-z, 0-9 and -"),
        ({"image": "a", "memory": "4 GB"}, "memory is '4 GB'; it has to be an amount, such as 4Gi"),
        ({"image": "a", "cpu": "two"}, "cpu is 'two'; it has to be an amount, such as 500m or 2"),
        ({"image": "a", "gpus": 0}, "gpus is 0; it has to be more than 0"),
        ({"image": "a", "time": -1}, "time is -1; it has to be more than 0"),
        ({"image": "a", "template": []}, "template: must be an object, not []"),
        ({"image": "a", "template": {"spec": 7}}, "template.spec is no object"),
        ({"image": "a", "template": {"metadata": 7}}, "template.metadata is no object"),
        ({"image": "a", "template": {"spec": {"containers": {}}}}, "template.spec.containers is no list of"),
        ({"image": "a", "template": {"spec": {"containers": [3]}}}, "template.spec.containers is no list of"),
        ({"image": "a", "images": "b"}, "engine.images is not known; known are namespace, kubeconfig, "),
    ],
)
def test_option_that_cannot_be_is_told(options: dict[str, Any], complaint: str) -> None:
    """Each is named, with what it may be."""
    with pytest.raises(EngineError) as info:
        read_options(options)

    assert complaint in str(info.value)


@pytest.mark.parametrize("amount", ["1", "0.5", "500m", "4Gi", "4G", "128Mi", "1k"])
def test_amounts_are_those_of_kubernetes(amount: str) -> None:
    """What the cluster takes is taken."""
    assert amount == read_options({"image": "a", "memory": amount}).memory


def test_image_may_be_the_templates() -> None:
    """It is asked for only where the template has none."""
    assert read_options({"template": TEMPLATE}).image is None


def test_pod_without_a_template_is_the_least() -> None:
    """A container with the host, no token, and nothing that begins anew."""
    pod = make_pod("kc-a", {"l": "1"}, KubernetesOptions(image="py:3"))

    assert pod == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "kc-a", "labels": {"l": "1"}},
        "spec": {
            "containers": [
                {
                    "name": "kernel",
                    "image": "py:3",
                    "command": ["python3", f"{MOUNT}/host.py"],
                    "volumeMounts": [MOUNTED],
                }
            ],
            "volumes": [VOLUME],
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
        },
    }


def test_template_is_kept_but_for_what_a_host_needs() -> None:
    """Other containers, volumes, labels and settings are as they were; the kernel's container runs the host."""
    before = deepcopy(TEMPLATE)
    wanted: dict[str, Any] = {"memory": "4Gi", "cpu": "2", "gpus": 1, "time": 60, "node_selector": {"disk": "ssd"}}
    options = KubernetesOptions(template=TEMPLATE, **wanted)
    pod = make_pod("kc-a", {"l": "1"}, options)
    proxy, kernel = pod["spec"]["containers"]

    assert before == TEMPLATE
    assert {"name": "kc-a", "labels": {"team": "blue", "l": "1"}} == pod["metadata"]
    assert {"name": "proxy", "image": "proxy:1"} == proxy
    assert ("r:4", [{"name": "A", "value": "1"}], False) == (kernel["image"], kernel["env"], "args" in kernel)
    assert [{"name": "data", "mountPath": "/data"}, MOUNTED] == kernel["volumeMounts"]
    assert {"memory": "4Gi", "x/y": "2", "nvidia.com/gpu": "1"} == kernel["resources"]["limits"]
    assert {"memory": "4Gi", "cpu": "2", "nvidia.com/gpu": "1"} == kernel["resources"]["requests"]
    assert [{"name": "data", "emptyDir": {}}, VOLUME] == pod["spec"]["volumes"]
    assert ("Never", 60) == (pod["spec"]["restartPolicy"], pod["spec"]["activeDeadlineSeconds"])
    assert ([{"key": "gpu"}], {"zone": "a", "disk": "ssd"}) == (
        pod["spec"]["tolerations"],
        pod["spec"]["nodeSelector"],
    )


@pytest.mark.parametrize(
    ("spec", "options", "expected"),
    [
        ({}, {"service_account": "me"}, ("me", None)),
        ({"serviceAccountName": "you"}, {}, ("you", None)),
        ({"automountServiceAccountToken": True}, {}, (None, True)),
        ({}, {}, (None, False)),
    ],
)
def test_token_is_there_only_for_who_names_an_account(
    spec: dict[str, Any], options: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    """A kernel that nobody gave an account has no key to the cluster."""
    made = make_pod("kc-a", {}, KubernetesOptions(image="a", template={"spec": spec}, **options))["spec"]

    assert expected == (made.get("serviceAccountName"), made.get("automountServiceAccountToken"))


def test_only_container_is_the_kernels_whatever_it_is_called() -> None:
    """A template with one container means that one."""
    template = {"spec": {"containers": [{"name": "notebook", "image": "n:1"}]}}
    containers = make_pod("kc-a", {}, KubernetesOptions(template=template))["spec"]["containers"]

    assert [("notebook", "n:1")] == [(each["name"], each["image"]) for each in containers]
    assert ["python3", f"{MOUNT}/host.py"] == containers[0]["command"]


@given(st.text(), st.binary(min_size=5, max_size=5))
def test_name_is_one_that_a_pod_may_have(label: str, digits: bytes) -> None:
    """Small letters, digits and hyphens, at most 63 of them, whatever a session is called."""
    name = pod_name(label, digits)

    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])", name)


@given(st.text(), st.text())
def test_labels_are_such_as_may_be(owner: str, label: str) -> None:
    """A label's value has letters, digits and hyphens, at most 63; the owner's is found by the selector."""
    labels = labels_of(owner, label)

    assert all(re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)?", value) for value in labels.values())
    assert f"kallichore/owner={owner_label(owner)}" in selector(owner)


def test_secret_has_the_program_as_it_is() -> None:
    """In Base64, as the API wants it."""
    secret = make_secret("kc-a", {"l": "1"}, b"print(1)\n")

    assert b"print(1)\n" == base64.b64decode(secret["data"]["host.py"])
    assert {"name": "kc-a", "labels": {"l": "1"}} == secret["metadata"]
