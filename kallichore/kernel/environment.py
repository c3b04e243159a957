"""A kernel's environment: the server's own, and a list of actions applied in order. [pure]"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kallichore.models.bodies import VarAction, VarActionType


def apply_actions(base: Mapping[str, str], actions: Iterable[VarAction], *, upper_case: bool = False) -> dict[str, str]:
    """Return ``base`` after ``actions``.

    No separator is put between a value and what is appended or prepended, and an unset variable counts as empty.

    Args:
        base: The environment to start from; undecodable bytes in it are surrogate-escaped and pass through.
        actions: What to do, in order.
        upper_case: Whether names are case-insensitive and kept in upper case (Windows).
    """
    environment = {name.upper() if upper_case else name: value for name, value in base.items()}
    for action in actions:
        name = action.name.upper() if upper_case else action.name
        old = environment.get(name, "")
        match action.action:
            case VarActionType.REPLACE:
                environment[name] = action.value
            case VarActionType.APPEND:
                environment[name] = old + action.value
            case VarActionType.PREPEND:
                environment[name] = action.value + old
    return environment
