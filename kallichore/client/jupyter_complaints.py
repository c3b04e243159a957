"""What a Jupyter server's refusals mean, in words. [pure]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

KERNELS = "/api/kernels"

LOGIN_NEEDED = (
    "The server at {} needs a token, and this is not it; give it with --token, as ?token= in the address, or as "
    "JUPYTER_TOKEN"
)

_LEADS_ELSEWHERE = (301, 302, 303, 307)
"""What a hub answers where people are to log in first."""


def kernel_path(kernel_id: str, operation: str = "") -> str:
    """Return the path of a kernel, or of an operation on it."""
    path = f"{KERNELS}/{quote(kernel_id, safe='')}"
    return f"{path}/{operation}" if operation else path


def complaint(server: str, method: str, path: str, status: int, content: Any) -> str:
    """Return what a refusal means: the server's own words where they are to the point.

    Args:
        server: The server's address.
        method: The request's.
        path: The request's, with the base path.
        status: The answer's.
        content: Its body, decoded if it was JSON.
    """
    told = content if isinstance(content, dict) else {}
    said = told.get("message")
    _, api, rest = path.partition(KERNELS + "/")
    if status == 404 and api:
        kernel_id = rest.partition("/")[0].partition("?")[0]
        return f"There is no kernel {unquote(kernel_id)!r}; kcclient list shows those that there are"
    if status in (401, *_LEADS_ELSEWHERE) or (status == 403 and _is_without_token(told)):
        return LOGIN_NEEDED.format(server)
    asked = f"{method} {path.partition('?')[0]}"
    if said in ("Forbidden", "Resource Limit"):
        return f"The server at {server} does not allow that: {asked}; a kernel gateway has options for what it allows"
    if said == "Unhandled error":
        return f"The server at {server} failed to answer {asked}; its log says why"
    return str(said) if said else f"{asked} at {server} was answered with status {status}"


def _is_without_token(told: Mapping[str, Any]) -> bool:
    """Tell whether a server refuses who has not said who it is.

    Jupyter's own server gives no reason then, or asks for a cookie; a gateway that forbids something gives one.
    """
    return not told.get("reason") and (told.get("message") in (None, "Forbidden") or "_xsrf" in str(told["message"]))
