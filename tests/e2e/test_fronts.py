"""Fronts that name the client by a PROXY header, or that reach bucketfront by a Unix socket."""

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bucketfront_process import bucketfront
from case import Case
from certificates import localhost_certificate
from edge_servers import NGINX_MODULES, Edge, running
from fakes import object_bytes
from programs import installed, run
from site_under_test import MOUNTS, TIMEOUT_S, Origin, Site

SIZE = 3 << 20
CLIENT = "127.0.0.5"

_LISTENERS = """
  proxy_protocol: true
  trusted_proxies: [127.0.0.1, unix]
  listeners:
    - {{unix: {unix}/http.sock}}
    - {{unix: {unix}/proxy.sock, proxy_protocol: true}}
"""


@contextlib.contextmanager
def behind(
    name: str, origin: Origin, folder: Path, factory: pytest.TempPathFactory
) -> Iterator[tuple[Edge | None, Site, Path]]:
    """Run a bucketfront that expects PROXY headers, behind the front of that name if there is one.

    Its Unix sockets are in the folder that is yielded.
    """
    sockets = factory.mktemp("front")
    listeners = _LISTENERS.format(unix=sockets)
    config = origin.configuration(folder, MOUNTS).replace("server: {port: 0}\n", f"server:\n  port: 0{listeners}")
    with bucketfront(config, folder) as proxy, contextlib.ExitStack() as stack:
        edge = None
        if name:
            edge = stack.enter_context(
                running(name, proxy.url, sockets, localhost_certificate(factory.mktemp("certificate")))
            )
        site = Site(origin, proxy, "fronts")
        site.store("file", object_bytes(SIZE))
        yield edge, site, sockets
        assert "Traceback" not in proxy.printed(), proxy.printed()
        assert "PROXY header" not in proxy.printed(), proxy.printed()


def fetched(url: str, site: Site, name: str) -> tuple[int, bytes]:
    """Send a GET from the address CLIENT. Return status and body."""
    target = urlsplit(f"{url}/{site.folder}/{name}")
    connection = http.client.HTTPConnection(target.netloc, timeout=TIMEOUT_S, source_address=(CLIENT, 0))
    with contextlib.closing(connection):
        connection.request("GET", target.path)
        response = connection.getresponse()
        return response.status, response.read()


def clients(site: Site) -> list[str]:
    """Return the clients of the requests for objects of the site, once bucketfront has stopped."""
    lines = [json.loads(line) for line in (site.running.log.parent / "access.log").read_text().splitlines()]
    return [line["client"] for line in lines if line["path"].startswith(f"/{site.folder}/")]


@pytest.mark.parametrize("name", ["HAProxy, mode tcp", "nginx, stream"])
def test_the_client_is_named(
    name: str, origin: Origin, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, case: Case
) -> None:
    """The log has the client behind HAProxy with versions 1 and 2, nginx with 1, and nginx by a Unix socket."""
    if name == "nginx, stream" and not (NGINX_MODULES / "ngx_stream_module.so").exists():
        pytest.skip("not run: nginx has no stream module (Debian's package libnginx-mod-stream)")
    with behind(name, origin, tmp_path, tmp_path_factory) as (edge, own, _):
        assert edge is not None
        case.of(edge.program, "names its clients by PROXY headers, and by a field through a Unix socket")
        for url in (edge.url, edge.tls_url):
            assert fetched(url, own, "file") == (200, object_bytes(SIZE))
            assert fetched(url, own, "none")[0] == 404
        case.count(own)
        assert own.origin_bytes() == SIZE
    assert clients(own) == [CLIENT] * 4


def test_curl(origin: Origin, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    """Curl reaches a Unix socket, and begins a connection with a PROXY header of its own."""
    curl = installed("curl")
    case.of(curl, "reaches a Unix socket, with and without a PROXY header")
    with behind("", origin, tmp_path, tmp_path_factory) as (_, own, sockets):
        for name, more in (("http.sock", ()), ("proxy.sock", ("--haproxy-protocol",))):
            url = f"http://localhost/{own.folder}/file"
            found = run(curl.path, "-sSf", "--unix-socket", sockets / name, *more, url, folder=tmp_path)
            assert found.stdout == object_bytes(SIZE)
        case.count(own)
        assert own.origin_bytes() == SIZE
    assert len(clients(own)) == 2
