"""The TLS of a listener: its certificates, by the names that clients request, and their replacement while it serves.

A connection keeps the certificate of its handshake. `ServerTls.reload` reads the files again, and later connections
get the new ones. So a renewal ends no connection, and files that are of no use change nothing. A session that a client
resumes is one of the same files, because each reading has ticket keys of its own.
"""

import ssl
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from bucketfront.config.pem_file import certificate_problem
from bucketfront.config.problems import Loc
from bucketfront.config.tls_settings import CertificateSettings, ClientTlsSettings, TlsSettings
from bucketfront.errors import UnusableSetting
from bucketfront.http.grammar import Headers
from bucketfront.server.http1.handshake_failure import HandshakeFailure

_FIRST_PEM = "-----BEGIN CERTIFICATE-----"
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_CERTIFICATES = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_MIN_CIPHER_BITS = 128
RENEWAL_S = 14 * 86_400.0  # before its end a certificate is worth a warning; automatic renewals come weeks earlier


@dataclass(frozen=True, slots=True)
class ServedCertificate:
    """A certificate of a listener. `names` are its DNS names, and the times are in seconds since the epoch."""

    path: Path
    names: tuple[str, ...]
    not_before: float
    not_after: float

    def ends_soon(self, now: float) -> bool:
        """Return whether it should have been renewed by now. One that is valid for days has less time for it."""
        return now > self.not_after - min(RENEWAL_S, (self.not_after - self.not_before) / 3)

    def trouble(self, now: float) -> str | None:
        """Return why clients refuse it now, with the cure. Returns None if they need not."""
        if now > self.not_after:
            return f"{self.path} has expired, so that clients refuse it: renew it"
        if now < self.not_before:
            return f"{self.path} is not valid yet, so that clients refuse it: check the clock, or wait"
        return None


FileState = tuple[int, int, int, int] | None
"""The identity, size and time of change of a file, None if it cannot be read. Links are followed."""


@dataclass(frozen=True, slots=True)
class LoadedTls:
    """What one reading of the files gave. `files` is their state before it."""

    context: ssl.SSLContext
    certificates: tuple[ServedCertificate, ...]
    files: tuple[FileState, ...]


class ServerTls:
    """The TLS of one listener. `at` is the place of its settings, as `("server", "tls")`.

    `failures` counts handshakes that failed. Raises UnusableSetting with the file and the cure.
    """

    def __init__(self, settings: TlsSettings, at: Loc) -> None:
        self._settings = settings
        self.at = at
        self.loaded = self.read()
        self.failures = Counter[HandshakeFailure]()

    def adopt(self, other: "ServerTls") -> None:
        """Take the settings and the files of another one, for later connections."""
        self._settings, self.loaded = other._settings, other.loaded  # noqa: SLF001 - of its own class

    @property
    def response_fields(self) -> Headers:
        """Return the fields of each response on a new connection."""
        hsts = self._settings.hsts if isinstance(self._settings, ClientTlsSettings) else None
        return () if hsts is None else (("Strict-Transport-Security", hsts.field_value),)

    @property
    def name(self) -> str:
        """Return the place of the settings as people write it, `server.tls`."""
        return ".".join(map(str, self.at))

    @property
    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        return self.loaded.context

    def state_of_files(self) -> tuple[FileState, ...]:
        """Return the present state of all files. Does I/O."""
        settings = self._settings
        paths = [path for _, pair in _pairs(settings, self.at) for path in (pair.certificate, pair.key)]
        if isinstance(settings, ClientTlsSettings) and settings.client_ca is not None:
            paths.append(settings.client_ca)
        return tuple(_state(path) for path in paths)

    def read(self) -> LoadedTls:
        """Return what the files give now. Does I/O. Raises UnusableSetting."""
        files = self.state_of_files()
        found = [
            (_context(self._settings, self.at, pair, at), pair, at) for at, pair in _pairs(self._settings, self.at)
        ]
        certificates = tuple(_served(pair, (*at, "certificate")) for _, pair, at in found)
        _choose_by_name([context for context, _, _ in found], certificates, self.at)
        return LoadedTls(found[0][0], certificates, files)


def _pairs(settings: TlsSettings, at: Loc) -> list[tuple[Loc, CertificateSettings]]:
    further = ((*at, "certificates", number) for number in range(len(settings.certificates)))
    return [(at, settings), *zip(further, settings.certificates, strict=True)]


