"""The certificate that hosts are told: made here or read from files, and no other is accepted in its place."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import pytest

from kallichore.engines.certificate import Certificate, make_certificate, read_certificate, server_context
from kallichore.errors import ConfigurationError


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    """A certificate."""
    return make_certificate()


def test_each_is_another_and_its_key_is_not_shown(certificate: Certificate) -> None:
    """Two certificates have nothing in common, and what is logged of one has no key in it."""
    other = make_certificate()

    assert certificate.pem != other.pem
    assert certificate.key_pem != other.key_pem
    assert "PRIVATE" not in repr(certificate)
    assert server_context(certificate).minimum_version == ssl.TLSVersion.TLSv1_2


def test_own_certificate_is_read_without_those_behind_it(certificate: Certificate, tmp_path: Path) -> None:
    """Of a chain of certificates the first is the server's; words around it are left out."""
    file, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    file.write_text("This is ours:\n" + certificate.pem + make_certificate().pem)
    key.write_text(certificate.key_pem)

    assert certificate == read_certificate(file, key)


@pytest.mark.parametrize(
    ("text", "key_text", "words"),
    [
        (None, None, "cannot be read"),
        ("", "", "There is no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", "no certificate and its key"),
        ("ours", "", "no certificate and its key"),
        ("ours", "another's", "no certificate and its key"),
        ("ours", "encrypted", "no certificate and its key"),
        ("é", "", "cannot be read"),
    ],
)
def test_files_that_are_no_certificate_and_its_key_are_refused(
    certificate: Certificate, tmp_path: Path, text: str | None, key_text: str | None, words: str
) -> None:
    """What cannot be read, is none, or does not belong together is refused in words, without a question."""
    known = {"ours": certificate.pem, "another's": make_certificate().key_pem, "encrypted": encrypt(certificate)}
    file, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    if text is not None and key_text is not None:
        file.write_text(known.get(text, text), "utf-8")
        key.write_text(known.get(key_text, key_text), "utf-8")

    with pytest.raises(ConfigurationError, match=words):
        read_certificate(file, key)


def encrypt(certificate: Certificate) -> str:
    """Return a key with a passphrase."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(certificate.key_pem.encode(), None)
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, serialization.BestAvailableEncryption(b"x")).decode()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that makes certificates, what to install or to give is said."""
    monkeypatch.setitem(sys.modules, "cryptography", None)

    with pytest.raises(ConfigurationError, match=r"kallichore\[engines\].*--hosts-certificate"):
        make_certificate()
