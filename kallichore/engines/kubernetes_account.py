"""Which cluster is meant, and who we are there: read from a kubeconfig, or from what a pod is given. [pure]

What has to be read from a file, or be asked of a program, is named here and fetched elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import posixpath
from collections.abc import Mapping
from typing import Any

import attrs

from kallichore.errors import EngineError

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its own credentials."""

EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
"""What programs for credentials may speak."""


@attrs.frozen
class Source:
    """A text that stands in the kubeconfig itself, or in a file. At most one of both is not None."""

    text: str | None = None
    path: str | None = None

    def __bool__(self) -> bool:
        return self.text is not None or self.path is not None


@attrs.frozen
class ExecPlugin:
    """A program that tells credentials."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    api_version: str


@attrs.frozen
class Account:
    """A cluster, and who we are there.

    Attributes:
        server: The API's address.
        namespace: Where pods go, if nobody says.
        authority: Who signed the API's certificate, as PEM; empty for whom the system trusts.
        is_unchecked: Whether the certificate is not looked at.
        server_name: The name that has to be in it, where that is not the address.
        certificate, key: Ours, as PEM.
        token: Ours, if we have one. A file may change.
        plugin: Who tells certificate or token.
    """

    server: str
    namespace: str = "default"
    authority: Source = Source()
    is_unchecked: bool = False
    server_name: str | None = None
    certificate: Source = Source()
    key: Source = attrs.field(default=Source(), repr=False)
    token: Source = attrs.field(default=Source(), repr=False)
    plugin: ExecPlugin | None = None


def in_cluster(environment: Mapping[str, str], namespace: str | None) -> Account | None:
    """Return the account that a pod has; None if this is none.

    Args:
        environment: The process's.
        namespace: What the pod's file says that its namespace is; None if there is none.
    """
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or namespace is None:
        return None
    return Account(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=namespace.strip() or "default",
        authority=Source(path=f"{SERVICE_ACCOUNT}/ca.crt"),
        token=Source(path=f"{SERVICE_ACCOUNT}/token"),
    )


def read_kubeconfig(document: Any, folder: str, context: str | None) -> Account:
    """Return the account of a context.

    Args:
        document: The kubeconfig, read.
        folder: Where it is: paths in it are relative to that.
        context: Which context; None for the one that it names itself.

    Raises:
        EngineError: It is none, or names what is not in it; the text says what.
    """
    config = document if isinstance(document, dict) else {}
    name = context or config.get("current-context")
    if not name:
        known = ", ".join(_names(config, "contexts")) or "none"
        raise EngineError(f"The kubeconfig has no current-context, and no context was named; there are: {known}")
    chosen = _find(config, "contexts", "context", name)
    cluster = _find(config, "clusters", "cluster", chosen.get("cluster"))
    user = _find(config, "users", "user", chosen.get("user")) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise EngineError(f"The cluster {chosen.get('cluster')!r} of the kubeconfig has no server")
    if "auth-provider" in user:
        raise EngineError(f"The user {chosen.get('user')!r} of the kubeconfig has an auth-provider; use exec instead")
    return Account(
        server=str(cluster["server"]).rstrip("/"),
        namespace=chosen.get("namespace") or "default",
        authority=_source(cluster, "certificate-authority", folder),
        is_unchecked=cluster.get("insecure-skip-tls-verify") is True,
        server_name=cluster.get("tls-server-name"),
        certificate=_source(user, "client-certificate", folder),
        key=_source(user, "client-key", folder),
        token=_token(user, folder),
        plugin=_plugin(user, folder),
    )


def _entries(config: Mapping[str, Any], part: str) -> list[Mapping[str, Any]]:
    entries = config.get(part)
    return [each for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []


def _names(config: Mapping[str, Any], part: str) -> list[str]:
    return [str(each.get("name")) for each in _entries(config, part)]


def _find(config: Mapping[str, Any], part: str, member: str, name: Any) -> Mapping[str, Any]:
    for entry in _entries(config, part):
        if entry.get("name") == name and isinstance(entry.get(member), dict):
            found: Mapping[str, Any] = entry[member]
            return found
    known = ", ".join(_names(config, part)) or "none"
    raise EngineError(f"The kubeconfig has no {member} {name!r}; there are: {known}")


def _source(part: Mapping[str, Any], name: str, folder: str) -> Source:
    if data := part.get(f"{name}-data"):
        try:
            return Source(text=base64.b64decode(str(data), validate=True).decode())
        except (binascii.Error, UnicodeError) as error:
            raise EngineError(f"{name}-data of the kubeconfig is no Base64 of a text") from error
    path = part.get(name)
    return Source(path=posixpath.join(folder, str(path))) if path else Source()


def _token(user: Mapping[str, Any], folder: str) -> Source:
    # As kubectl has it: the file counts before the text.
    if path := user.get("tokenFile"):
        return Source(path=posixpath.join(folder, str(path)))
    return Source(text=str(user["token"])) if user.get("token") else Source()


def _plugin(user: Mapping[str, Any], folder: str) -> ExecPlugin | None:
    told = user.get("exec")
    if not isinstance(told, dict):
        return None
    version, command = told.get("apiVersion"), told.get("command")
    if version not in EXEC_VERSIONS or not command:
        raise EngineError(f"exec of the kubeconfig needs a command, and {' or '.join(EXEC_VERSIONS)} as apiVersion")
    # A bare name is looked up in PATH.
    program = posixpath.join(folder, str(command)) if "/" in str(command) else str(command)
    variables = {str(each["name"]): str(each.get("value", "")) for each in told.get("env") or () if each.get("name")}
    return ExecPlugin((program, *map(str, told.get("args") or ())), variables, str(version))


@attrs.frozen
class Credentials:
    """What a program for credentials has told.

    Attributes:
        token: The token; None if it told a certificate alone.
        certificate, key: The certificate, if it told one.
        expires: Until when they can be used, as it says; None for as long as they are taken.
    """

    token: str | None = attrs.field(default=None, repr=False)
    certificate: str | None = None
    key: str | None = attrs.field(default=None, repr=False)
    expires: str | None = None


def read_credentials(document: Any, program: str) -> Credentials:
    """Return what a program for credentials has told.

    Args:
        document: Its output, as JSON.
        program: What it is called.

    Raises:
        EngineError: That are no credentials.
    """
    status = document.get("status") if isinstance(document, dict) else None
    told = status if isinstance(status, dict) else {}
    token, certificate, key = (told.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
    if not token and not (certificate and key):
        raise EngineError(f"{program}, which the kubeconfig names by exec, told neither a token nor a certificate")
    return Credentials(token, certificate, key, told.get("expirationTimestamp"))
