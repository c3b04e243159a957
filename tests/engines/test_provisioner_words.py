"""What the program of all provisioners says, and what is made of others' words; pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from kallichore.engines.provisioner_words import (
    Launched,
    ToldEnd,
    choose_encryption,
    choose_environment,
    decode,
    encode,
    launch_limit,
    plain,
    read_connection,
    read_end,
    read_launched,
    uncertain_end,
)
from kallichore.errors import EngineError
from kallichore.models.bodies import ConnectionInfo

CONNECTION: dict[str, Any] = {
    **{f"{name}_port": 5000 + at for at, name in enumerate(("control", "shell", "stdin", "hb", "iopub"))},
    "ip": "10.0.0.7",
    "key": "k",
    "transport": "tcp",
    "signature_scheme": "hmac-sha256",
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON))
def test_message_arrives_as_it_was_sent(message: dict[str, Any]) -> None:
    """A message is one line, whatever is in it."""
    line = encode(message)

    assert (message, 1) == (decode(line), line.count(b"\n"))


@given(st.binary())
def test_what_is_no_message_is_none(line: bytes) -> None:
    """Others may print where they should not: that is no message, and no error."""
    found = decode(line)

    assert found is None or isinstance(found, dict)


def test_what_json_does_not_have_becomes_text() -> None:
    """Keys are bytes in jupyter_client; objects of a provisioner's own are said by their text."""
    assert {"key": "a\xff", "all": ["b"], "1": "2"} == plain({"key": b"a\xff", "all": (b"b",), 1: "2"})
    assert {"what": "{1}"} == decode(encode({"what": {1}}))


@pytest.mark.parametrize(
    ("name", "is_passed_on"),
    [
        *((each, True) for each in ("HOME", "LANG", "LC_ALL", "TZ", "KERNEL_USERNAME", "JPY_SESSION_NAME", "MINE")),
        *((each, False) for each in ("PATH", "AWS_SECRET_ACCESS_KEY", "HOMEBREW", "PYTHONPATH", "LC", "lang")),
    ],
)
def test_variables_for_elsewhere_are_chosen(name: str, is_passed_on: bool) -> None:
    """A kernel elsewhere gets a few of the server's variables, and all that its session sets."""
    assert ({name: "1"} if is_passed_on else {}) == choose_environment({name: "1"}, {"MINE"})


@pytest.mark.parametrize(
    ("policy", "can_encrypt", "is_local", "told"),
    [
        ("disabled", True, False, "auto"),
        ("disabled", False, False, "disabled"),
        ("disabled", True, True, "disabled"),
        ("auto", True, True, "auto"),
        ("auto", False, False, "auto"),
        ("required", False, True, "required"),
    ],
)
def test_kernel_elsewhere_is_asked_to_encrypt(policy: str, can_encrypt: bool, is_local: bool, told: str) -> None:
    """What the session asks for counts; and where it does not ask, a kernel elsewhere encrypts if it can."""
    assert told == choose_encryption(policy, can_encrypt=can_encrypt, is_local=is_local)


@pytest.mark.parametrize(
    ("asked", "limit"),
    [(None, 120), ("300", 330), ("0", 30), ("x", 120), ("-1", 120), ("inf", 120), ("nan", 120), ("", 120)],
)
def test_launch_may_take_what_its_kernel_says(asked: str | None, limit: float) -> None:
    """KERNEL_LAUNCH_TIMEOUT and a margin, where it is a number; else what is usual."""
    assert limit == launch_limit({} if asked is None else {"KERNEL_LAUNCH_TIMEOUT": asked}, 120)


def test_launch_is_read_with_all_that_is_told() -> None:
    """Where the kernel is, what finds it again, and its process where it is one of this machine."""
    told = {"connection": {**CONNECTION, "kernel_name": "x"}, "info": {"a": 1}, "pid": 7, "is_local": True}

    assert Launched(ConnectionInfo(**CONNECTION), {"a": 1}, 7, True) == read_launched("p", told)


@pytest.mark.parametrize("told", [{}, {"info": 3, "pid": "7", "is_local": "yes"}, {"info": None, "pid": None}])
def test_launch_without_the_rest_is_one_elsewhere(told: dict[str, Any]) -> None:
    """What is missing, or is something else, is as if it was not told."""
    launched = read_launched("p", {"connection": CONNECTION, **told})

    assert Launched(ConnectionInfo(**CONNECTION), {}, 0, False) == launched


def test_connection_has_what_connection_files_mostly_have() -> None:
    """The transport and the signature scheme are the usual ones where nothing is said of them."""
    told = {name: value for name, value in CONNECTION.items() if name not in ("transport", "signature_scheme")}

    assert ConnectionInfo(**CONNECTION) == read_connection("p", told)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hb_port": None}, "hb_port is missing"),
        ({"hb_port": "5"}, "hb_port is '5'"),
        ({"hb_port": True}, "hb_port is True"),
        ({"hb_port": 0}, "hb_port is 0"),
        ({"hb_port": 65536}, "hb_port is 65536"),
        ({"ip": ""}, "ip is ''"),
        ({"ip": 5}, "ip is 5"),
        ({"key": 5}, "key is no text"),
        ({"key": None, "ip": None}, "ip is missing, key is missing"),
    ],
)
def test_connection_that_is_none_is_told(change: dict[str, Any], complaint: str) -> None:
    """Each member that is wrong is named, with what it is; a key is nobody's business."""
    with pytest.raises(EngineError) as info:
        read_connection("p", {**CONNECTION, **change})

    assert f"The provisioner 'p' says that the kernel was launched, but not where it is: {complaint}" == str(info.value)


@pytest.mark.parametrize("told", [None, 7, [], "ports"])
def test_connection_that_is_no_object_is_told(told: Any) -> None:
    """All is missing then."""
    with pytest.raises(EngineError, match="control_port is missing"):
        read_connection("p", told)


@pytest.mark.parametrize(
    ("told", "end"),
    [
        ({"code": 7, "is_certain": True}, ToldEnd(7, True)),
        ({"code": -9, "is_certain": False}, ToldEnd(-9, False)),
        ({"code": None}, ToldEnd(None, False)),
        ({"code": True, "is_certain": 1}, ToldEnd(None, False)),
    ],
)
def test_end_is_read(told: dict[str, Any], end: ToldEnd) -> None:
    """A code is a number, and is certain only where that is said."""
    assert end == read_end(told)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "ended; its provisioner 'p' does not say how"),
        (None, "ended; its provisioner 'p' does not say how"),
        (7, "ended; its provisioner 'p' says with exit code 7"),
    ],
)
def test_uncertain_end_is_told_as_one(code: int | None, text: str) -> None:
    """A 0 of a provisioner's says nothing."""
    assert text == uncertain_end("p", code)
