"""Bodies of requests: strict about types, tolerant of what is unknown, and every problem named with its path."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from kallichore.errors import BadBodyError
from kallichore.models.bodies import (
    ClientHeartbeat,
    ConnectionInfo,
    ErrorBody,
    ExecutionQueue,
    InterruptMode,
    LogLevel,
    NewSession,
    RestartSession,
    ServerConfiguration,
    ServerStatus,
    SessionMode,
    StartupEnvironment,
    StartupErrorBody,
    VarAction,
    VarActionType,
)
from kallichore.models.converter import MOST_PROBLEMS, parse_body, parse_optional_body, to_json, unstructure

KINDS = [NewSession, RestartSession, ConnectionInfo, ClientHeartbeat, ServerConfiguration]
REQUIRED: dict[str, Any] = {
    "session_id": "one",
    "argv": ["python", "-m", "ipykernel"],
    "display_name": "Python",
    "language": "python",
    "username": "user",
    "input_prompt": "In> ",
    "continuation_prompt": "... ",
    "session_mode": "console",
    "working_directory": "/tmp",
    "env": [{"action": "append", "name": "PATH", "value": ":/bin"}],
    "interrupt_mode": "signal",
    "startup_environment": "none",
}
OPTIONAL: dict[str, Any] = {
    "notebook_uri": "file:///a.ipynb",
    "connection_timeout": 7,
    "protocol_version": "5.5",
    "startup_environment_arg": "module load R",
    "workspace_id": "w",
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


def read(kind: type[Any], document: Any) -> Any:
    """Return the value of a body that has nothing unknown."""
    value, unknown = parse_body(kind, json.dumps(document).encode())

    assert unknown == ()
    return value


def refusal(kind: type[Any], document: Any) -> list[str]:
    """Return the lines in which a body is refused."""
    with pytest.raises(BadBodyError) as caught:
        parse_body(kind, json.dumps(document).encode())
    return str(caught.value).splitlines()


def test_session_is_read_member_by_member() -> None:
    """Every member of a request for a session arrives, enums and actions as what they are."""
    assert read(NewSession, {**REQUIRED, **OPTIONAL}) == NewSession(
        **{
            **REQUIRED,
            **OPTIONAL,
            "argv": ("python", "-m", "ipykernel"),
            "session_mode": SessionMode.CONSOLE,
            "interrupt_mode": InterruptMode.SIGNAL,
            "startup_environment": StartupEnvironment.NONE,
            "env": (VarAction(VarActionType.APPEND, "PATH", ":/bin"),),
        }
    )


@pytest.mark.parametrize("given_as", [{}, dict.fromkeys(OPTIONAL)])
def test_optional_members_may_be_missing_or_null(given_as: dict[str, None]) -> None:
    """Both mean "not given", and the default counts."""
    session = read(NewSession, {**REQUIRED, **given_as})
    defaults = {field.name: field.default for field in attrs.fields(NewSession)}

    assert {name: getattr(session, name) for name in OPTIONAL} == {name: defaults[name] for name in OPTIONAL}


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_required_member_may_be_neither_missing_nor_null(name: str) -> None:
    """What the schema requires is required, although programs have defaults for some of it."""
    rest = {key: value for key, value in REQUIRED.items() if key != name}

    assert refusal(NewSession, rest) == [f"NewSession: required member missing @ $.{name}"]
    [line] = refusal(NewSession, {**rest, name: None})
    assert line.startswith("NewSession: must be ")
    assert line.endswith(f", not null @ $.{name}")


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("session_id", 1, "must be a string, not 1 @ $.session_id"),
        ("session_id", ["a @ b"], 'must be a string, not ["a @ b"] @ $.session_id'),
        ("session_id", {"\n": 1}, 'must be a string, not {"\\n": 1} @ $.session_id'),
        ("session_id", ["x" * 99], f'must be a string, not ["{"x" * 35}... @ $.session_id'),
        ("argv", "python", 'must be an array, not "python" @ $.argv'),
        ("argv", ["python", 3], "must be a string, not 3 @ $.argv.1"),
        ("env", {}, "must be an array, not {} @ $.env"),
        ("env", [1], "must be an object, not 1 @ $.env.0"),
        ("session_mode", "Console", 'must be one of console, notebook, background, not "Console" @ $.session_mode'),
        ("interrupt_mode", 1, "must be one of signal, message, not 1 @ $.interrupt_mode"),
        ("connection_timeout", "30", 'must be an integer of 32 bits, not "30" @ $.connection_timeout'),
        ("connection_timeout", 1.0, "must be an integer of 32 bits, not 1.0 @ $.connection_timeout"),
        ("connection_timeout", True, "must be an integer of 32 bits, not true @ $.connection_timeout"),
        ("connection_timeout", 1 << 31, "must be an integer of 32 bits, not 2147483648 @ $.connection_timeout"),
    ],
)
def test_misfit_is_named_with_its_path(member: str, value: Any, problem: str) -> None:
    """The refusal says what was wanted, what came instead, and where; nothing is converted on the quiet."""
    assert refusal(NewSession, {**REQUIRED, member: value}) == [f"NewSession: {problem}"]


def test_all_problems_are_named_at_once() -> None:
    """One answer tells everything that has to be changed, down to the members of an item."""
    document = {**REQUIRED, "language": 3, "env": [{"action": "replace", "name": "A", "value": "1"}, {"action": "x"}]}

    assert refusal(NewSession, document) == [
        "NewSession: must be a string, not 3 @ $.language",
        'NewSession: must be one of replace, append, prepend, not "x" @ $.env.1.action',
        "NewSession: required member missing @ $.env.1.name",
        "NewSession: required member missing @ $.env.1.value",
    ]


@pytest.mark.parametrize("limit", [-(1 << 31), (1 << 31) - 1])
def test_integers_of_32_bits_fit(limit: int) -> None:
    """The limits themselves are allowed."""
    assert read(ClientHeartbeat, {"process_id": limit}) == ClientHeartbeat(process_id=limit)


@pytest.mark.parametrize(("value", "fits"), [(True, True), (False, True), (1, False), ("true", False)])
def test_only_true_and_false_are_booleans(value: Any, fits: bool) -> None:
    """Numbers and words are no truth values."""
    document = {"resource_include_children": value, "log_level": "warn"}
    if fits:
        expected = ServerConfiguration(resource_include_children=value, log_level=LogLevel.WARN)
        assert read(ServerConfiguration, document) == expected
    else:
        assert len(refusal(ServerConfiguration, document)) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raw", [b"", b"null"])
def test_missing_body_is_named_by_its_schema(kind: type[Any], raw: bytes) -> None:
    """Where a body is required, its absence is told with the schema's name."""
    with pytest.raises(BadBodyError, match=f"needs a JSON body: {kind.__name__}"):
        parse_body(kind, raw)


