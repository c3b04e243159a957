"""What a Jupyter server's refusals mean, in words. [pure]"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote

KERNELS = "/api/kernels"

LOGIN_NEEDED = (
    "The server needs a token, and this is not it; give it with --token, as ?token= in the address, or as JUPYTER_TOKEN"
)

_NO_TOKEN = (301, 302, 303, 401, 403)
"""How servers say so: gateways with 401, Jupyter's own with 403, hubs by leading to where people log in."""


def kernel_path(kernel_id: str, operation: str = "") -> str:
    """Return the path of a kernel, or of an operation on it."""
    path = f"{KERNELS}/{quote(kernel_id, safe='')}"
    return f"{path}/{operation}" if operation else path


def complaint(method: str, path: str, status: int, content: Any) -> str:
    """Return what a refusal means: the server's own words where they are to the point.

    Args:
        method: The request's.
        path: The request's, with the base path.
        status: The answer's.
        content: Its body, decoded if it was JSON.
    """
    said = content.get("message") if isinstance(content, dict) else None
    _, api, rest = path.partition(KERNELS + "/")
    if status == 404 and api:
        kernel_id = rest.partition("/")[0].partition("?")[0]
        return f"There is no kernel {unquote(kernel_id)!r}; kcclient list shows those that there are"
    if status in _NO_TOKEN and (said is None or said == "Forbidden" or "_xsrf" in said or status == 401):
        return LOGIN_NEEDED
    if said:
        return str(said)
    return f"{method} {path.partition('?')[0]} was answered with status {status}"
