"""Where the listener for clients is to be, and the options of its connections, in whichever process they are."""

import logging
from pathlib import Path
from typing import Any

from bucketfront.config.listener_settings import ListenerSettings, ServerSettings
from bucketfront.server.http1.binding import TcpPlace
from bucketfront.server.http1.connection import BODY_BUFFER_BYTES, MAX_FIELD_BYTES, MAX_FIELDS, MAX_TARGET_BYTES
from bucketfront.server.http1.listen_sockets import ListenPlace
from bucketfront.server.http1.listener import ListenSite
from bucketfront.server.http1.passed_sockets import PassedPlace, PassedSockets
from bucketfront.server.http1.proxy_headers import ProxyHeaders
from bucketfront.server.http1.server_tls import ServerTls
from bucketfront.server.http1.unix_socket import UnixPlace

DRAIN_TIMEOUT_S = 25.0  # for running requests to end at a stop; orchestrators kill a process after 30 s
KEEP_ALIVE_TIMEOUT_S = 75.0  # between two requests of a connection; longer than the 60 s of common load balancers

log = logging.getLogger(__name__)


def connection_options() -> dict[str, Any]:
    """Return the options of aiohttp's connections, for the listeners of all processes."""
    return {
        "handler_cancellation": True,  # a client that leaves frees at once what its read waited for
        "access_log": None,
        "read_bufsize": BODY_BUFFER_BYTES,
        "auto_decompress": False,  # a body is stored as it was sent
        "keepalive_timeout": KEEP_ALIVE_TIMEOUT_S,
        "max_line_size": MAX_TARGET_BYTES,
        "max_field_size": MAX_FIELD_BYTES,
        "max_headers": MAX_FIELDS,
    }


def client_sites(settings: ServerSettings, passed: PassedSockets, headers: ProxyHeaders) -> list[ListenSite]:
    """Return where the listener for clients is to be. Raises UnusableSetting for a certificate that is of no use."""
    if unused := passed.by_name.keys() - {one.systemd for one in settings.listeners}:
        log.warning(
            "systemd has passed %s, which no listener of server.listeners names: clients wait there in vain",
            ", ".join(sorted(unused)),
        )
    shared = None if settings.tls is None else ServerTls(settings.tls, ("server", "tls"))
    found = []
    if (place := first_place(settings)) is not None:
        found.append(ListenSite(place, shared, headers=headers if settings.proxy_protocol else None))
    for number, one in enumerate(settings.listeners):
        own = None if one.tls is None else ServerTls(one.tls, ("server", "listeners", number, "tls"))
        found.append(
            ListenSite(
                place_of(one, number, passed),
                None if one.plain else own or shared,
                has_tls_on_unix=own is not None,
                headers=headers if one.proxy_protocol else None,
            )
        )
    return found


def first_place(settings: ServerSettings) -> TcpPlace | None:
    """Return the place of the first listener for clients. Returns None if the settings leave it out."""
    return None if settings.port is None else TcpPlace(settings.host, settings.port, "server")


def place_of(settings: ListenerSettings, number: int, passed: PassedSockets) -> ListenPlace:
    """Return the place of a further listener. `number` is its position in `server.listeners`."""
    if settings.unix is not None:
        mode = int(settings.mode, 8)
        return UnixPlace(Path(settings.unix), mode, settings.owner, settings.group, number)
    if settings.systemd is not None:
        return PassedPlace(settings.systemd, passed, number)
    assert settings.host is not None
    assert settings.port is not None
    return TcpPlace(settings.host, settings.port, "server", number=number)
