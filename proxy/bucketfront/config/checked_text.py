"""The types of text in the configuration, each with the check that gives it its meaning.

The string in each `Annotated` names the type in docs/configuration.md.
A check returns the text, normalised where a setting has more than one spelling. It raises ValueError with the
fix, and quotes no value, because a value may be a secret (docs/invariants.md#secrets-stay-in).
"""

import os
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from bucketfront.config.bucket_name import bucket_name
from bucketfront.config.listen_host import normalised
from bucketfront.config.pem_file import certificate_problem
from bucketfront.http.grammar import is_field_value, is_token
from bucketfront.http.key_template import KeyTemplate
from bucketfront.http.response_fields import USER_METADATA_PREFIX

MAX_PREFIX_BYTES = 1024  # the length of S3's longest key
MIN_TOKEN_CHARS = 16  # as many hex digits have 64 bits, which nobody guesses over a network
MAX_FIELD_NAME_CHARS = 128  # every registered name is shorter

# Headers that describe the message, its bytes or the cache itself. A rule that sets one makes responses wrong.
_RESERVED = frozenset(
    {"accept-ranges", "age", "cache-status", "connection", "content-encoding", "content-length", "content-range",
     "date", "etag", "keep-alive", "last-modified", "server-timing", "te", "trailer", "transfer-encoding", "upgrade",
     "via"}
)  # fmt: skip
_ACCEPT_ENCODING = re.compile(r"[a-z0-9-]{1,20}(?:, ?[a-z0-9-]{1,20}){0,9}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ORIGIN = re.compile(r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#@]+")  # RFC 6454 section 6.2
_VISIBLE = re.compile(r"[\x21-\x7e]+")
# RFC 1123 section 2.1. The AWS SDK takes no other name of an endpoint.
_HOST_NAME = re.compile(r"(?:(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9-]{1,63}(?<!-)\.?")


def _host_name(name: str) -> str:
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("must be a host name without scheme, port and path, for example media.example.com")
    return name.lower().removesuffix(".")


def _not_empty(text: str) -> str:
    if not text or _CONTROL.search(text):
        raise ValueError("must be text without control characters, and not empty")
    return text


def _secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text:
        raise ValueError("must not be empty")
    if _CONTROL.search(text):
        raise ValueError("must not have line breaks or other control characters")
    return secret


def _folder(path: object) -> object:
    if path == "" or (isinstance(path, str) and "\0" in path):
        raise ValueError("must be the path of a folder")
    if isinstance(path, str | os.PathLike) and os.path.isfile(path):  # noqa: PTH113 - pathlib's raises for a folder of others
        raise ValueError("must be a folder, and it is a file")
    return path


def _certificate_file(path: Path) -> Path:
    if problem := certificate_problem(path):
        raise ValueError(f"must be a PEM file with certificates of authorities, and it {problem}")
    return path


def _token(token: SecretStr) -> SecretStr:
    if not _VISIBLE.fullmatch(token.get_secret_value()):
        raise ValueError("must be visible ASCII without spaces, and not empty: it travels in a header")
    return token


def _bearer_token(token: SecretStr) -> SecretStr:
    if len(_token(token).get_secret_value()) < MIN_TOKEN_CHARS:
        raise ValueError(f"must have at least {MIN_TOKEN_CHARS} characters: `openssl rand -hex 16` makes a good one")
    return token


def _url_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must start with '/'")
    if re.search(r"[?#]|%[0-9A-Fa-f]{2}", path) or _CONTROL.search(path):
        raise ValueError("must be a decoded path: no '?', '#', percent-escape or control character")
    return path


def _mount_path(path: str) -> str:
    path = _url_path(path)
    return path if path.endswith("/") else path + "/"


def _upload_path(path: str) -> str:
    path = _url_path(path).rstrip("/")
    if not path:
        raise ValueError("must name a route of its own, for example /upload")
    return path


def _prefix(prefix: str) -> str:
    if prefix.startswith("/"):
        raise ValueError("must not start with '/': S3 keys do not; leave the slash out")
    if len(prefix.encode("utf-8", "surrogatepass")) >= MAX_PREFIX_BYTES:
        raise ValueError(f"must be shorter than {MAX_PREFIX_BYTES} bytes")
    if "\0" in prefix:
        raise ValueError("must not hold a NUL")
    return prefix


