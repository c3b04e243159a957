"""The keys with which a kernel encrypts what passes its sockets: CurveZMQ (RFC 26), in Jupyter by JEP 145. [pure]

One pair is in the kernel's connection file. The kernel is the server and proves itself by it; its clients use the same
pair as theirs. Keys are 32 bytes, written in the 40 characters of Z85 (RFC 32).
"""

from __future__ import annotations

import attrs

from kallichore.errors import ConfigurationError

CURVE = "curve"
"""What a kernelspec's ``supported_encryption`` has for it."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_KEY_SIZE = 40


@attrs.frozen
class CurveKeys:
    """A kernel's keys.

    Attributes:
        public: By which a client knows the kernel.
        secret: The other half; None where it is not known. A client can do without, with a pair of its own.
    """

    public: str
    secret: str | None = attrs.field(repr=False)


def read_keys(public: str | None, secret: str | None) -> CurveKeys | None:
    """Return the keys in a kernel's connection information, None if it does not encrypt.

    Raises:
        ConfigurationError: A key is none, or a secret one is there alone.
    """
    if public is None:
        if secret is not None:
            raise ConfigurationError("curve_secretkey is given without curve_publickey; connection files have both")
        return None
    for name, key in (("curve_publickey", public), ("curve_secretkey", secret)):
        if key is not None and not _is_key(key):
            # Without the value, which may be a secret.
            raise ConfigurationError(f"{name} is no key of CurveZMQ: 40 characters of Z85")
    return CurveKeys(public, secret)


def _is_key(text: str) -> bool:
    if len(text) != _KEY_SIZE or not set(text) <= set(_DIGITS):
        return False
    return all(_value(text[start : start + 5]) < 1 << 32 for start in range(0, _KEY_SIZE, 5))


def _value(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 85 + _DIGITS.index(digit)
    return value
