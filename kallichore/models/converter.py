"""Where the API's JSON becomes values and values become JSON. [pure]

The rules for what comes in are strict, because what is guessed here is a surprise later: a number is not a string, a
float is not an integer, a name appears once, and nothing follows the document. Unknown members are ignored, since
clients newer and older than this server send some, but reported, so that a spelling mistake shows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from itertools import islice
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import attrs
import cattrs
from cattrs.gen import make_dict_unstructure_fn

from kallichore.errors import BadBodyError, EngineError
from kallichore.models import bodies
from kallichore.wire.envelope import encode

T = TypeVar("T")

REQUIRED: dict[type, frozenset[str]] = {
    bodies.NewSession: frozenset(
        {
            "session_id",
            "display_name",
            "language",
            "username",
            "input_prompt",
            "continuation_prompt",
            "argv",
            "session_mode",
            "working_directory",
            "env",
            "interrupt_mode",
            "startup_environment",
        }
    )
}
"""Members that a body must have although the class has a default for programs."""

_SCHEMA_NAMES: dict[type, str] = {
    bodies.NewSession: "NewSession",
    bodies.StartKernel: "StartKernel",
    bodies.ConnectionInfo: "ConnectionInfo",
    bodies.ClientHeartbeat: "ClientHeartbeat",
    bodies.ServerConfiguration: "ServerConfiguration",
    bodies.RestartSession: "RestartSession",
    bodies.ExecuteRequest: "ExecuteRequest",
    bodies.McpWorkspaceRegistration: "McpWorkspaceRegistration",
}

MOST_PROBLEMS = 100
"""Problems of one array that are named: an answer is to be read, and not to be many times as long as the request."""

_I32 = 1 << 31

# Stands between a problem and its path. Values are quoted in problems as JSON, which has no such character.
_AT = "\0"


class _Misfit(ValueError):
    """A value that does not fit its type; the text says what was wanted."""


def _strict(kind: type, what: str) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _Misfit(f"must be {what}, not {_describe(value)}")
        return value

    return structure


def _describe(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "something nested this deep"
    return text if len(text) <= 40 else text[:37] + "..."


def _structure_integer(value: Any, _: Any) -> int:
    if type(value) is not int or not -_I32 <= value < _I32:
        raise _Misfit(f"must be an integer of 32 bits, not {_describe(value)}")
    return value


def _structure_json(value: Any, _: Any) -> Any:
    # What is in it is another's, who knows what it has to be.
    if type(value) is not dict:
        raise _Misfit(f"must be an object, not {_describe(value)}")
    return value


def _structure_enum(value: Any, kind: type[Enum]) -> Enum:
    for member in kind:
        if type(value) is str and member.value == value:
            return member
    raise _Misfit(f"must be one of {', '.join(member.value for member in kind)}, not {_describe(value)}")


def _structure_object(converter: cattrs.Converter, value: Any, kind: Any) -> Any:
    """Structure one of our classes: all problems of an object at once, each with its path."""
    if type(value) is not dict:
        raise _Misfit(f"must be an object, not {_describe(value)}")
    hints = get_type_hints(kind)
    problems: list[str] = []
    members: dict[str, Any] = {}
    for field in attrs.fields(kind):
        required = field.default is attrs.NOTHING or field.name in REQUIRED.get(kind, ())
        given = value.get(field.name)
        if given is None and not required:
            continue
        if field.name not in value:
            problems.append(f"required member missing{_AT}.{field.name}")
            continue
        try:
            members[field.name] = converter.structure(given, hints[field.name])
        except _Misfit as error:
            problems.extend(_deeper(field.name, error))
    if problems:
        raise _Misfit("\n".join(problems))
    return kind(**members)


def _structure_array(converter: cattrs.Converter, value: Any, kind: Any) -> tuple[Any, ...]:
    if type(value) is not list:
        raise _Misfit(f"must be an array, not {_describe(value)}")
    problems: list[str] = []
    items: list[Any] = []
    for index, item in enumerate(value):
        try:
            items.append(converter.structure(item, get_args(kind)[0]))
        except _Misfit as error:
            problems.extend(_deeper(str(index), error))
            if len(problems) >= MOST_PROBLEMS:
                problems.append(f"there may be more problems{_AT}")
                break
    if problems:
        raise _Misfit("\n".join(problems))
    return tuple(items)


def _deeper(step: str, error: _Misfit) -> list[str]:
    """Return an error's lines with their paths one step longer at the front."""
    lines = []
    for line in str(error).splitlines():
        text, _, path = line.partition(_AT)
        lines.append(f"{text}{_AT}.{step}{path}")
    return lines


def make_converter() -> cattrs.Converter:
    """Return the converter of the API's bodies."""
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(str, _strict(str, "a string"))
    converter.register_structure_hook(bool, _strict(bool, "true or false"))
    converter.register_structure_hook(int, _structure_integer)
    converter.register_structure_hook_func(_is_object, _structure_json)
    for kind in vars(bodies).values():
        # Each by name: an enum of strings would else be taken for a string.
        if isinstance(kind, type) and issubclass(kind, Enum):
            converter.register_structure_hook(kind, _structure_enum)
    converter.register_structure_hook_func(_is_array, lambda value, kind: _structure_array(converter, value, kind))
    converter.register_structure_hook_func(
        lambda kind: isinstance(kind, type) and attrs.has(kind),
        lambda value, kind: _structure_object(converter, value, kind),
    )
    # What is in a dict is JSON already, and may be nested deeper than a walk through it could go.
    converter.register_unstructure_hook_func(lambda kind: dict in (kind, get_origin(kind)), lambda value: value)
    converter.register_unstructure_hook(datetime, _format_date)
    converter.register_unstructure_hook_factory(attrs.has, lambda kind: _make_unstructure(converter, kind))
    return converter


