"""What clients should not send, and some do: it is told in words, nobody loses anything by it, and nothing is a 5xx.

The kernels are real processes, the scripted one; what is sent goes over TCP as it is.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st

from front_end import FrontEnd, connect, open_kernel, texts_of
from jupyter_requests import LINKS, Client, install_kernels, open_jupyter
from kallichore.client.channel_client import make_message
from kallichore.wire.jupyter_frames import Parts, write_default, write_v1

SCRIPT = {"name": "script"}
KERNEL_ID = "6f2d3a52-0e3c-4c6e-9f6e-0a4d5f5c8f01"


@pytest.fixture(autouse=True)
def kernelspecs(private_place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install kernels, and return the folder of their kernelspecs."""
    return install_kernels(private_place, monkeypatch)


ODD_NUMBERS = (0, 1, 5, 7, 0x7F, 0xFF, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def comm_message() -> Parts:
    """Return a message that a kernel may get without saying anything."""
    header = {"msg_id": "odd", "msg_type": "comm_msg", "session": "a", "username": "u", "version": "5.3", "date": ""}
    return Parts("shell", json.dumps(header).encode(), b"{}", b"{}", b'{"comm_id":"c"}', [b"\xde\xad", b""])


def broken_frames(is_v1: bool) -> Iterator[bytes]:
    """Yield a frame cut at every length, and with every offset, and their number, replaced by others."""
    whole = b"".join(write_v1(comm_message()) if is_v1 else write_default(comm_message()))
    number = struct.Struct("<Q" if is_v1 else ">I")
    (count,) = number.unpack_from(whole)
    for length in range(len(whole)):
        yield whole[:length]
    for place in range(count + 1):
        (right,) = number.unpack_from(whole, place * number.size)
        odd = (*ODD_NUMBERS, right - 1, right + 1, *((1 << 63, (1 << 64) - 1) if is_v1 else ()))
        for value in odd:
            yield whole[: place * number.size] + number.pack(value) + whole[(place + 1) * number.size :]


async def answers_still(front_end: FrontEnd) -> bool:
    """Tell whether the kernel runs what a front end asks, and nothing else was said to have been run."""
    asked = await front_end.execute("print here")
    return texts_of(await front_end.receive_all(asked)) == ["here\n"]


@pytest.mark.parametrize("is_v1", [False, True])
async def test_frames_of_every_length_and_offset_leave_the_socket_as_it_is(is_v1: bool) -> None:
    """They are dropped, or are messages, and what comes behind them is answered."""
    async with open_kernel() as (server, session), connect(server, session, is_v1=is_v1) as front_end:
        for frame in broken_frames(is_v1):
            await front_end.socket.send_message(frame)
        answers = await answers_still(front_end)

    assert answers


@pytest.mark.parametrize("is_v1", [False, True])
@settings(max_examples=5)
@given(frames=st.lists(st.binary(max_size=200) | st.text(max_size=200), min_size=20))
async def test_whatever_is_sent_leaves_the_socket_as_it_is(is_v1: bool, frames: list[str | bytes]) -> None:
    """In either protocol, text and bytes."""
    async with open_kernel() as (server, session), connect(server, session, is_v1=is_v1) as front_end:
        for frame in frames:
            await front_end.socket.send_message(frame)
        answers = await answers_still(front_end)

    assert answers


REAL_ODDITIES: dict[str, dict[str, Any]] = {
    "no channel, as GatewayKernelClient": {"channel": None},
    "no buffers, as jupyter_kernel_client": {"buffers": None},
    "date a number, as GatewayKernelClient": {"header": {"date": 1795415792.558397}},
    "date with a space, as jupyter_kernel_client": {"header": {"date": "2026-11-23 06:39:22.405165+00:00"}},
    "no date": {"header": {"date": None}},
    "ids beside the header, as both": {"msg_id": "other", "msg_type": "other"},
    "no parent header": {"parent_header": None},
    "no metadata": {"metadata": None},
    "members that nobody knows": {"future": {"a": [1]}, "header": {"subshell_id": None}},
    "null as metadata": {"metadata": "null"},
}


@pytest.mark.parametrize("name", REAL_ODDITIES)
async def test_what_clients_really_send_is_a_message(name: str) -> None:
    """The default protocol's messages, as they were seen."""
    message = {**make_message("execute_request", {"code": "print odd"}), "parent_header": {}}
    changes = REAL_ODDITIES[name]
    header = {**message["header"], **changes.get("header", {})}
    whole = {**message, **changes, "header": {key: value for key, value in header.items() if value is not None}}
    sent = {key: json.loads("null") if value == "null" else value for key, value in whole.items() if value is not None}
    async with open_kernel() as (server, session), connect(server, session) as front_end:
        await front_end.socket.send_message(json.dumps(sent))
        messages = await front_end.receive_all(header["msg_id"])

    assert ["odd\n"] == texts_of(messages)


links = pytest.mark.posix_only("symbolic links that everybody may make")

BAD_STRINGS = ["a\0b", "a%00b", "\ud800"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *(({**SCRIPT, "path": path}, 400) for path in (*BAD_STRINGS, "..", "a/../..")),
        *(pytest.param({**SCRIPT, "path": path}, 400, marks=links) for path in ("out", "out/below")),
        *(({**SCRIPT, "env": env}, 400) for env in (
            {"KERNEL_\0": "x"}, {"KERNEL_A": "\ud800"}, {"KERNEL_\ud800": "x"}, {"KERNEL_A": "x" * 200_000},
            {"KERNEL_WORKING_DIR": "\ud800"},
        )),
        *(({"name": name}, 400) for name in ("a\0b", "\ud800")),
        *(({"name": name}, 404) for name in ("nope", "../script", ".", "x" * 5000, "a/b")),
        *(({**SCRIPT, "kernel_id": each}, 400) for each in ("x", KERNEL_ID + "\n", "../-a-b-c-d", "\ud800-a-b-c-d")),
        *((body, 400) for body in (b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"9" * 5000, b"NaN", b'"x"')),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, int) else str(value),
)  # fmt: skip
async def test_request_that_cannot_be_meant_is_told_and_starts_nothing(
    body: Any, status: int, private_place: Path
) -> None:
    """It is the client's fault, and says so; a path leads out of the root by no way, a symbolic link either."""
    root = private_place / "root"
    root.mkdir()
    if LINKS:
        (root / "out").symlink_to(private_place)
    async with open_jupyter(root_directory=root) as client:
        answer = await client("POST", "/api/kernels", body)
        left = client.server.sessions

    assert (status, []) == (answer.status, left)
    assert answer.body["message"]
    assert answer.body["reason"]


