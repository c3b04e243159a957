"""Which cluster is meant and who we are there: kubeconfigs, pods' own files, programs for credentials."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from kallichore.engines.certificate import make_certificate
from kallichore.engines.kubernetes_account import (
    SERVICE_ACCOUNT,
    Account,
    Credentials,
    ExecPlugin,
    Source,
    in_cluster,
    read_credentials,
    read_kubeconfig,
)
from kallichore.engines.kubernetes_api import ask_plugin, find_account, make_context
from kallichore.errors import EngineError

VERSION = "client.authentication.k8s.io/v1"


def config(user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    """Return a kubeconfig with two contexts."""
    return {
        "current-context": "a",
        "contexts": [
            {"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "mine"}},
            {"name": "b", "context": {"cluster": "c"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://c:6443/", **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }


def encoded(text: str) -> str:
    """Return a text as the members that end in -data have it."""
    return base64.b64encode(text.encode()).decode()


def test_account_is_that_of_the_current_context() -> None:
    """Server, namespace and credentials, of which each is a text or a file beside the kubeconfig."""
    user = {"client-certificate-data": encoded("cert"), "client-key": "keys/k.pem", "token": "t"}
    found = read_kubeconfig(config(user, **{"certificate-authority": "/ca.pem"}), "/home/me/.kube", None)

    assert found == Account(
        server="https://c:6443",
        namespace="mine",
        authority=Source(path="/ca.pem"),
        certificate=Source(text="cert"),
        key=Source(path="/home/me/.kube/keys/k.pem"),
        token=Source(text="t"),
    )


def test_another_context_can_be_named() -> None:
    """One without a user has no credentials, and without a namespace means the usual one."""
    cluster = {"insecure-skip-tls-verify": True, "tls-server-name": "api"}
    expected = Account(server="https://c:6443", is_unchecked=True, server_name="api")

    assert expected == read_kubeconfig(config({"token": "t"}, **cluster), "/", "b")


def test_file_with_a_token_counts_before_the_token() -> None:
    """As kubectl has it: what is in the file may change."""
    found = read_kubeconfig(config({"token": "t", "tokenFile": "token"}), "/k", None)

    assert Source(path="/k/token") == found.token


def test_program_for_credentials_is_found() -> None:
    """A bare name in PATH, another beside the kubeconfig; with arguments and variables."""
    told = {"apiVersion": VERSION, "command": "bin/login", "args": ["-q"], "env": [{"name": "A", "value": "1"}]}
    found = read_kubeconfig(config({"exec": told}), "/k", None)
    bare = read_kubeconfig(config({"exec": {**told, "command": "login"}}), "/k", None)

    assert ExecPlugin(("/k/bin/login", "-q"), {"A": "1"}, VERSION) == found.plugin
    assert bare.plugin is not None
    assert ("login", "-q") == bare.plugin.argv


@pytest.mark.parametrize(
    ("document", "context", "complaint"),
    [
        (None, None, "has no current-context, and no context was named; there are: none"),
        ({"contexts": [{"name": "a"}, {"name": "b"}]}, None, "no context was named; there are: a, b"),
        (config(), "z", "has no context 'z'; there are: a, b"),
        ({**config(), "clusters": []}, None, "has no cluster 'c'; there are: none"),
        ({**config(), "users": 7}, None, "has no user 'u'; there are: none"),
        (config(server=""), None, "The cluster 'c' of the kubeconfig has no server"),
        (config({"auth-provider": {}}), None, "has an auth-provider; use exec instead"),
        (config({"client-key-data": "%"}), None, "client-key-data of the kubeconfig is no Base64 of a text"),
        (config({"exec": {"apiVersion": "v0", "command": "a"}}), None, "exec of the kubeconfig needs a command, and"),
        (config({"exec": {"apiVersion": VERSION}}), None, "exec of the kubeconfig needs a command, and"),
    ],
)
def test_kubeconfig_that_cannot_be_used_is_told(document: Any, context: str | None, complaint: str) -> None:
    """What is missing is named, with what there is."""
    with pytest.raises(EngineError) as info:
        read_kubeconfig(document, "/", context)

    assert complaint in str(info.value)


def test_pod_has_an_account_of_its_own() -> None:
    """Where the API is says the environment, who we are its files."""
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}

    assert in_cluster(environment, "here\n") == Account(
        server="https://10.0.0.1:443",
        namespace="here",
        authority=Source(path=f"{SERVICE_ACCOUNT}/ca.crt"),
        token=Source(path=f"{SERVICE_ACCOUNT}/token"),
    )


@pytest.mark.parametrize(
    ("environment", "namespace"),
    [
        ({}, "here"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "here"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, None),
    ],
)
def test_what_is_no_pod_has_none(environment: dict[str, str], namespace: str | None) -> None:
    """A pod without a service account has no files."""
    assert in_cluster(environment, namespace) is None


def test_address_of_version_6_is_in_brackets() -> None:
    """As URLs have it."""
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    account = in_cluster(environment, "here")

    assert account is not None
    assert "https://[fd00::1]:443" == account.server


@pytest.mark.parametrize("document", [None, {}, {"status": 1}, {"status": {}}, {"status": {"clientKeyData": "k"}}])
def test_credentials_that_are_none_are_told(document: Any) -> None:
    """With the program's name."""
    with pytest.raises(EngineError, match="login, which the kubeconfig names by exec, told neither a token nor"):
        read_credentials(document, "login")


