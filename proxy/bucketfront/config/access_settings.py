"""The settings of access control: rules by name, of which mounts list those that let clients in."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from bucketfront.config.quantities import Duration, Flag
from bucketfront.config.section import Section

PUBLIC = "public"
MIN_TOKEN_CHARS = 16  # random text of that length cannot be guessed

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TOKEN = re.compile(rf"[\x21-\x7e]{{{MIN_TOKEN_CHARS},}}")
_HASHED_TOKEN = re.compile(r"sha256:[0-9a-f]{64}")
_REALM = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,128}")  # RFC 9110 section 5.6.4, without escapes


def token_lines(secret: SecretStr) -> list[str]:
    """Return the tokens of a setting: one, or one in each line of a file. Empty lines and `#` comments do not count."""
    lines = (line.strip() for line in secret.get_secret_value().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _rule_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name == PUBLIC:
        raise ValueError(f"must be 1 to 64 letters, digits, '-' and '_', and not {PUBLIC}, which needs no rule")
    return name


def _key_id(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("must be 1 to 64 letters, digits, '-' and '_'")
    return name


def checked_tokens(secret: SecretStr) -> SecretStr:
    """Return the secret if it holds tokens or hashes of tokens. Raises ValueError, with no part of them."""
    lines = token_lines(secret)
    if not lines:
        raise ValueError("must hold a token")
    for line in lines:
        is_hash = line.startswith("sha256:")
        if not (_HASHED_TOKEN if is_hash else _TOKEN).fullmatch(line):
            raise ValueError(
                f"must be tokens of at least {MIN_TOKEN_CHARS} visible ASCII characters, or sha256: and 64 hex digits"
            )
    return secret


def checked_signing_key(secret: SecretStr) -> SecretStr:
    """Return the secret if it is long enough to sign. Raises ValueError."""
    if len(secret.get_secret_value().encode()) < MIN_TOKEN_CHARS:
        raise ValueError(f"must have at least {MIN_TOKEN_CHARS} bytes: make one with `openssl rand -hex 32`")
    return secret


def network(text: str) -> str:
    """Return the network in its one spelling. Raises ValueError with the fix."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"must be an address or a network, such as 10.0.0.0/8: {error}") from None


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or re.search(r"[\x00-\x20\x7f\\]", url):
        raise ValueError("must be an http:// or https:// URL")
    if "@" in urlsplit(url).netloc or "#" in url:
        raise ValueError("must have neither credentials nor a fragment")
    return url


def _realm(realm: str) -> str:
    if not _REALM.fullmatch(realm):
        raise ValueError("must be up to 128 printable ASCII characters, without quotes and backslashes")
    return realm


def _pattern(text: str) -> str:
    if not text or len(text) > 1024:
        raise ValueError("must have 1 to 1024 characters")
    return text


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ValueError("must be a SHA-256: 64 hex digits, with or without colons")
    return digits


Pattern = Annotated[str, "patterns", AfterValidator(_pattern)]
Fingerprint = Annotated[str, "SHA-256 hashes", AfterValidator(_fingerprint)]
RuleName = Annotated[str, "rule name", AfterValidator(_rule_name)]
KeyId = Annotated[str, "key id", AfterValidator(_key_id)]
AccessName = Annotated[str, "rule names"]
Tokens = Annotated[SecretStr, "secrets", AfterValidator(checked_tokens)]
SigningKey = Annotated[SecretStr, "secret", AfterValidator(checked_signing_key)]
Network = Annotated[str, "addresses or networks", AfterValidator(network)]
Url = Annotated[str, "URL", AfterValidator(_url)]
Realm = Annotated[str, "text", AfterValidator(_realm)]


class BearerSettings(Section):
    """Tokens that clients send as `Authorization: Bearer …` (RFC 6750)."""

    tokens: Annotated[tuple[Tokens, ...], Field(min_length=1)] = Field(examples=['["file:/run/secrets/tokens"]'])
    """Tokens, any of which lets a client in, so that an old one and its successor hold at the same time. A file may
    have one in each line, and is read again when it has changed. `sha256:` and the hex SHA-256 of a token stands for
    it, so that the file holds no secret."""


class BasicSettings(Section):
    """Users with passwords (RFC 7617). Use it with TLS only."""

    file: Path
    """A file as `htpasswd -B` makes it: `user:hash` in each line, with hashes of bcrypt or argon2. It is read
    again when it has changed."""
    realm: Realm = "bucketfront"
    """What browsers show when they ask for the password."""


