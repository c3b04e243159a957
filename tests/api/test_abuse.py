"""The API under abuse: whatever is asked of it is answered as described, and the next one who asks is answered too."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jsonschema
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from schemathesis.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from abuse import LIMIT, Victim, answer_of, run_victim
from kernels import body

DESCRIPTION: dict[str, Any] = json.loads((Path(__file__).parents[2] / "kallichore.json").read_text())

OPERATIONS = {
    operation.definition.raw["operationId"]: operation
    for operation in (result.ok() for result in schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations())
}

# What else schemathesis checks is not so here: unknown members are ignored on purpose, and what fits the schema may not
# fit the session's status.
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
]

SESSIONS = {
    "adopts": body("adopts", argv=[]),
    "fails": body("fails", argv=[sys.executable, "-S", "-c", "raise SystemExit(1)"]),
    "a/b ü": body("a/b ü", connection_timeout=0),
    "runs": body("runs"),
}

HUGE = 40_000_000
PIECE = b"x" * (1 << 20)


@pytest.fixture(scope="module")
def server(lasting_place: Path) -> Iterator[Victim]:
    """Return a server that all these tests share: what one does to it, the next would feel."""
    with run_victim() as server:
        yield server


def provide(server: Victim) -> None:
    """Have sessions in several states, whatever became of them before."""
    for request in SESSIONS.values():
        server.ask("PUT", "/sessions", request)
    server.ask("POST", "/sessions/runs/start")
    assert json.loads(server.ask("GET", "/sessions/runs")[1])["process_id"]


def clear(server: Victim) -> None:
    """Delete all sessions."""
    while listed := json.loads(server.ask("GET", "/sessions")[1])["sessions"]:
        for session in listed:
            path = "/sessions/" + quote(session["session_id"], safe="")
            server.ask("POST", path + "/kill")
            server.ask("DELETE", path)


@pytest.mark.parametrize("operation_id", sorted(OPERATIONS.keys() - {"shutdown-server"}))
def test_every_answer_is_one_that_is_described(server: Victim, operation_id: str) -> None:
    """Whether a request fits its schema or not: status, type and body are as described, and no 5xx is but those."""
    operation = OPERATIONS[operation_id]
    modes = list(schemathesis.GenerationMode)
    if operation_id == "server-status":
        modes.remove(schemathesis.GenerationMode.NEGATIVE)  # Nothing in it could be wrong.
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])

    @given(case=cases, session_id=st.sampled_from([*SESSIONS]) | st.none())
    @settings(max_examples=5, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def ask(case: schemathesis.Case, session_id: str | None) -> None:
        if session_id is not None and "session_id" in case.path_parameters:
            case.path_parameters["session_id"] = session_id
        address = f"http://127.0.0.1:{server.port}"
        case.call_and_validate(base_url=address, headers=server.authorization, checks=CHECKS, timeout=LIMIT)

    provide(server)
    with server.watched():
        ask()
    assert server.ask("POST", "/server_configuration", {"idle_shutdown_hours": -1, "log_level": "info"})[0] == 200


METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW")


@pytest.mark.parametrize("path", DESCRIPTION["paths"])
def test_other_methods_are_refused(server: Victim, path: str) -> None:
    """A method that a path does not have is 405 with an error, be it HTTP's or made up; for HEAD without a body."""
    others = [method for method in METHODS if method.lower() not in DESCRIPTION["paths"][path]]
    connection = HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    for method in others:
        place = path.format(session_id="nobody", workspace_id="none")
        connection.request(method, place, headers=server.authorization)
        answer = connection.getresponse()
        said = answer.read()
        expected = "" if method == "HEAD" else "no_such_method"
        assert (method, 405, expected) == (method, answer.status, json.loads(said)["code"] if said else "")
    connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json; charset=none-such"},
        {"content-type": "multipart/form-data"},
        {"content-type": 'multipart/form-data; boundary="'},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        {"content-type": "x" * 60_000},
        {"content-encoding": "gzip"},
        {"accept": "text/html, \xff;q=nan"},
        {"cookie": "a=b; " * 10_000},
        {"x-span-id": "x" * 60_000},
        {"range": "bytes=0-0,5-2,-1"},
        {"if-none-match": "*"},
        {"expect": "200-maybe"},
    ],
    ids=lambda headers: next(f"{name}: {value[:30]}" for name, value in headers.items()),
)
def test_headers_change_nothing(server: Victim, headers: dict[str, str]) -> None:
    """A body is JSON in UTF-8 and an answer is JSON, whatever a client calls it or asks for."""
    ordinary = json.dumps({"resource_sample_interval_ms": 1000}).encode()

    assert server.ask("POST", "/server_configuration", ordinary, **headers) == (200, b"null")
    assert server.ask("POST", "/server_configuration", ordinary.decode().encode("utf-16"), **headers)[0] == 400


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/%00", "no_such_path"),
        ("/sessions/%00", "KS-1"),
        ("/sessions/" + "x" * 60_000, "KS-1"),
        ("/" * 60_000, "no_such_path"),
        ("/../..", "no_such_path"),
        ("/%", "no_such_path"),
    ],
    ids=lambda text: text[:15],
)
def test_paths_of_any_kind_are_not_found(server: Victim, path: str, code: str) -> None:
    """A path that is nothing is 404, be it long, empty between its slashes, or of zero bytes; the answer is short."""
    status, said = server.ask("GET", path)

    assert (404, code) == (status, json.loads(said)["code"])
    assert len(said) < 300


