"""Requests to the admin port of the running proxy."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bucketfront.cli.failure import fail

if TYPE_CHECKING:
    import ssl

    from bucketfront.config.settings import Settings


TIMEOUT_S = 30.0


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
    import urllib.error
    import urllib.request

    from bucketfront.config.listen_host import in_url, reachable

    admin = settings.admin
    scheme = "http" if admin.tls is None else "https"
    url = f"{scheme}://{in_url(reachable(admin.host), admin.port)}{path}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, method=method, data=content)  # noqa: S310 - http or https
    request.add_header("Content-Type", "application/json")
    if admin.token is not None:
        request.add_header("Authorization", f"Bearer {admin.token.get_secret_value()}")
    try:
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if admin.tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=_trusting(admin.tls.certificate)))
        opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=timeout) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except urllib.error.HTTPError as error:
        if error.code in refusals:
            refusal: dict[str, Any] = json.load(error)
            return refusal
        fail(f"{url} answered {error.code}: {error.read(500).decode(errors='replace').strip()}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        fail(f"no answer from {url}: {reason}. Is the proxy running with this configuration?")


def _trusting(certificate: Path) -> "ssl.SSLContext":
    """Return a client's context that trusts one certificate, whatever its names. Raises OSError."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cafile=certificate)
    return context
