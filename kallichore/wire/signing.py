"""Signatures of kernel messages (messaging spec, "Wire protocol": HMAC over the four JSON parts).

The key of a session does not change over its life, so the two keyed hash states of RFC 2104 are made once and copied
for each message: 1.2 µs for 450 bytes, where copying an ``hmac.HMAC`` takes 2.0 and ``hmac.digest`` 4.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from hmac import compare_digest

from kallichore.errors import ConfigurationError

_SCHEME_PREFIX = "hmac-"

_LARGE = 1 << 16
"""Bytes of content from which on a copy costs more than another call."""


class Signer:
    """Signs and verifies with one key.

    Args:
        key: The key as text, whose UTF-8 bytes are the HMAC key. The empty key switches signing off, as the
            messaging spec has it: messages then carry an empty signature.
        scheme: ``hmac-`` and the name of a hash function, as in a connection file.

    Raises:
        ConfigurationError: The scheme is not an HMAC that this Python knows.
    """

    def __init__(self, key: str, scheme: str = "hmac-sha256") -> None:
        self.key = key
        self.scheme = scheme
        self._inner: hashlib._Hash | None = None
        if not scheme.startswith(_SCHEME_PREFIX):
            raise ConfigurationError(f"signature_scheme {scheme!r} is not supported; use hmac-sha256")
        if key:
            try:
                self._inner, self._outer = _keyed_states(key.encode(), scheme.removeprefix(_SCHEME_PREFIX))
            except (TypeError, ValueError) as error:
                raise ConfigurationError(f"signature_scheme {scheme!r} is not supported; use hmac-sha256") from error

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """Return the signature of header, parent header, metadata and content: lower-case hex, ASCII."""
        if self._inner is None:
            return b""
        inner = self._inner.copy()
        if len(parts[-1]) < _LARGE:
            inner.update(b"".join(parts))
        else:
            for part in parts:
                inner.update(part)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def verify(self, signature: bytes, parts: Sequence[bytes]) -> bool:
        """Tell whether ``signature`` is that of ``parts``. Without a key every message is good."""
        return self._inner is None or compare_digest(signature, self.sign(parts))


def _keyed_states(key: bytes, name: str) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Return the inner and the outer hash of an HMAC (RFC 2104, section 4), each with its key taken in."""
    empty = hashlib.new(name)
    # Some hashes have digests of any length, and no HMAC: they raise TypeError here.
    empty.hexdigest()
    if len(key) > empty.block_size:
        key = hashlib.new(name, key).digest()
    padded = key.ljust(empty.block_size, b"\0")
    inner, outer = (hashlib.new(name, bytes(byte ^ pad for byte in padded)) for pad in (0x36, 0x5C))
    return inner, outer