OVERSIZE_HEADS = {
    "one header": ["X-Long: " + "x" * 5_000_000],
    "many headers": [f"X-{number}: x" for number in range(500_000)],
    "a header without an end": ["X"] * 1_000_000,
}


@pytest.mark.parametrize("lines", OVERSIZE_HEADS.values(), ids=list(OVERSIZE_HEADS))
@pytest.mark.parametrize("path", ["/status", "/sessions/nobody/channels"])
def test_oversize_heads_are_refused(server: Victim, path: str, lines: list[str]) -> None:
    """A head of megabytes is answered before it has all come, and its connection closed."""
    before = server.open_descriptors()
    with server.watched(), server.connect() as connection:
        send(connection, [server.head("GET", path, *lines)])
        answer = answer_of(connection)
        assert answer.status in (400, 431)
        assert answer.getheader("connection") == "close"
    server.wait_descriptors(before + 1)


def send(connection: socket.socket, pieces: Iterable[bytes]) -> None:
    """Send what the server takes of this."""
    try:
        for piece in pieces:
            connection.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass


def pieces_of(content: bytes, *, chunked: bool) -> Iterator[bytes]:
    """Return a body in pieces, with a chunk's frame about each."""
    for start in range(0, len(content), len(PIECE)):
        piece = content[start : start + len(PIECE)]
        yield b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
    if chunked:
        yield b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "path", "chunked", "status"),
    [("PUT", "/sessions", True, 400), ("GET", "/status", False, 200), ("POST", "/sessions/nobody/start", True, 404)],
)
def test_bodies_of_many_megabytes_are_answered(
    server: Victim, method: str, path: str, chunked: bool, status: int
) -> None:
    """A body of 40 MB is refused in words, or not looked at where none belongs; its size may be told or not."""
    content = b'"%s"' % (b"x" * HUGE)
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}"
    with server.watched(), server.connect() as connection:
        send(connection, [server.head(method, path, length), *pieces_of(content, chunked=chunked)])
        try:
            assert answer_of(connection).status == status
        except ConnectionResetError:
            # It was answered and closed while we still sent: then the answer may be lost on its way.
            assert status != 400


@pytest.mark.parametrize("length", ["9" * 20, "-1", "1e3", "0x10", "9" * 5000, "3\r\nContent-Length: 4"], ids=len)
def test_lengths_that_cannot_be_keep_nobody_waiting(server: Victim, length: str) -> None:
    """A length beyond all measure, or that is none, is refused or waits for its body; others are served meanwhile."""
    before = server.open_descriptors()
    with server.watched(), server.connect() as connection:
        connection.sendall(server.head("POST", "/client_heartbeat", f"Content-Length: {length}") + b"abc")
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1 << 16)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
    server.wait_descriptors(before + 1)


def many(count: int, make: str) -> bytes:
    """Return members of an object, numbered."""
    return b"{%s}" % ",".join(make % number for number in range(count)).encode()


ODD_BODIES = {
    "deep": b"[" * 10_000_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep in a member": b'{"argv": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "a number without an end": b"9" * 10_000_000,
    "many members": many(200_000, '"m%d": 0'),
    "many members and one twice": many(60_000, '"m%d": 0')[:-1] + b', "m59999": 0}',
    "many wrong members": json.dumps({**body(), "env": [0] * 20_000}).encode(),
    "a long name": b'{"%s": 0}' % (b"x" * 1_000_000),
    "a name with a line in it": b'{"a\\r\\nb": 0}',
    "a name with a zero byte": b'{"a\\u0000b": 0}',
    "spaces": b" " * 10_000_000,
    "zero bytes": bytes(1_000_000),
}


