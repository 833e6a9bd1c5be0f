"""Requests to the admin port of the running proxy."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bucketfront.cli.failure import fail
from bucketfront.errors import AdminFailed, AdminRefused

if TYPE_CHECKING:
    import ssl
    import urllib.request
    from http.client import HTTPResponse

    from bucketfront.config.settings import Settings

TIMEOUT_S = 30.0  # without a byte
MAX_REFUSAL_BYTES = 1 << 20

_MAX_PROBE_BYTES = 4096  # `/readyz` has a line for each kind of failure


def call_admin(
    settings: "Settings",
    method: str,
    path: str,
    body: object = None,
    refusals: Collection[int] = (),
    timeout: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Send one request to the admin port of the proxy that runs with these settings, and return the response.

    It may take `timeout` seconds. One of another status than 200 ends the command, unless `refusals` has the status.
    """
    from http.client import HTTPException

    try:
        with open_admin(settings, method, path, body, timeout) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except AdminRefused as error:
        if error.status in refusals:
            refusal: dict[str, Any] = json.loads(error.body)
            return refusal
        fail(str(error))
    except AdminFailed as error:
        fail(str(error))
    except (OSError, ValueError, HTTPException) as error:
        fail(f"the response to {path} broke off: {error}")


def open_admin(
    settings: "Settings", method: str, path: str, body: object = None, timeout: float = TIMEOUT_S
) -> "HTTPResponse":
    """Return the response to one request, to be read and closed. Raises AdminRefused, AdminFailed."""
    content = None if body is None else json.dumps(body).encode()
    return send_admin(settings, method, path, content, "application/json", timeout)


def send_admin(
    settings: "Settings", method: str, path: str, content: bytes | Iterable[bytes] | None, media: str, timeout: float
) -> "HTTPResponse":
    """Return the response to a request with that body of the type `media`. Raises AdminRefused, AdminFailed."""
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    url = f"{_address(settings)}{path}"
    request = urllib.request.Request(url, method=method, data=content)  # noqa: S310 - http or https
    request.add_header("Content-Type", media)
    token = settings.admin.token
    if token is not None:
        request.add_header("Authorization", f"Bearer {token.get_secret_value()}")
    try:
        response: HTTPResponse = _opener(settings).open(request, timeout=timeout)
        return response
    except urllib.error.HTTPError as error:
        raise AdminRefused(url, error.code, error.read(MAX_REFUSAL_BYTES)) from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise AdminFailed(f"no answer from {url}: {reason}. Is the proxy running with this configuration?") from error


def probe(settings: "Settings", path: str, timeout_s: float) -> tuple[bool, str]:
    """Return whether the probe at `path` succeeds, and its text or the reason why there is none. Sends no token."""
    import http.client
    import urllib.error

    url = f"{_address(settings)}{path}"
    try:
        with _opener(settings).open(url, timeout=timeout_s) as response:
            return True, _text(response.read(_MAX_PROBE_BYTES))
    except urllib.error.HTTPError as error:
        return False, f"{url} answered {error.code}: {_text(error.read(_MAX_PROBE_BYTES))}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"no answer from {url}: {getattr(error, 'reason', error)}"


def _text(content: bytes) -> str:
    return content.decode(errors="replace").strip()


def _address(settings: "Settings") -> str:
    """Return the URL of the admin port."""
    from bucketfront.config.listen_host import in_url, reachable

    admin = settings.admin
    if admin.port == 0:
        fail("admin.port is 0, so its number is known only to the proxy: set a port, or BUCKETFRONT_ADMIN__PORT")
    scheme = "http" if admin.tls is None else "https"
    return f"{scheme}://{in_url(reachable(admin.host), admin.port)}"


def _opener(settings: "Settings") -> "urllib.request.OpenerDirector":
    """Return what opens URLs of the admin port: past all proxies of the environment, and by its own certificate."""
    import urllib.request

    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if settings.admin.tls is not None:
        handlers.append(urllib.request.HTTPSHandler(context=_trusting(settings.admin.tls.certificate)))
    return urllib.request.build_opener(*handlers)


def _trusting(certificate: Path) -> "ssl.SSLContext":
    """Return a client's context that trusts one certificate, whatever its names. Raises OSError."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cafile=certificate)
    return context
