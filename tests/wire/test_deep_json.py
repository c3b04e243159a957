"""JSON that is nested deeper than readers go."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings, strategies as st

from kallichore.wire.deep_json import DeepJsonError, members_of

DEEP = b"[" * 5000 + b"]" * 5000

WORDS = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b"1", b"-0.5e3", b"01", b'"a"', b'"\\u00e9"', b'"', b"null", b" "]
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def is_json(document: bytes) -> bool:
    """Return what the standard library says; it takes names for numbers that JSON has not."""
    try:
        json.loads(document, parse_constant=lambda name: pytest.fail(name))
    except ValueError:
        return False
    return True


def test_members_of_a_deep_object_are_returned_as_they_stand() -> None:
    """Whatever the depth of a value, it is cut out whole."""
    document = b'{"content" : %s,"channel":"shell", "list": [{"content": 1}] }' % DEEP

    assert members_of(document) == {b'"content"': DEEP, b'"channel"': b'"shell"', b'"list"': b'[{"content": 1}]'}


@given(st.dictionaries(st.text(), VALUES))
@settings(max_examples=50)
def test_members_are_those_that_a_reader_finds(value: dict[str, object]) -> None:
    """Taken apart or read, an object has the same members."""
    members = members_of(json.dumps(value).encode())

    assert {json.loads(name): json.loads(member) for name, member in members.items()} == value


@given(st.lists(WORDS, max_size=12).map(b"".join))
def test_json_is_told_from_what_is_none(document: bytes) -> None:
    """It takes what the standard library takes."""
    try:
        members_of(document)
        taken = True
    except DeepJsonError:
        taken = False

    assert taken == is_json(document)


@pytest.mark.parametrize(
    "document", [b"[NaN]", b"[-Infinity]", b'["\x01"]', b'["\xff"]', b'["\\x"]', DEEP[:-1], DEEP + b"]"]
)
def test_what_is_not_json_is_refused(document: bytes) -> None:
    """Python's names for numbers, control characters, bad UTF-8, bad escapes, brackets that do not fit."""
    with pytest.raises(DeepJsonError):
        members_of(document)