@pytest.mark.parametrize("raw", [b"", b"null"])
def test_optional_body_may_be_missing_or_null(raw: bytes) -> None:
    """Both mean "no body", and no more."""
    assert parse_optional_body(RestartSession, raw) == (None, ())


def test_optional_body_is_held_to_its_schema() -> None:
    """A body that is there is read, with its unknown members, or refused."""
    action = VarAction(VarActionType.REPLACE, "A", "1")
    raw = b'{"env":[{"action":"replace","name":"A","value":"1","new":0}],"working_directory":"/"}'

    assert parse_optional_body(RestartSession, b"{}") == (RestartSession(), ())
    assert parse_optional_body(RestartSession, raw) == (
        RestartSession(env=(action,), working_directory="/"),
        ("?.env.0.new",),
    )
    with pytest.raises(BadBodyError, match=r"RestartSession: must be an array, not 1 @ \$.env"):
        parse_optional_body(RestartSession, b'{"env":1}')


def test_unknown_members_are_reported_at_any_depth() -> None:
    """What no schema knows is ignored, but reported with its path, as long as the known ones fit."""
    action = {**REQUIRED["env"][0], "why": {"deep": 1}}
    document = {**REQUIRED, "env": [REQUIRED["env"][0], action], "colour": 1, "Argv": []}
    session, unknown = parse_body(NewSession, json.dumps(document).encode())

    assert session == read(NewSession, {**REQUIRED, "env": REQUIRED["env"] * 2})
    assert unknown == ("?.env.1.why", "?.colour", "?.Argv")


