"""Puts the node of the fleet together, if the settings name a bus."""

import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bucketfront.cache import CacheAssembly
from bucketfront.config.bus_settings import BusSettings
from bucketfront.errors import UnusableSetting
from bucketfront.fleet.fleet import Fleet
from bucketfront.fleet.node_file import NodeFile

if TYPE_CHECKING:
    from bucketfront.fleet.bus import Bus

CURE = "the bus needs the client of Redis: pip install 'bucketfront[bus]', or leave the section out"


def check_installed() -> None:
    """Raise UnusableSetting if the extra is not installed."""
    if find_spec("redis") is None:
        raise UnusableSetting(CURE, ("bus",))


def connect(settings: BusSettings) -> "Bus":
    """Return the bus of the settings, which connects at its first call. Raises UnusableSetting."""
    check_installed()
    # Here, because a start without a bus imports nothing of the client, which may not be installed.
    from bucketfront.fleet.redis_bus import RedisBus  # noqa: PLC0415

    return RedisBus(settings)


def open_fleet(settings: BusSettings, assembly: CacheAssembly, port: int | None) -> Fleet:
    """Return the node of this proxy, which is to be started. Raises UnusableSetting.

    `port` is that of the listener for clients.
    """
    name = settings.node or (socket.gethostname() if port is None else f"{socket.gethostname()}:{port}")
    folder = assembly.store.folder
    return Fleet(
        connect(settings), assembly.cache, NodeFile(lambda: folder.fd), name, settings.ttl_when_lost, assembly.clock
    )