def _endpoint(url: str) -> str:
    if url == "embedded":
        return url
    wanted = "must be null, embedded, or an http:// or https:// URL"
    if re.search(r"[\s\\]", url) or _CONTROL.search(url):
        raise ValueError(wanted)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(wanted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(wanted)
    if "@" in parts.netloc:
        raise ValueError("must not hold credentials: they belong into origin.credentials")
    if ":" not in parts.hostname and not _HOST_NAME.fullmatch(parts.hostname):
        raise ValueError(
            "must have a host of letters, digits, '-' and '.': write a name with other letters in its form with xn--"
        )
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise ValueError("must not have a path, a query or a fragment: scheme, host and port only")
    return url.removesuffix("/")


def _account_id(account: str) -> str:
    if not re.fullmatch(r"[0-9]{12}", account):
        raise ValueError("must be the 12 digits of an AWS account, in quotes")
    return account


def _web_origin(origin: str) -> str:
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("must be '*' or an origin like https://app.example.com, without a path")
    return origin


def _field_name(name: str) -> str:
    if not is_token(name) or len(name) > MAX_FIELD_NAME_CHARS:
        raise ValueError("must be the name of an HTTP field")
    return name


def _tag_header(name: str) -> str:
    lower = _field_name(name).lower()
    if lower not in ("cache-tag", "surrogate-key") and not lower.startswith(USER_METADATA_PREFIX):
        raise ValueError("must be Cache-Tag, Surrogate-Key, or the name of a header that begins with x-amz-meta-")
    return name


def _rule_field(name: str) -> str:
    if _field_name(name).lower() in _RESERVED:
        raise ValueError("is not for a rule to set: it follows from the bytes, the cache or the connection")
    if name.lower() == "cache-control":
        raise ValueError("has a key of its own: cache_control, beside headers")
    return name


def _accept_encoding(value: str) -> str:
    if not _ACCEPT_ENCODING.fullmatch(value):
        raise ValueError("must be content codings, as in Accept-Encoding: identity, or for example 'gzip, br'")
    return value


def _field_value(value: str) -> str:
    if not is_field_value(value):
        raise ValueError("must be printable ASCII, without spaces at its ends")
    return value


def _media_type(name: str) -> str:
    kind, _, subtype = name.partition("/")
    if not (is_token(kind) and is_token(subtype)) or (kind == "*" and subtype != "*"):
        raise ValueError("must be a media type without parameters, for example image/svg+xml, text/* or */*")
    return name.lower()


def _document(name: str) -> str:
    if name.startswith("/") or _CONTROL.search(name) or not name:
        raise ValueError("must be a name below the mount, without '/' before it: index.html")
    return name


def _extension(extension: str) -> str:
    if not re.fullmatch(r"\.[A-Za-z0-9_.-]{1,32}", extension):
        raise ValueError("must begin with '.', for example .html")
    return extension


def _error_status(status: str) -> str:
    if not re.fullmatch(r"4(?:0[034]|16)|50[0-4]", status):
        raise ValueError("must be 400, 403, 404, 416, or 500 to 504")
    return status


def _key_template(text: str) -> str:
    return KeyTemplate(text).text  # its BadTemplate is a ValueError with the fix


# Types that occur only in lists have their name in the plural.
HostName = Annotated[str, "host names", AfterValidator(_host_name)]
Host = Annotated[str, "address or host name", AfterValidator(normalised)]
Text = Annotated[str, "text", AfterValidator(_not_empty)]
Secret = Annotated[SecretStr, "secret", AfterValidator(_secret)]
Folder = Annotated[Path, "path", BeforeValidator(_folder)]
CertificateFile = Annotated[Path, "path", AfterValidator(_certificate_file)]
Token = Annotated[SecretStr, "secret", AfterValidator(_token)]
BearerToken = Annotated[SecretStr, "secret", AfterValidator(_bearer_token)]
MountPath = Annotated[str, "URL path", AfterValidator(_mount_path)]
UploadPath = Annotated[str, "URL path", AfterValidator(_upload_path)]
Bucket = Annotated[str, "bucket name or ARN", AfterValidator(bucket_name)]
KeyPrefix = Annotated[str, "text", AfterValidator(_prefix)]
Endpoint = Annotated[str, "URL or `embedded`", AfterValidator(_endpoint)]
AccountId = Annotated[str, "12 digits", AfterValidator(_account_id)]
WebOrigin = Annotated[str, "web origins or `*`", AfterValidator(_web_origin)]
FieldName = Annotated[str, "header names or `*`", AfterValidator(_field_name)]
TagHeader = Annotated[str, "header names", AfterValidator(_tag_header)]
RuleField = Annotated[str, "header name", AfterValidator(_rule_field)]
AcceptEncoding = Annotated[str, "content codings", AfterValidator(_accept_encoding)]
FieldValue = Annotated[str, "header value", AfterValidator(_field_value)]
MediaType = Annotated[str, "media types", AfterValidator(_media_type)]
Document = Annotated[str, "object name", AfterValidator(_document)]
Extension = Annotated[str, "extensions", AfterValidator(_extension)]
ErrorStatus = Annotated[str, "status", AfterValidator(_error_status)]
KeyTemplateText = Annotated[str, "template", AfterValidator(_key_template)]
