"""JSON that is nested deeper than readers go, checked and taken apart without reading it.

A reader that recurses gives up at about 1,000 levels, Python's limit. A widget's state or a syntax tree may have more,
and is none of our business: it only has to be JSON (RFC 8259), so that it can stand in an envelope. This is slow, and
only asked where a reader gave up.
"""

from __future__ import annotations

import re

_STRING = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_SCALAR = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null"

_token = re.compile(rb"[ \t\n\r]*+(?:(%s)|(%s)|([\[\]{},:]))" % (_STRING, _SCALAR)).match
_blank = re.compile(rb"[ \t\n\r]*+\Z").match

_CLOSES = {ord("]"): ord("["), ord("}"): ord("{")}

# What may come next; of a list and of an object the first may be missing.
_VALUE, _FIRST_VALUE, _NAME, _FIRST_NAME, _COLON, _MORE = range(6)

_OPENING = {ord("["): _FIRST_VALUE, ord("{"): _FIRST_NAME}

# The groups of `_token`; the one between them are numbers and words.
_TEXT, _SIGN = 1, 3


class DeepJsonError(ValueError):
    """It is not JSON; the text says where."""


def members_of(document: bytes) -> dict[bytes, bytes]:
    """Check a document of whatever depth, and return the members of an object: names and values, as they stand.

    Of a document that is no object there are none.

    Raises:
        DeepJsonError: It is not JSON, or not UTF-8.
    """
    try:
        document.decode()
    except UnicodeDecodeError as error:
        raise DeepJsonError(f"not UTF-8: {error}") from error
    members: dict[bytes, bytes] = {}
    stack, expected, position = bytearray(), _VALUE, 0
    name, value_start = b"", 0
    while stack or expected == _VALUE:
        token = _token(document, position)
        if token is None or token.lastindex is None:
            raise DeepJsonError(f"not JSON at byte {position}")
        kind, start, position = token.lastindex, token.start(token.lastindex), token.end()
        sign = document[start]
        if expected in (_VALUE, _FIRST_VALUE) and kind != _SIGN:
            expected = _MORE
        elif expected in (_VALUE, _FIRST_VALUE) and sign in _OPENING:
            stack.append(sign)
            expected = _OPENING[sign]
        elif expected in (_NAME, _FIRST_NAME) and kind == _TEXT:
            expected = _COLON
            if len(stack) == 1:
                name = document[start:position]
        elif expected == _COLON and sign == ord(":"):
            expected = _VALUE
            if len(stack) == 1:
                value_start = position
        elif expected == _MORE and sign == ord(","):
            expected = _VALUE if stack[-1] == ord("[") else _NAME
            if stack == b"{":
                members[name] = document[value_start:start].strip()
        elif expected in (_MORE, _FIRST_VALUE, _FIRST_NAME) and stack and _CLOSES.get(sign) == stack[-1]:
            if stack == b"{" and expected == _MORE:
                members[name] = document[value_start:start].strip()
            stack.pop()
            expected = _MORE
        else:
            raise DeepJsonError(f"not JSON at byte {start}")
    if not _blank(document, position):
        raise DeepJsonError(f"not JSON at byte {position}: more follows the value")
    return members
