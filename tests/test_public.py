"""What another program sees of the package: names, help, and completion."""

from __future__ import annotations

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kallichore
from kallichore import errors

ROOT = Path(__file__).parents[1]
OF_HTTP_ALONE = {"BadBodyError", "BadPathError", "BadQueryError", "ChannelSocketError", "ExecuteError"}
OF_HTTP_ALONE |= {"McpListenerError", "NoSuchPathError", "UnauthorizedError", "WorkspaceNotFoundError"}
"""Errors that only HTTP requests have."""
CAUGHT_INSIDE = {"HostGoneError", "HostRefusedError"}
"""Errors that a server makes something else of: what became of a session."""


def test_package_shows_its_public_names_and_only_these() -> None:
    """``dir`` has what ``__all__`` has, in order, each can be had, and no other name is without an underscore."""
    assert sorted(kallichore.__all__) == dir(kallichore)
    assert [] == [name for name in kallichore.__all__ if getattr(kallichore, name, None) is None]
    modules = {path.stem for path in (ROOT / "kallichore").iterdir()}
    assert set() == {name for name in vars(kallichore) if not name.startswith("_")} - {*kallichore.__all__, *modules}


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not public is not there, though a module of the package has it."""
    with pytest.raises(AttributeError, match="innermost"):
        _ = kallichore.innermost  # type: ignore[attr-defined]


def test_every_error_of_a_program_is_public() -> None:
    """All of our errors but those of HTTP requests, and those that stay inside, can be caught by a public name."""
    kinds = {name for name in errors.__all__ if isinstance(getattr(errors, name), type)}

    assert kinds - OF_HTTP_ALONE - CAUGHT_INSIDE <= set(kallichore.__all__)
    assert set() == (OF_HTTP_ALONE | CAUGHT_INSIDE) - kinds


def test_help_shows_the_names() -> None:
    """``help(kallichore)`` describes each public name."""
    text = pydoc.render_doc(kallichore, renderer=pydoc.plaintext)

    assert ["__version__"] == [name for name in kallichore.__all__ if not re.search(rf"\b{name}\b", text)]
    assert kallichore.__version__ in text


@pytest.mark.parametrize("kind", [kallichore.Session, kallichore.Server])
def test_help_shows_of_a_class_what_is_for_users(kind: type) -> None:
    """Help and completion have the members of the reference page, all of them described, and no others."""
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    listed = re.search(rf"autoclass:: {kind.__name__}\n   :members: (.*)\n", page)
    assert listed is not None
    text = pydoc.render_doc(kind, renderer=pydoc.plaintext)

    assert sorted(listed[1].split(", ")) == sorted(dir(kind))
    assert [] == [name for name in dir(kind) if not re.search(rf"\b{name}\b", text)]
    assert [] == [name for name in ("conversation", "supervisor", "facilities") if f" {name}\n" in text]
    assert [] == [name for name in dir(kind) if name != "created" and not getattr(kind, name).__doc__]


async def test_completion_of_a_session_is_that_of_its_class() -> None:
    """A session and a server show what their classes show."""
    async with kallichore.open_server() as server:
        session = server.create_session(kallichore.NewSession(session_id="s", argv=()))

        assert dir(kallichore.Session) == dir(session)
        assert dir(kallichore.Server) == dir(server)


def test_package_is_the_server_when_it_is_run() -> None:
    """``python -m kallichore`` is kcserver."""
    said = subprocess.check_output([sys.executable, "-m", "kallichore", "--version"], text=True)

    assert f"kcserver {kallichore.__version__}" == said.strip()