def _is_array(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _is_object(kind: Any) -> bool:
    return get_origin(kind) is dict


def _format_date(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _make_unstructure(converter: cattrs.Converter, kind: Any) -> Callable[[Any], dict[str, Any]]:
    """Return a function that leaves out optional members without a value; the API never shows null for them."""
    hints = get_type_hints(kind)
    optional = {field.name for field in attrs.fields(kind) if type(None) in get_args(hints[field.name])}
    plain = make_dict_unstructure_fn(kind, converter)

    def unstructure(value: Any) -> dict[str, Any]:
        return {name: member for name, member in plain(value).items() if member is not None or name not in optional}

    return unstructure


_converter = make_converter()


def unstructure(value: Any) -> Any:
    """Return a body as what JSON is made of; optional members without a value are left out."""
    return _converter.unstructure(value)


def to_json(value: Any) -> bytes:
    """Return a body as JSON: compact, always valid UTF-8 (undecodable bytes of the environment become U+FFFD)."""
    return encode(unstructure(value))


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise _Misfit(f"the member {_describe(twice)} appears twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise _Misfit(f"{name} is not JSON")


def _read_document(name: str, raw: bytes) -> Any:
    try:
        text = raw.decode()
        # A lone surrogate could not be sent on to anybody; it shows when the text is encoded again.
        document = json.loads(text, object_pairs_hook=_unique_members, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise BadBodyError(f"{name}: the body is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadBodyError(f"{name}: the body is not JSON that fits: {error}") from error
    return document


def _unknown_members(value: Any, kind: Any, path: str) -> list[str]:
    """Return the paths of members that no schema knows: ``?`` is the document, dots separate the steps."""
    if type(value) is list:
        return [
            unknown
            for index, item in enumerate(value)
            for unknown in _unknown_members(item, get_args(kind)[0], f"{path}.{index}")
        ]
    if type(value) is not dict or not attrs.has(kind):
        return []
    hints = get_type_hints(kind)
    paths: list[str] = []
    for name, member in value.items():
        hint = hints.get(name)
        if hint is None:
            paths.append(f"{path}.{name}")
            continue
        inner = next((kind for kind in (hint, *get_args(hint)) if get_origin(kind) is tuple), hint)
        paths.extend(_unknown_members(member, inner, f"{path}.{name}"))
    return paths


def parse_body(kind: type[T], raw: bytes) -> tuple[T, tuple[str, ...]]:
    """Read a request's body.

    Args:
        kind: The schema's class.
        raw: The body as it came.

    Returns:
        The value, and the paths of members that were ignored because no schema knows them.

    Raises:
        BadBodyError: The body is missing, is not JSON, or does not fit; the problems are named with their paths.
    """
    name = _SCHEMA_NAMES[kind]
    document = None if not raw else _read_document(name, raw)
    if document is None:
        raise BadBodyError(f"The request needs a JSON body: {name}")
    try:
        value: T = _converter.structure(document, kind)
    except _Misfit as error:
        problems = (line.partition(_AT) for line in str(error).splitlines())
        raise BadBodyError("\n".join(f"{name}: {text} @ ${path}" for text, _, path in problems)) from error
    return value, tuple(_unknown_members(document, kind, "?"))


def parse_optional_body(kind: type[T], raw: bytes) -> tuple[T | None, tuple[str, ...]]:
    """Read a body that may be missing or null; see `parse_body`."""
    if raw in (b"", b"null"):
        return None, ()
    return parse_body(kind, raw)


def refuse_unknown(kind: type, paths: Iterable[str]) -> BadBodyError:
    """Return the error about members that no schema knows, given their paths by `parse_body`."""
    known = ", ".join(field.name for field in attrs.fields(kind))
    problems = (f"{_SCHEMA_NAMES[kind]}: unknown member; known are {known} @ ${path[1:]}" for path in paths)
    return BadBodyError("\n".join(islice(problems, MOST_PROBLEMS)))


def read_options(
    kind: type[T], options: Mapping[str, Any], name: str, check: Callable[[T], Iterable[str]] = lambda _: ()
) -> T:
    """Return what a session asks of its engine.

    Args:
        kind: The class that has a field for each option.
        options: As they came.
        name: What they are members of, for people.
        check: Returns what else is wrong with those that fit, each beginning with an option's name.

    Raises:
        EngineError: One does not fit, is missing, or is not known; each problem is named with its path.
    """
    known = ", ".join(get_type_hints(kind))
    unknown = _unknown_members(dict(options), kind, "?")
    problems = [f"{name}{path[1:]} is not known; known are {known}" for path in unknown]
    try:
        read: T = _converter.structure(dict(options), kind)
    except _Misfit as error:
        lines = (line.partition(_AT) for line in str(error).splitlines())
        problems += [f"{name}{path}: {text}" for text, _, path in lines]
    else:
        problems += [f"{name}.{problem}" for problem in check(read)]
    if problems:
        raise EngineError("; ".join(problems[:MOST_PROBLEMS]))
    return read
