"""Which server kcclient's options and variables name, and with which token."""

from __future__ import annotations

import pytest

from kallichore.cli.target import Target, token_for


@pytest.mark.parametrize(
    ("url", "ours", "jupyters", "expected"),
    [
        ("http://h", "ours", "jupyters", "ours"),
        ("http://h", None, "jupyters", "jupyters"),
        ("http://h", "", "", None),
        (None, "ours", "jupyters", "ours"),
        # Whoever listens at our usual address is not told a Jupyter server's.
        (None, None, "jupyters", None),
    ],
)
def test_token_of_the_environment_is_for_servers_that_were_named(
    url: str | None, ours: str | None, jupyters: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours counts before Jupyter's."""
    monkeypatch.setenv("JUPYTER_TOKEN", jupyters)

    assert expected == token_for(url, ours)


def test_target_does_not_show_its_tokens() -> None:
    """Its repr is for logs."""
    assert "secret" not in repr(Target("http://h", None, "secret", "secret"))