@pytest.mark.parametrize("value", ["not an object", 3, [], True])
@pytest.mark.parametrize("kind", KINDS)
def test_body_is_an_object(kind: type[Any], value: Any) -> None:
    """Any other JSON document is refused at the root."""
    assert refusal(kind, value) == [f"{kind.__name__}: must be an object, not {json.dumps(value)} @ $"]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b" ", "line 1 column"),
        (b"{", "line 1 column"),
        (b"{} x", "line 1 column 4"),
        (b"{'process_id':1}", "line 1 column 2"),
        (b'\n{"process_id":}', "line 2 column"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"a":"\\ud800"}', "UTF-8"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b'{"process_id":1,"process_id":1}', '"process_id" appears twice'),
        (b'{"a":{"b":1,"b":2}}', '"b" appears twice'),
        (b'{"a":1,%s,"a":2}' % b",".join(b'"m%d":0' % number for number in range(60_000)), '"a" appears twice'),
        (b'{"%s":1,"%s":2}' % ((b"x" * 60_000,) * 2), r'"x{36}\.\.\. appears twice'),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_the_place(raw: bytes, reason: str) -> None:
    """The refusal names the schema, and the parser's complaint."""
    with pytest.raises(BadBodyError, match=rf"^ClientHeartbeat: the body is not .*{reason}"):
        parse_body(ClientHeartbeat, raw)


def test_problems_without_number_are_cut_short() -> None:
    """A long array that is wrong throughout gets an answer that can be read, and says that there may be more."""
    problems = refusal(NewSession, {**REQUIRED, "env": [0] * 10_000})

    assert (len(problems), problems[0][-9:]) == (MOST_PROBLEMS + 1, "@ $.env.0")
    assert problems[-1] == "NewSession: there may be more problems @ $.env"


def test_value_nested_to_the_limit_is_refused_in_words() -> None:
    """A value that can just be read, and not be shown, is refused like any other that does not fit."""
    for depth in range(200, 1100, 3):
        with pytest.raises(BadBodyError, match=r"^ClientHeartbeat: "):
            parse_body(ClientHeartbeat, b'{"process_id":' + b"[" * depth + b"]" * depth + b"}")


@given(st.sampled_from(KINDS), st.binary(max_size=40))
def test_garbage_is_refused_or_fits(kind: type[Any], raw: bytes) -> None:
    """Whatever bytes arrive, they are a value of the schema or raise the one error."""
    try:
        value, _ = parse_body(kind, raw)
    except BadBodyError:
        return

    assert type(value) is kind


@given(st.sampled_from(sorted({**REQUIRED, **OPTIONAL})), json_values)
def test_any_value_fits_or_is_refused_at_its_path(member: str, value: Any) -> None:
    """A misfit is one problem or several, all of them in that member."""
    try:
        session, _ = parse_body(NewSession, json.dumps({**REQUIRED, member: value}).encode())
    except BadBodyError as error:
        places = {line.rpartition(" @ ")[2].split(".")[1] for line in str(error).splitlines()}
    else:
        places = {name for name in [member] if value is None or unstructure(session)[name] == value}

    assert places == {member}


def test_optional_members_without_a_value_are_left_out() -> None:
    """The API never shows null for an optional member, and keeps false, zero and the empty string."""
    body = StartupErrorBody(error=ErrorBody(code="KS-5", message="", details=None), exit_code=0)

    assert unstructure(body) == {"error": {"code": "KS-5", "message": ""}, "exit_code": 0}


def test_dates_are_shown_in_utc() -> None:
    """A date of any zone is shown in UTC, with a Z, as ISO 8601 has it."""
    started = datetime(2024, 5, 1, 14, 0, 0, 250, tzinfo=timezone(timedelta(hours=2)))
    status = ServerStatus(
        sessions=0,
        active=0,
        busy=False,
        idle_seconds=1,
        busy_seconds=2,
        uptime_seconds=3,
        kallichore_version="1",
        version="1",
        process_id=4,
        started=started,
    )
    shown = unstructure(status)

    assert shown["started"] == "2024-05-01T12:00:00.000250Z"
    assert datetime.fromisoformat(shown["started"]) == started.astimezone(UTC)


@pytest.mark.parametrize("depth", [1, 600])
def test_messages_are_shown_as_they_are(depth: int) -> None:
    """A queued message is JSON already: its nulls stay, and nesting does not matter."""
    content: Any = None
    for _ in range(depth):
        content = [content]
    queue = ExecutionQueue(active={"parent_header": None, "content": content}, length=0, pending=())

    assert to_json(queue) == (
        b'{"active":{"parent_header":null,"content":'
        + b"[" * depth
        + b"null"
        + b"]" * depth
        + b'},"length":0,"pending":[]}'
    )


def test_what_is_sent_is_always_utf8() -> None:
    """Undecodable bytes, which the system's names may have, become U+FFFD."""
    body = ErrorBody(code="KS-19", message="no /tmp/\udcff")

    assert json.loads(to_json(body).decode()) == {"code": "KS-19", "message": "no /tmp/\ufffd"}
