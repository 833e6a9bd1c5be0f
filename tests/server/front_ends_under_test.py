"""A proxy with two front ends, as the fixture `two` and `start_two` start it."""

from proxy_under_test import Proxy

WORKERS = 2


def front_ends(proxy: Proxy) -> list[int]:
    """Return the process ids of the front ends."""
    assert proxy.app.front_ends is not None
    return proxy.app.front_ends.processes


async def warm(proxy: Proxy, *targets: str) -> None:
    """Have the objects in the cache, whole."""
    for target in targets:
        assert (await proxy.get(target)).status == 200
    await proxy.settled()