class SignedUrlSettings(Section):
    """URLs that carry their permission. `bucketfront sign` makes them, and so can your app: see docs/access.md."""

    keys: Annotated[dict[KeyId, SigningKey], Field(min_length=1)] = Field(examples=['{k1: "file:/run/secrets/k1"}'])
    """Secrets by their ids. A URL names the id, so that an old key and its successor hold at the same time. The file of
    a key is read again when it has changed."""
    max_age: Annotated[Duration, Field(gt=0)] = 604800.0
    """How far in the future a URL may expire."""
    cookies: Flag = False
    """Whether a signed cookie counts as well. It permits GET and HEAD of all paths below a folder, such as a whole HLS
    or DASH tree."""


class JwtSettings(Section):
    """JSON Web Tokens of an identity provider, sent as `Authorization: Bearer …` (RFC 7519, RFC 9068)."""

    jwks: Url = Field(examples=["https://id.example.com/keys"])
    """Where the provider publishes its keys (RFC 7517). They are fetched at the first use, once an hour, and for an
    unknown key id. The last keys are kept while the provider fails."""
    issuer: str = Field(examples=["https://id.example.com"])
    """The value that the claim `iss` must have."""
    audience: str = Field(examples=["media"])
    """A value that the claim `aud` must have."""
    clock_skew: Duration = 60.0
    """How much the provider's clock may differ from ours."""
    prefix_claim: str | None = Field(default=None, examples=["prefix"])
    """A claim with a prefix of S3 keys, or a list of them, that the client may use. Without the claim, a token permits
    nothing."""
    methods_claim: str | None = Field(default=None, examples=["methods"])
    """A claim with a list of methods that the client may use. `GET` includes `HEAD`. Without the claim, a token permits
    nothing."""


class ForwardSettings(Section):
    """Your app decides: each request is first described to it in a GET (as nginx's `auth_request`).

    The GET has the client's `Authorization`, `Cookie` and `User-Agent`, and `X-Forwarded-Method`, `X-Forwarded-Uri`,
    `X-Forwarded-Host` and `X-Forwarded-For`. A 2xx permits the request, 401 and 403 refuse it. Anything else is a
    failure, and the client gets 503.
    """

    url: Url = Field(examples=["http://127.0.0.1:3000/may"])
    """Where bucketfront sends that GET."""
    remember: Duration = 0.0
    """How long a decision holds for further requests that agree in all that the GET has: method, URI, host, the three
    fields and the client's address. A failure is not remembered."""
    timeout: Annotated[Duration, Field(gt=0)] = 5.0
    """How long the app may take."""


Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1)]  # an empty list would permit all certificates
Fingerprints = Annotated[tuple[Fingerprint, ...], Field(min_length=1)]


class ClientCertificateSettings(Section):
    """Certificates of clients, which `server.tls.client_ca` has issued. `{}` stands for all of them.

    The certificate must fit each key that is given. In patterns `*` stands for any text without a slash, and `**` for
    any text.
    """

    common_names: Patterns | None = Field(default=None, examples=["[device-*]"])
    """Patterns for the common name of the subject."""
    dns_names: Patterns | None = Field(default=None, examples=['["*.devices.example.com"]'])
    """Patterns for a DNS name (SAN)."""
    uris: Patterns | None = Field(default=None, examples=['["spiffe://example.com/media/**"]'])
    """Patterns for a URI (SAN)."""
    fingerprints: Fingerprints | None = Field(default=None, examples=[f'["{"ab" * 32}"]'])
    """SHA-256 of certificates, as `openssl x509 -noout -fingerprint -sha256` prints it, with or without colons."""


class AccessRule(Section):
    """A way to let clients in. Each rule has exactly one of these keys.

    A mount names the rules of which one must hold, in `mounts[].read` and `mounts[].write`.
    """

    bearer: BearerSettings | None = None
    """Tokens in `Authorization: Bearer …`."""
    basic: BasicSettings | None = None
    """Users with passwords."""
    signed_url: SignedUrlSettings | None = None
    """URLs and cookies that an app or `bucketfront sign` made."""
    jwt: JwtSettings | None = None
    """Tokens of an identity provider."""
    networks: tuple[Network, ...] | None = Field(default=None, examples=["[10.0.0.0/8, fd00::/8]"])
    """Addresses of clients. Behind a front, set `server.trusted_proxies`, or all clients have the front's address."""
    forward: ForwardSettings | None = None
    """A request to your app."""
    client_certificate: ClientCertificateSettings | None = None
    """Certificates of clients. It needs `server.tls.client_ca`."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            kinds = ", ".join(type(self).model_fields)
            raise ValueError(
                f"must have exactly one of {kinds}" + (f", and has {' and '.join(given)}" if given else "")
            )
        return self
