"""What the refusals of Jupyter's servers mean, in words."""

from __future__ import annotations

from typing import Any

import pytest

from kallichore.client.jupyter_complaints import LOGIN_NEEDED, complaint, kernel_path

WHERE = "http://h:1/base"

LOGIN = LOGIN_NEEDED.format(WHERE)

FORBIDDEN = (
    f"The server at {WHERE} does not allow that: GET /api/kernels; a kernel gateway has options for what it allows"
)


@pytest.mark.parametrize(
    ("path", "status", "content", "said"),
    [
        # jupyter_server
        ("/api/kernels", 403, {"message": "Forbidden", "reason": None}, LOGIN),
        ("/api/kernels", 403, {"message": "'_xsrf' argument missing from POST", "reason": None}, LOGIN),
        ("/api/kernels", 500, {"message": "Unhandled error", "reason": None, "traceback": ""},
         f"The server at {WHERE} failed to answer GET /api/kernels; its log says why"),
        ("/api/kernels/k/channels?session_id=s", 403, "", LOGIN),
        # A kernel gateway
        ("/api/kernels", 401, {"message": "Unauthorized", "reason": "Unauthorized"}, LOGIN),
        ("/api/kernels", 403, {"message": "Forbidden", "reason": "Forbidden"}, FORBIDDEN),
        # A hub
        ("/user/me/api/kernels", 302, "", LOGIN),
        # Whoever
        ("/x/api/kernels/a%20b/interrupt", 404, {"message": "Kernel does not exist: a b", "reason": "Not Found"},
         "There is no kernel 'a b'; kcclient list shows those that there are"),
        ("/api/kernels/k?no_track_activity=1", 404, "<html>",
         "There is no kernel 'k'; kcclient list shows those that there are"),
        ("/api/kernels", 500, {"message": "It did not start", "reason": "Internal Server Error"}, "It did not start"),
        ("/api/kernelspecs?a", 502, "<html>", f"GET /api/kernelspecs at {WHERE} was answered with status 502"),
        ("/api/kernelspecs", 400, ["odd"], f"GET /api/kernelspecs at {WHERE} was answered with status 400"),
    ],
)  # fmt: skip
def test_refusals_are_put_in_words(path: str, status: int, content: Any, said: str) -> None:
    """What to do where that is known, else the server's own words, else the status."""
    assert said == complaint(WHERE, "GET", path, status, content)


def test_kernel_path_is_one_segment() -> None:
    """Whatever is in an id."""
    assert ("/api/kernels/a%2Fb", "/api/kernels/a%2Fb/restart") == (kernel_path("a/b"), kernel_path("a/b", "restart"))