@pytest.mark.parametrize(
    "path",
    [
        *("x" * 5000, "/".join("x" * 3000), "file", "/etc", "%ff"),
        *(pytest.param(path, marks=links) for path in ("loop", "loop/x")),
    ],
)
async def test_folder_that_is_none_is_the_nearest_that_is(path: str, private_place: Path) -> None:
    """Below the root: what is too long, goes round in circles, or is a file, is no directory like others."""
    if LINKS:
        (private_place / "loop").symlink_to(private_place / "loop")
    (private_place / "file").write_text("")
    async with open_jupyter(root_directory=private_place) as client:
        answer = await client("POST", "/api/kernels", {**SCRIPT, "path": path})
        result = await client.server.sessions[0].run("cwd")

    assert (201, str(private_place)) == (answer.status, result.text)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/kernelspecs/script/%00", 404),
        ("/kernelspecs/script/..%2f..%2f..%2fsecret", 404),
        ("/kernelspecs/script/../../../secret", 404),
        ("/kernelspecs/script/logo-svg.svg", 404),
        ("/kernelspecs/script/" + "x" * 5000, 404),
        ("/kernelspecs/script/.", 404),
        ("/kernelspecs/script/logo-64x64.png/x", 404),
        ("/kernelspecs/%00/x", 404),
        ("/kernelspecs/..%2f/x", 404),
        pytest.param("/kernelspecs/linked/logo-64x64.png", 200, marks=links),
        ("/api/kernelspecs/%00", 404),
        ("/api/kernelspecs/" + "x" * 5000, 404),
        ("/api/kernelspecs?user=a/%00", 404),
        ("/api/kernels/%00", 404),
        ("/api/kernels/%ff", 404),
        ("/api/kernels?%00=%ff&token=", 200),
        ("/api/kernels?1795415914417", 200),
        ("/api/me?permissions=" + "[" * 4000, 400),
        ("/api/me?permissions=%ff", 400),
        ("/api/sessions/%00", 404),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_odd_addresses_lead_nowhere(target: str, status: int, kernelspecs: Path) -> None:
    """No file outside of a kernel's folder is given away; the folder itself may be a link."""
    if LINKS:
        elsewhere = kernelspecs.parent.parent / "elsewhere"
        (kernelspecs / "script").rename(elsewhere)
        for name in ("script", "linked"):
            (kernelspecs / name).symlink_to(elsewhere)
    async with open_jupyter() as client:
        answer = await client("GET", target)

    assert status == answer.status
    assert b"secret" != answer.body


