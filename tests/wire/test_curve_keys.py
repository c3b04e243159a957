"""Keys for encryption: what libzmq takes for one is taken, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from zmq.utils import z85

from kallichore.errors import ConfigurationError
from kallichore.wire.curve_keys import CurveKeys, read_keys

keys = st.binary(min_size=32, max_size=32).map(lambda data: z85.encode(data).decode())

SECRET = "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs"


@given(keys, keys | st.none())
def test_pair_is_read(public: str, secret: str | None) -> None:
    """Any 32 bytes in Z85 are a key; the secret one may be unknown, and is not shown."""
    found = read_keys(public, secret)

    assert CurveKeys(public, secret) == found
    assert secret is None or secret == public or secret not in repr(found)


def test_without_keys_there_is_no_encryption() -> None:
    """A connection file without them is that of a plain kernel."""
    assert read_keys(None, None) is None


@pytest.mark.parametrize(
    ("public", "secret", "told"),
    [
        (None, SECRET, "without curve_publickey"),
        ("", SECRET, "curve_publickey is no key"),
        (SECRET[:-1], None, "curve_publickey is no key"),
        (SECRET + "0", None, "curve_publickey is no key"),
        (SECRET, "~" * 40, "curve_secretkey is no key"),
        (SECRET, "#" * 40, "curve_secretkey is no key"),
        ("é" * 40, SECRET, "curve_publickey is no key"),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(public: str | None, secret: str | None, told: str) -> None:
    """The error names the member, and not the value, which may be a secret."""
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_keys(public, secret)

    assert not secret or secret not in str(caught.value)
