"""Whether arguments fit a tool's JSON Schema, as far as ours go: types, bounds, lengths, which names there are. [pure]

The package jsonschema knows all of JSON Schema, and with what else is commonly installed beside it (lark, arrow) takes
longer to be imported than everything else that an agent waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

MOST_SHOWN = 200
"""Characters of a value that are repeated when it does not fit; what is longer is left out."""


def _is_integer(value: Any) -> bool:
    # JSON knows one kind of number: 5.0 is an integer, and true is none.
    return type(value) is int or (type(value) is float and value.is_integer())


_KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_integer,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
}

_LIMITS: dict[str, tuple[Callable[[Any, int], bool], str]] = {
    "minimum": (lambda value, limit: value >= limit, "is less than the minimum of"),
    "maximum": (lambda value, limit: value <= limit, "is greater than the maximum of"),
    "minLength": (lambda value, limit: len(value) >= limit, "is shorter than"),
    "maxLength": (lambda value, limit: len(value) <= limit, "is longer than"),
}
"""By keyword: whether a value of the right kind is within the limit, and the words for one that is not."""


def find_misfit(
    arguments: Mapping[str, Any], properties: Mapping[str, Mapping[str, Any]], required: tuple[str, ...]
) -> str | None:
    """Return what does not fit about arguments, in words; None if they fit.

    Args:
        arguments: What was given.
        properties: The schemas of what may be given, by name.
        required: The names of what must be given.
    """
    for name in required:
        if name not in arguments:
            return f"{name!r} is required"
    for name, value in arguments.items():
        if name not in properties:
            known = f"there are {', '.join(properties)}" if properties else "there are none"
            return f"there is no argument {_show(name)}; {known}"
        if (problem := _find_problem(value, properties[name])) is not None:
            return f"{name}: {problem}"
    return None


def _find_problem(value: Any, schema: Mapping[str, Any]) -> str | None:
    kind = schema["type"]
    if not _KINDS[kind](value):
        return f"{_show(value)} is not of type {kind!r}"
    for keyword, (fits, words) in _LIMITS.items():
        if keyword in schema and not fits(value, schema[keyword]):
            return f"{_show(value)} {words} {schema[keyword]}"
    return None


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"a {type(value).__name__} of {len(text)} characters"
