"""A kernel's environment: actions in order, on a base that is left as it is."""

from __future__ import annotations

import pytest

from kallichore.kernel.environment import apply_actions
from kallichore.models.bodies import VarAction, VarActionType

REPLACE, APPEND, PREPEND = VarActionType.REPLACE, VarActionType.APPEND, VarActionType.PREPEND
BASE = {"PATH": "/bin", "Mixed": "1"}


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        ([], BASE),
        ([(REPLACE, "PATH", "/usr/bin")], {**BASE, "PATH": "/usr/bin"}),
        ([(REPLACE, "PATH", "")], {**BASE, "PATH": ""}),
        ([(APPEND, "PATH", ":/usr/bin")], {**BASE, "PATH": "/bin:/usr/bin"}),
        ([(PREPEND, "PATH", "/usr/bin:")], {**BASE, "PATH": "/usr/bin:/bin"}),
        ([(APPEND, "NEW", "a")], {**BASE, "NEW": "a"}),
        ([(PREPEND, "NEW", "a")], {**BASE, "NEW": "a"}),
        ([(APPEND, "NEW", "a"), (PREPEND, "NEW", "b"), (APPEND, "NEW", "c")], {**BASE, "NEW": "bac"}),
        ([(APPEND, "PATH", "x"), (REPLACE, "PATH", "y")], {**BASE, "PATH": "y"}),
        ([(REPLACE, "PATH", "$PATH;%PATH%")], {**BASE, "PATH": "$PATH;%PATH%"}),
        ([(REPLACE, "path", "other")], {**BASE, "path": "other"}),
    ],
)
def test_actions_are_applied_in_order(actions: list[tuple[VarActionType, str, str]], expected: dict[str, str]) -> None:
    """No separator is inserted, an unset variable counts as empty, and nothing is expanded."""
    assert expected == apply_actions(BASE, [VarAction(*action) for action in actions])


def test_base_is_left_alone() -> None:
    """The server's own environment does not change, nor is it handed out."""
    base = dict(BASE)
    environment = apply_actions(base, [VarAction(APPEND, "PATH", "!")])
    environment["NEW"] = "1"

    assert base == BASE


def test_undecodable_bytes_pass_through() -> None:
    """A variable that is not UTF-8 reaches the kernel as it is, also with something appended."""
    environment = apply_actions({"NAME": "caf\udce9"}, [VarAction(APPEND, "NAME", "!")])

    assert environment == {"NAME": "caf\udce9!"}


def test_names_on_windows_do_not_depend_on_case() -> None:
    """There, names are kept in upper case and an action finds its variable however it is written."""
    environment = apply_actions({"Path": "a"}, [VarAction(APPEND, "path", ";b")], upper_case=True)

    assert environment == {"PATH": "a;b"}
