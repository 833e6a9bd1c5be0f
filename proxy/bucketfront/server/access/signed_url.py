r"""The rule of signed URLs and signed cookies, and how they are made.

A signed URL is the plain one with `bf_key=ID&bf_expires=UNIXTIME&bf_sig=S` in its query. S is the base64url, without
padding, of the HMAC-SHA256 over `METHOD\nPATH\nUNIXTIME`, and `\nNETWORK` if the query has `bf_net=NETWORK`. PATH is
the path as it is sent. A signature for GET holds for HEAD.

A signed cookie `bf_access` has the same parameters, joined in the same way, and `bf_path`, a folder. In its signature
METHOD is `TREE`, which is no method, so that no URL's signature is one of a cookie.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from bucketfront.config.access_settings import SignedUrlSettings, checked_signing_key
from bucketfront.config.secret_file import SecretFile
from bucketfront.server.access.rule import AccessRequest, Address, Denial, Grant, RuleVerdict, Scope
from bucketfront.server.access.watched_file import WatchedFile

KEY, EXPIRES, SIGNATURE, NETWORK, PATH = "bf_key", "bf_expires", "bf_sig", "bf_net", "bf_path"
COOKIE = "bf_access"
TREE = "TREE"

_DIGITS = re.compile(r"[0-9]{1,12}")
_URL_PATH = "/%:@!$&'()*+,;=-._~"  # RFC 3986 section 3.3, with the percent sign of what is encoded already
_SKEW_S = 60.0  # between the clock of the signer and ours
_MAX_COOKIE_CHARS = 4096
# Parameters that change a response, which the signature does not cover.
_UNSIGNED = re.compile(r"versionId|response-.*")


@dataclass(frozen=True, slots=True)
class Permission:
    """What a signature covers. `expires` is in seconds since the epoch, and `network` is empty for any client."""

    method: str
    path: str
    expires: int
    network: str = ""

    def signature(self, secret: str) -> str:
        """Return the signature with a key."""
        parts = (self.method, self.path, str(self.expires), *((self.network,) if self.network else ()))
        message = "\n".join(parts).encode("utf-8", "surrogateescape")
        digest = hmac.digest(secret.encode(), message, hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def parameters(self, key_id: str, secret: str) -> dict[str, str]:
        """Return the query parameters of a URL with this permission."""
        named = {KEY: key_id, EXPIRES: str(self.expires), SIGNATURE: self.signature(secret)}
        return {**named, NETWORK: self.network} if self.network else named


def url_path(text: str) -> str:
    """Return a path as it is sent: what a URL cannot have is percent-encoded."""
    return quote(text, safe=_URL_PATH)


def signed_url(permission: Permission, key_id: str, secret: str) -> str:
    """Return the signed path with its query. `permission.path` is as it is sent."""
    return f"{permission.path}?{urlencode(permission.parameters(key_id, secret))}"


def signed_cookie(permission: Permission, key_id: str, secret: str) -> str:
    """Return the value of a cookie that permits GET and HEAD below a folder. Its name is COOKIE."""
    tree = replace(permission, method=TREE)
    return urlencode({PATH: tree.path, **tree.parameters(key_id, secret)})


class SignedUrlRule:
    """Holds for requests whose URL is signed, and with `cookies` for those with a signed cookie.

    `elapsed` is a clock in seconds.
    """

    scope = Scope.PATH
    challenge = None

    def __init__(self, settings: SignedUrlSettings, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._keys = {name: secret.get_secret_value() for name, secret in settings.keys.items()}
        self._files = {
            name: WatchedFile(secret.path, _read, secret.get_secret_value(), elapsed)
            for name, secret in settings.keys.items()
            if isinstance(secret, SecretFile)
        }
        self._max_age = settings.max_age
        self._takes_cookies = settings.cookies

    async def examine(self, request: AccessRequest) -> RuleVerdict:
        given = dict(parse_qsl(request.query, keep_blank_values=True))
        unsigned = next((name for name in given if _UNSIGNED.fullmatch(name)), None)
        if unsigned is not None:
            return Denial(f"the signature does not cover ?{unsigned}")
        for name, file in self._files.items():
            self._keys[name] = await file.content()
        if KEY in given:
            return self._examine_url(request, given)
        if self._takes_cookies:
            return self._examine_cookies(request)
        return Denial()

    async def close(self) -> None:
        for file in self._files.values():
            await file.close()

    def _examine_url(self, request: AccessRequest, given: Mapping[str, str]) -> RuleVerdict:
        methods = ("GET", "HEAD") if request.method == "HEAD" else (request.method,)
        return self._verdict(request, given, [(method, request.path) for method in methods])

    def _examine_cookies(self, request: AccessRequest) -> RuleVerdict:
        verdict: RuleVerdict = Denial()
        for value in _cookies(request.field("cookie")):
            given = dict(parse_qsl(value, keep_blank_values=True))
            folder = given.get(PATH, "")
            is_below = folder.endswith("/") and request.path.startswith(folder) and not _leads_out(request.path)
            if not is_below or request.method not in ("GET", "HEAD"):
                verdict = Denial("the cookie is for another path")
                continue
            verdict = self._verdict(request, given, [(TREE, folder)])
            if isinstance(verdict, Grant):
                return verdict
        return verdict

    def _verdict(self, request: AccessRequest, given: Mapping[str, str], covered: list[tuple[str, str]]) -> RuleVerdict:
        """Return the verdict on the parameters of a URL or cookie, for methods and paths that may be signed."""
        secret, expires = self._keys.get(given.get(KEY, "")), given.get(EXPIRES, "")
        network = given.get(NETWORK, "")
        if not _DIGITS.fullmatch(expires):
            return Denial("the signature is not valid")
        # An unknown key costs the same time as a known one.
        permissions = [Permission(method, path, int(expires), network) for method, path in covered]
        signature = given.get(SIGNATURE, "").encode("utf-8", "surrogateescape")
        fits = [
            hmac.compare_digest(permission.signature(secret or "none").encode(), signature)
            for permission in permissions
        ]
        if secret is None or not any(fits):
            return Denial("the signature is not valid")
        if int(expires) < request.now:
            return Denial("the signature has expired")
        if int(expires) > request.now + self._max_age + _SKEW_S:
            return Denial("the signature is valid for longer than signed_url.max_age")
        if network and not _is_within(request.address, network):
            return Denial("the signature is for another network")
        return Grant(Scope.PATH)


def _read(path: Path) -> str:
    """Return the key in a file. Raises ValueError."""
    return checked_signing_key(SecretFile.read(path)).get_secret_value()


def _leads_out(path: str) -> bool:
    """Return whether a path has a dot segment, once it is decoded (RFC 3986 section 5.2.4)."""
    return not {".", ".."}.isdisjoint(unquote(path).split("/"))


def _cookies(field: str | None) -> list[str]:
    """Return the values of all cookies with the name COOKIE. A browser sends one for each folder."""
    values = []
    for pair in (field or "")[: 4 * _MAX_COOKIE_CHARS].split(";"):
        name, _, value = pair.strip(" ,").partition("=")
        if name == COOKIE and len(value) <= _MAX_COOKIE_CHARS:
            values.append(value.strip('"'))
    return values


def _is_within(address: Address | None, network: str) -> bool:
    try:
        return address is not None and address in ipaddress.ip_network(network)
    except ValueError:
        return False
