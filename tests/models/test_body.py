"""Bodies of the API as values: they are equal by what they say, and do not show what is secret."""

from __future__ import annotations

import attrs
import pytest

from kallichore.models.bodies import McpWorkspace, RestartSession, VarAction, VarActionType
from kallichore.models.body import Body

ACTION = VarAction(VarActionType.APPEND, "PATH", ":/opt")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Other(Body):
    """With the members of another body."""

    action: VarActionType
    name: str
    value: str


def test_bodies_are_equal_that_say_the_same() -> None:
    """Also as members of a set."""
    same = VarAction(VarActionType.APPEND, "PATH", ":/opt")

    assert ACTION == same
    assert len({ACTION, same}) == 1


@pytest.mark.parametrize(
    "other",
    [
        attrs.evolve(ACTION, action=VarActionType.PREPEND),
        attrs.evolve(ACTION, name="Path"),
        attrs.evolve(ACTION, value=""),
        Other(action=VarActionType.APPEND, name="PATH", value=":/opt"),
        None,
    ],
)
def test_bodies_differ_that_say_something_else(other: object) -> None:
    """And those that are something else."""
    assert other != ACTION
    assert len({ACTION, other}) == 2


def test_body_within_another_counts() -> None:
    """Bodies are compared as deeply as they are made."""
    assert RestartSession(env=(ACTION,)) == RestartSession(env=(attrs.evolve(ACTION),))
    assert RestartSession(env=(ACTION,)) != RestartSession(env=(attrs.evolve(ACTION, value=""),))


def test_body_shows_its_members_but_not_its_secrets() -> None:
    """As Python would make it, but for keys and tokens."""
    assert repr(ACTION) == "VarAction(action=<VarActionType.APPEND: 'append'>, name='PATH', value=':/opt')"

    workspace = McpWorkspace(workspace_id="w", token="secret", port=1, url="http://127.0.0.1:1/mcp")
    assert repr(workspace) == "McpWorkspace(workspace_id='w', port=1, url='http://127.0.0.1:1/mcp')"