@pytest.mark.parametrize("raw", ODD_BODIES.values(), ids=list(ODD_BODIES))
def test_odd_bodies_are_refused(server: Victim, raw: bytes) -> None:
    """JSON that is deep, long or repeats itself is 400 in words, of a length that can be read."""
    with server.watched():
        status, text = server.ask("PUT", "/sessions", raw)

    assert status == 400
    assert text.startswith(b"NewSession: ")
    assert len(text) < 20_000


@pytest.mark.parametrize(
    "name",
    ["x" * 1_000_000, "a\r\nX-Injected: yes", "a\0b", "\x7f\x1b[31m", "\ud7ff\u2028"],
    ids=lambda name: ascii(name[:15]),
)
def test_unknown_members_of_any_name_are_ignored(server: Victim, name: str) -> None:
    """The warning names them in one line, cut short, in characters that a header may have; what was asked is done."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    connection.request("POST", "/server_configuration", json.dumps({name: 1}), server.authorization)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    warning = answer.getheader("warning", "")

    assert (answer.status, answer.getheader("x-injected")) == (200, None)
    assert warning.startswith("Ignored unknown members: [")
    assert len(warning) < 10_000


def test_oversize_sessions_are_refused_by_the_system_alone(server: Victim) -> None:
    """A session with an id of 60 kB and an environment of 300 kB can be had, shown and deleted, if not started."""
    session_id = "ü/\n" * 5_000
    path = "/sessions/" + quote(session_id, safe="")
    env = [{"action": "append", "name": "LONG", "value": "x" * 100}] * 3_000
    with server.watched():
        created = server.ask("PUT", "/sessions", body(session_id, env=env))
        started = server.ask("POST", path + "/start")
        shown = server.ask("GET", path)
        deleted = server.ask("DELETE", path)

    assert [created[0], started[0], shown[0], deleted[0]] == [200, 500, 200, 200]
    assert json.loads(started[1])["error"]["code"] == "KS-5"
    assert json.loads(shown[1])["session_id"] == session_id


FAILURES: list[dict[str, Any]] = [
    {"argv": ["/etc/passwd"]},
    {"argv": ["false"]},
    {"argv": ["true"]},
    {"argv": ["sh", "-c", "kill -9 $$"]},
    {"argv": ["sh", "-c", "yes | head -n 1000; exit 3"]},
    {"argv": ["sleep", "1000"], "connection_timeout": 0},
    {"argv": ["sleep", "1000"], "connection_timeout": 0, "protocol_version": "5.5"},
    {"argv": ["sh", "-c", "exit 1"], "protocol_version": "5.5"},
    {"startup_environment": "script", "startup_environment_arg": "/no/such/script"},
    {"env": [{"action": "replace", "name": "=", "value": "\0"}]},
    {"working_directory": "/proc/self/mem", "argv": ["false"]},
    {"protocol_version": "9" * 4_000 + ".5", "argv": ["false"]},
]


@pytest.mark.posix_only("shells, and programs that take no time to start")
def test_a_hundred_starts_that_fail_at_once_leave_nothing(server: Victim) -> None:
    """Each is told why, as described; then the sessions can be deleted, and no process or descriptor is left."""
    clear(server)
    names = [f"f{number}" for number in range(100)]

    def fail(name: str, members: dict[str, Any]) -> tuple[int, bytes]:
        assert server.ask("PUT", "/sessions", body(name, **members))[0] == 200
        return server.ask("POST", f"/sessions/{name}/start")

    # With the first kernel that is to register, ZeroMQ is loaded, and stays.
    fail("first", {"argv": ["false"], "protocol_version": "5.5"})
    descriptors, children = server.open_descriptors(), server.process.children(recursive=True)
    with server.watched(), ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(fail, names, islice(cycle(FAILURES), 100)))
    schema = {"$ref": "#/components/schemas/startupError", "components": DESCRIPTION["components"]}
    for status, answer in answers:
        assert status == 500
        jsonschema.validate(json.loads(answer), schema)
    deleted = [server.ask("DELETE", f"/sessions/{name}")[0] for name in names]

    assert deleted == [200] * 100
    psutil.wait_procs(set(server.process.children(recursive=True)) - set(children), timeout=LIMIT)
    assert server.process.children(recursive=True) == children
    server.wait_descriptors(descriptors + 1)