def _state(path: Path) -> FileState:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _context(settings: TlsSettings, at: Loc, pair: CertificateSettings, at_pair: Loc) -> ssl.SSLContext:
    """Return the context of one certificate. Raises UnusableSetting."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # OpenSSL's own configuration file could have set another floor.
    context.minimum_version = _VERSIONS[settings.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    if settings.ciphers is not None:
        _set_ciphers(context, settings.ciphers, (*at, "ciphers"))
    _load_pair(context, pair, at_pair)
    if isinstance(settings, ClientTlsSettings) and settings.client_ca is not None:
        if (problem := certificate_problem(settings.client_ca)) is not None:
            raise UnusableSetting(f"{settings.client_ca} {problem}", (*at, "client_ca"))
        context.verify_mode = _CLIENT_CERTIFICATES[settings.client_certificates]
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # all that the file lists is trusted, roots or not
        try:
            context.load_verify_locations(cafile=settings.client_ca)
        except OSError as error:  # it was replaced meanwhile
            raise UnusableSetting(f"{settings.client_ca} cannot be read", (*at, "client_ca")) from error
    return context


def _set_ciphers(context: ssl.SSLContext, ciphers: str, at: Loc) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as error:
        raise UnusableSetting("names no cipher that OpenSSL has: `openssl ciphers -v` lists them", at) from error
    for cipher in context.get_ciphers():
        if cipher["strength_bits"] < _MIN_CIPHER_BITS or "Au=None" in cipher["description"]:
            raise UnusableSetting(f"has {cipher['name']}, which protects nothing: add :!aNULL:!eNULL:!LOW:!3DES", at)


def _load_pair(context: ssl.SSLContext, pair: CertificateSettings, at: Loc) -> None:
    """Load a certificate and its key. Raises UnusableSetting."""
    at_key = (*at, "key")
    for path, at_path in ((pair.certificate, (*at, "certificate")), (pair.key, at_key)):
        try:
            if path.exists() and not (path.is_file() or path.is_dir()):
                # To open a named pipe may take forever.
                raise UnusableSetting(f"{path} is no regular file: name one in PEM form", at_path)
            with path.open("rb") as file:
                file.read(1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a usable path"
            raise UnusableSetting(f"{path} cannot be read: {reason}", at_path) from error

    def no_password() -> bytes:
        raise UnusableSetting("the key is encrypted: remove its password, openssl pkey -in KEY -out KEY.plain", at_key)

    try:
        # Without this function, OpenSSL would prompt for the password on the terminal.
        context.load_cert_chain(pair.certificate, pair.key, password=no_password)
    except UnusableSetting:
        raise
    except ssl.SSLError as error:
        raise _unusable(pair, error, at) from error
    except OSError as error:  # it was replaced meanwhile
        raise UnusableSetting(f"{pair.certificate} or {pair.key} cannot be read: {error.strerror}", at_key) from error


def _unusable(pair: CertificateSettings, error: ssl.SSLError, at: Loc) -> UnusableSetting:
    if error.reason == "KEY_VALUES_MISMATCH":
        return UnusableSetting(
            f"{pair.key} is the key of another certificate than the first one in {pair.certificate}:"
            " replace the one that is older",
            (*at, "key"),
        )
    try:
        has_certificate = _FIRST_PEM in pair.certificate.read_text("ascii", errors="replace")
    except OSError:
        has_certificate = False
    if not has_certificate:
        return UnusableSetting(
            f"{pair.certificate} holds no certificate in PEM form ({_FIRST_PEM})", (*at, "certificate")
        )
    return UnusableSetting(
        f"{pair.key} and {pair.certificate} are not usable together ({error.reason or 'no PEM'}): the key must"
        " be in PEM form, and the certificates complete",
        (*at, "key"),
    )


def _served(pair: CertificateSettings, at: Loc) -> ServedCertificate:
    """Return the facts of the listener's own certificate, the first of the chain. Raises UnusableSetting."""
    path = pair.certificate
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            names = []
        else:
            names = extension.value.get_values_for_type(x509.DNSName)
    except (OSError, ValueError, x509.DuplicateExtension) as error:
        raise UnusableSetting(f"{path} cannot be read as a certificate: renew it", at) from error
    return ServedCertificate(
        path,
        tuple(name.lower() for name in names),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _choose_by_name(contexts: Sequence[ssl.SSLContext], certificates: Sequence[ServedCertificate], at: Loc) -> None:
    """Let the first context hand each connection on to the first one that has the name. Raises UnusableSetting."""
    if len(contexts) == 1:
        return
    by_name: dict[str, ssl.SSLContext] = {}
    for number, (context, certificate) in enumerate(zip(contexts, certificates, strict=True)):
        if number and not certificate.names:
            raise UnusableSetting(
                f"{certificate.path} has no DNS name (SAN), so that no client would get it",
                (*at, "certificates", number - 1, "certificate"),
            )
        for name in certificate.names:
            by_name.setdefault(name, context)

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        found = None if name is None else chosen(by_name, name)
        if found is not None:
            connection.context = found

    contexts[0].sni_callback = choose


def chosen(by_name: dict[str, ssl.SSLContext], name: str) -> ssl.SSLContext | None:
    """Return the context for a name that a client requests. Returns None if no certificate has it.

    A wildcard stands for exactly one label, the first one (RFC 9525 section 6.3). An exact name precedes it.
    """
    name = name.lower().removesuffix(".")
    label, _, parent = name.partition(".")
    return by_name.get(name) or (by_name.get(f"*.{parent}") if label and parent else None)
