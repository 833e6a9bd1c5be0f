"""The certificate and the key of the listener for clients, with the reason if they are of no use."""

import ssl
from pathlib import Path

from bucketfront.config.listener_settings import TlsSettings
from bucketfront.errors import UnusableSetting

_CERTIFICATE, _KEY = ("server", "tls", "certificate"), ("server", "tls", "key")
_FIRST_PEM = "-----BEGIN CERTIFICATE-----"
_LAST_PEM = "-----END CERTIFICATE-----"


def tls_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the server's context of TLS. Raises UnusableSetting with the file and the cure."""
    for path, at in ((settings.certificate, _CERTIFICATE), (settings.key, _KEY)):
        try:
            with path.open("rb") as file:
                file.read(1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a usable path"
            raise UnusableSetting(f"{path} cannot be read: {reason}", at) from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without this function, OpenSSL would ask for the password on the terminal.
        context.load_cert_chain(settings.certificate, settings.key, password=_no_password)
    except UnusableSetting:
        raise
    except ssl.SSLError as error:
        raise _unusable(settings, error) from error
    return context


def _no_password() -> bytes:
    raise UnusableSetting("the key is encrypted: remove its password, openssl pkey -in KEY -out KEY.plain", _KEY)


def _unusable(settings: TlsSettings, error: ssl.SSLError) -> UnusableSetting:
    if error.reason == "KEY_VALUES_MISMATCH":
        return UnusableSetting(
            f"{settings.key} is the key of another certificate than the first one in {settings.certificate}", _KEY
        )
    try:
        has_certificate = bool(_first_certificate(settings.certificate))
    except (OSError, ValueError):
        has_certificate = False
    if not has_certificate:
        return UnusableSetting(f"{settings.certificate} holds no certificate in PEM form ({_FIRST_PEM})", _CERTIFICATE)
    return UnusableSetting(
        f"{settings.key} and {settings.certificate} are not usable together ({error.reason or 'no PEM'}): the key must"
        " be in PEM form, and the certificates complete",
        _KEY,
    )


def valid_until(settings: TlsSettings, context: ssl.SSLContext) -> float:
    """Return until when the certificate is valid, in seconds since the epoch.

    Raises UnusableSetting if its time is over or has not begun. It runs a handshake in memory, as a client does it that
    trusts the certificate.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client_context.load_verify_locations(cadata=_first_certificate(settings.certificate))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        is_done = False
        while not is_done:
            is_done = _stepped(client) & _stepped(server)
    except ssl.SSLCertVerificationError as error:
        raise UnusableSetting(
            f"{settings.certificate}: {error.verify_message}, so that clients refuse it: renew it", _CERTIFICATE
        ) from error
    end = (client.getpeercert() or {}).get("notAfter")
    assert isinstance(end, str)
    return float(ssl.cert_time_to_seconds(end))


def _stepped(side: ssl.SSLObject) -> bool:
    """Do one step of the handshake. Return whether it is done."""
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _first_certificate(path: Path) -> bytes:
    """Return the server's own certificate, which is the first of the chain, in DER. Raises OSError, ValueError."""
    text = path.read_text("ascii", errors="replace")
    start = text.index(_FIRST_PEM)
    return ssl.PEM_cert_to_DER_cert(text[start : text.index(_LAST_PEM, start) + len(_LAST_PEM)])