async def test_id_that_is_taken_is_one_kernel_however_often_it_is_asked_for() -> None:
    """At once, while it runs, and after it died: then it is started again."""
    wanted = {**SCRIPT, "kernel_id": KERNEL_ID}
    async with open_jupyter() as client:
        answers = await _together(client, "/api/kernels", wanted)
        session = client.server.sessions[0]
        running = await client("POST", "/api/kernels", {**wanted, "name": "nope"})
        first = session.process_id
        session.kill()
        await session.wait_ended()
        dead = await client("GET", f"/api/kernels/{KERNEL_ID}")
        deaf = await client("POST", f"/api/kernels/{KERNEL_ID}/interrupt")
        again = await client("POST", "/api/kernels", wanted)
        second, sessions = session.process_id, client.server.sessions

    assert [(201, KERNEL_ID)] * 5 == [(each.status, each.body["id"]) for each in (*answers, running, again)]
    assert ("dead", 400) == (dead.body["execution_state"], deaf.status)
    assert (1, True) == (len(sessions), second not in (None, first))


async def test_id_of_a_kernel_that_is_ending_is_a_new_kernels() -> None:
    """Who deletes and starts under the same id gets both."""
    wanted = {**SCRIPT, "kernel_id": KERNEL_ID}
    async with open_jupyter() as client:
        await client("POST", "/api/kernels", wanted)
        client.server.sessions[0].begin_stop()
        restarted = await client("POST", f"/api/kernels/{KERNEL_ID}/restart")
        started = await client("POST", "/api/kernels", wanted)
        result = await client.server.sessions[0].run("print new")

    assert (404, 201, "new\n") == (restarted.status, started.status, result.text)


async def test_document_that_is_opened_often_at_once_has_one_kernel() -> None:
    """As by two windows of a front end."""
    async with open_jupyter() as client:
        answers = await _together(client, "/api/sessions", {"path": "a.ipynb", "type": "notebook", "kernel": SCRIPT})
        kernels = client.server.sessions

    assert [201] * 3 == [each.status for each in answers]
    assert (1, 1) == (len({each.body["id"] for each in answers}), len(kernels))


async def test_restarts_that_come_together_are_one() -> None:
    """Who asks while one is under way is answered when that is done."""
    async with open_jupyter() as client:
        await client("POST", "/api/kernels", {**SCRIPT, "kernel_id": KERNEL_ID})
        answers = await _together(client, f"/api/kernels/{KERNEL_ID}/restart", {})

    assert [(200, KERNEL_ID)] * 3 == [(each.status, each.body["id"]) for each in answers]


@pytest.mark.parametrize(
    "body",
    [*({"path": path, "type": "notebook", "kernel": SCRIPT} for path in ("a\0b", "\ud800", "../../x.ipynb", 3)),
     {"path": "p", "type": "n", "name": "\ud800", "kernel": SCRIPT}, {"path": "p", "type": "n", "kernel": {"id": "x"}},
     b"[" * 100_000],
    ids=lambda value: repr(value)[:60],
)  # fmt: skip
async def test_document_that_cannot_be_meant_is_told_and_starts_nothing(body: Any) -> None:
    """A path with a NUL, half a letter, out of the root; an id that no gateway routes."""
    async with open_jupyter() as client:
        answer = await client("POST", "/api/sessions", body)
        left = client.server.sessions

    assert (400, []) == (answer.status, left)
    assert answer.body["message"]


@pytest.mark.parametrize("session_id", ["", "%00", "%ff", "%22%5c%0a", "%ed%a0%80", "x" * 5000])
async def test_name_of_a_front_end_may_be_anything(session_id: str) -> None:
    """It goes into the header of a question to the kernel, which is answered."""
    async with open_kernel() as (server, session), connect(server, session, session_id) as front_end:
        answers = await answers_still(front_end)

    assert answers


async def _together(client: Client, target: str, body: Any) -> list[Any]:
    """Send a request three times at once, and return the answers."""
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await client("POST", target, body))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    return answers
