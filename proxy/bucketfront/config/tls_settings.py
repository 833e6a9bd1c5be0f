"""The settings of TLS: certificates, versions, and the certificates of clients."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from bucketfront.config.quantities import Duration, Flag
from bucketfront.config.section import Section

_CIPHERS = re.compile(r"[A-Za-z0-9:!+@=_,.-]{1,1024}")  # openssl-ciphers(1), without spaces


def _ciphers(text: str) -> str:
    if not _CIPHERS.fullmatch(text):
        raise ValueError("must be a list of ciphers as openssl-ciphers(1) has it, such as ECDHE+AESGCM:ECDHE+CHACHA20")
    return text


def _version(given: object) -> object:
    return str(given) if isinstance(given, float) else given  # YAML takes it for a number without quotes


Version = Annotated[
    Literal["1.2", "1.3"],
    BeforeValidator(_version),
    WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}, mode="validation"),
]
Ciphers = Annotated[str, "ciphers", AfterValidator(_ciphers)]


class CertificateSettings(Section):
    """A certificate with its key."""

    certificate: Path
    """PEM file with the certificate, followed by its chain."""
    key: Path
    """PEM file with the private key."""


class TlsSettings(CertificateSettings):
    """Certificates and versions of TLS."""

    certificates: tuple[CertificateSettings, ...] = Field(
        default=(), examples=["[{certificate: /etc/certs/b.pem, key: /etc/certs/b.key}]"]
    )
    """Further certificates. A client gets the first one that has the name which it requests (SNI), also by a wildcard,
    and `certificate` if none has."""
    min_version: Version = "1.2"
    """The oldest version of TLS that is spoken."""
    ciphers: Ciphers | None = Field(default=None, examples=["ECDHE+AESGCM:ECDHE+CHACHA20"])
    """Ciphers of TLS 1.2, as `openssl ciphers` takes them. With `null` they are those with forward secrecy and AES or
    ChaCha20. TLS 1.3 has good ones only, and they cannot be chosen."""

    @field_validator("ciphers")
    @classmethod
    def _of_a_version_that_is_spoken(cls, ciphers: str | None, info: ValidationInfo) -> str | None:
        if ciphers is not None and info.data.get("min_version") == "1.3":
            raise ValueError("has no effect with min_version 1.3: leave one of the two out")
        return ciphers


class HstsSettings(Section):
    """`Strict-Transport-Security`, by which browsers use HTTPS only for this name (RFC 6797)."""

    max_age: Duration = 31536000.0
    """How long a browser remembers it. `0` makes browsers forget it."""
    include_subdomains: Flag = False
    """Whether it holds for all names below this one as well."""
    preload: Flag = False
    """Whether browsers may ship with it. It needs `include_subdomains` and a `max_age` of at least a year."""

    @field_validator("preload")
    @classmethod
    def _may_preload(cls, preload: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's signature
        if preload and not (info.data.get("include_subdomains") and info.data.get("max_age", 0) >= 31536000):
            raise ValueError("needs include_subdomains, and a max_age of at least 365d")
        return preload

    @property
    def field_value(self) -> str:
        """Return the value of the response field."""
        return (
            f"max-age={int(self.max_age)}"
            + ("; includeSubDomains" if self.include_subdomains else "")
            + ("; preload" if self.preload else "")
        )


class ClientTlsSettings(TlsSettings):
    """TLS of the listener for clients."""

    client_ca: Path | None = Field(default=None, examples=["/etc/certs/devices-ca.pem"])
    """PEM file of the authorities whose client certificates are accepted. No others are."""
    client_certificates: Literal["none", "optional", "required"] = Field(default="none", validate_default=True)
    """Whether the handshake requests a certificate of the client. With `optional`, a client without one is served what
    rules of `access` permit. With `required`, its handshake fails. With a certificate that `client_ca` has not issued,
    the handshake fails in both modes."""
    hsts: HstsSettings | None = None
    """With `{}` or more, responses carry `Strict-Transport-Security`."""

    @field_validator("client_certificates")
    @classmethod
    def _with_authorities(cls, mode: str, info: ValidationInfo) -> str:
        has_ca = info.data.get("client_ca") is not None
        if mode == "none" and has_ca:
            raise ValueError("must be optional or required, because client_ca is set")
        if mode != "none" and not has_ca:
            raise ValueError("needs client_ca: the authorities whose certificates are accepted")
        return mode