def test_account_is_found_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KUBECONFIG names the file; without one, and out of a pod, nothing is known."""
    file = tmp_path / "config"
    file.write_text(f"# a comment\n{json.dumps(config())}\n")
    monkeypatch.setenv("KUBECONFIG", str(file))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = find_account(None, None)
    monkeypatch.delenv("KUBECONFIG")

    assert "https://c:6443" == found.server
    with pytest.raises(EngineError, match="There is no cluster known here"):
        find_account(None, None)


@pytest.mark.parametrize("text", ["a: [", "\x00"])
def test_kubeconfig_that_is_no_yaml_is_told(tmp_path: Path, text: str) -> None:
    """With its name."""
    file = tmp_path / "config"
    file.write_text(text)

    with pytest.raises(EngineError, match=f"The kubeconfig {file} cannot be read"):
        find_account(str(file), None)


async def test_program_for_credentials_is_asked_as_it_expects() -> None:
    """It is told the version that it is to speak, and has the variables of the kubeconfig."""
    code = (
        "import json, os; told = json.loads(os.environ['KUBERNETES_EXEC_INFO']); "
        "print(json.dumps({'status': {'token': told['apiVersion'] + os.environ['MINE']}}))"
    )
    plugin = ExecPlugin((sys.executable, "-c", code), {"MINE": "!"}, VERSION)

    assert Credentials(f"{VERSION}!") == await ask_plugin(plugin)


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (("/no/such/login",), "/no/such/login, which the kubeconfig names by exec, cannot be run"),
        ((sys.executable, "-c", "import sys; sys.exit('log in first')"), "failed: log in first"),
        ((sys.executable, "-c", "print(1)"), "told neither a token nor a certificate"),
    ],
)
async def test_program_that_tells_no_credentials_is_told(argv: tuple[str, ...], complaint: str) -> None:
    """With what it complained about."""
    with pytest.raises(EngineError) as info:
        await ask_plugin(ExecPlugin(argv, {}, VERSION))

    assert complaint in str(info.value)


async def test_clients_certificate_is_used_and_left_nowhere(tmp_path: Path) -> None:
    """OpenSSL reads it from a file, which is gone at once; one that is none is told."""
    mine = make_certificate()
    certificate, key = Source(text=mine.pem), Source(text=mine.key_pem)
    account = Account(server="https://c", certificate=certificate, key=key, authority=certificate)
    context = await make_context(account, tmp_path)
    broken = Account(server="https://c", authority=Source(text="nothing"))

    assert (1, []) == (context.cert_store_stats()["x509"], list(tmp_path.iterdir()))
    with pytest.raises(EngineError, match="The certificates for https://c cannot be used"):
        await make_context(broken, tmp_path)
