"""The certificate of the listener at which hosts dial in: made here, or given by who runs the server.

A host is told this one certificate along with what it is to do, and accepts no other. So nobody has to sign it, what
it is called does not matter, and neither do the names by which a server's machine is known elsewhere.
"""

from __future__ import annotations

import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs

from kallichore.errors import ConfigurationError

LIFETIME = timedelta(days=3650)
"""How long a certificate is good. It is made anew whenever there is none; what ends a session is not to be a date."""

SKEW = timedelta(days=1)
"""How far the clock of a host's machine may be behind ours."""

BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@attrs.frozen
class Certificate:
    """A certificate and its key, as PEM texts.

    Attributes:
        pem: The certificate, which everybody may know.
        key_pem: Its private key, which nobody may.
    """

    pem: str
    key_pem: str = attrs.field(repr=False)


def make_certificate() -> Certificate:
    """Return a new certificate, signed by itself; it takes some milliseconds.

    Raises:
        ConfigurationError: What makes one is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ConfigurationError(
            "A certificate for hosts that dial in is made with the package cryptography, which is not installed:"
            " install kallichore[engines], or give a certificate with --hosts-certificate FILE --hosts-key FILE"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kallichore")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - SKEW).not_valid_after(now + LIFETIME)
    # With this one nobody can sign others.
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = builder.sign(key, hashes.SHA256())
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Certificate(
        made.public_bytes(pem).decode("ascii"),
        key.private_bytes(pem, form, serialization.NoEncryption()).decode("ascii"),
    )


def read_certificate(certificate: Path, key: Path) -> Certificate:
    """Return the certificate that is in two files, as who runs a server gives them. Others behind it are left out.

    Args:
        certificate: A file that begins with it.
        key: A file with its private key, without a passphrase.

    Raises:
        ConfigurationError: They cannot be read, or do not belong together.
    """
    try:
        text, key_text = certificate.read_text("ascii"), key.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The certificate for hosts cannot be read: {error}") from error
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise ConfigurationError(f"There is no certificate in {certificate}")
    found = Certificate(text[begin : end + len(END)] + "\n", key_text)
    try:
        server_context(found)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{certificate} and {key} are no certificate and its key: {error}") from error
    return found


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Return what a listener with this certificate needs.

    Raises:
        OSError: It and its key do not belong together, or cannot be understood.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL reads them from files only. This directory is the user's own, and gone in a moment.
    with tempfile.TemporaryDirectory(prefix="kallichore-") as place:
        file = Path(place, "both.pem")
        file.touch(0o600)
        file.write_text(certificate.pem + certificate.key_pem, "ascii")
        context.load_cert_chain(file, password=_no_password)
    return context


def _no_password() -> str:
    """Return none: OpenSSL would ask at the terminal otherwise, and wait."""
    return ""
