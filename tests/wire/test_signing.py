"""Signatures: the messaging specification's HMAC, on for any key but the empty one."""

from __future__ import annotations

import hmac

import pytest

from kallichore.errors import ConfigurationError
from kallichore.wire.signing import Signer

PARTS = (b"header", b"parent", b"metadata", b"content")


@pytest.mark.parametrize("scheme", ["hmac-sha256", "hmac-sha512", "hmac-md5"])
@pytest.mark.parametrize("key", ["a0436f6c-1916-498b-8eb9-e81ab9368e84", "clé", "k" * 64, "k" * 65, "k" * 500])
def test_signature_is_the_hmac_over_the_four_parts(key: str, scheme: str) -> None:
    """The signature is the lower-case hexadecimal HMAC of the parts one after the other, under the key's UTF-8."""
    expected = hmac.new(key.encode(), b"headerparentmetadatacontent", scheme.removeprefix("hmac-")).hexdigest()
    signer = Signer(key, scheme)

    assert expected.encode() == signer.sign(PARTS)
    assert signer.verify(expected.encode(), PARTS)


def test_large_content_is_signed_like_any_other() -> None:
    """However the parts are taken in."""
    parts = (b"header", b"parent", b"metadata", b"x" * 200_000)
    expected = hmac.new(b"key", b"".join(parts), "sha256").hexdigest().encode()

    assert expected == Signer("key").sign(parts)


def test_signer_says_what_it_signs_with() -> None:
    """A kernel's connection file says the same."""
    signer = Signer("key", "hmac-sha512")

    assert (signer.key, signer.scheme) == ("key", "hmac-sha512")


def test_signer_signs_each_message_anew() -> None:
    """What was signed before does not show in the next signature."""
    signer = Signer("key")
    first = signer.sign(PARTS)
    signer.sign((b"something", b"else"))

    assert first == signer.sign(PARTS)


@pytest.mark.parametrize("signature", [b"", b"0" * 64, b"\xff", Signer("other").sign(PARTS)])
def test_wrong_signature_is_refused(signature: bytes) -> None:
    """No signature but the key's own is good, the empty one included."""
    assert not Signer("key").verify(signature, PARTS)


@pytest.mark.parametrize("signature", [b"", b"whatever"])
def test_empty_key_switches_signing_off(signature: bytes) -> None:
    """Without a key messages have an empty signature, and any is accepted."""
    signer = Signer("")

    assert signer.sign(PARTS) == b""
    assert signer.verify(signature, PARTS)


@pytest.mark.parametrize("scheme", ["", "sha256", "hmac-", "hmac-nonsense", "hmac-shake_128", "hmac-é"])
def test_unknown_scheme_is_refused(scheme: str) -> None:
    """A scheme that is no HMAC which Python knows is refused, with one that works."""
    with pytest.raises(ConfigurationError, match="use hmac-sha256"):
        Signer("key", scheme)
