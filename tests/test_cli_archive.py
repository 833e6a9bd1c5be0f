"""`bucketfront export --with-bytes` and `import` of it, between proxies in processes of their own."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from bucketfront_process import ROOT, Running, bucketfront
from command_line import MODULE, environment_of_process
from stopwatch import HANG_S

from bucketfront.config.origin_settings import OriginSettings
from bucketfront.warm import archive

CONFIG = """\
server: {{port: 0, workers: 1}}
admin: {{port: 0, token: 0123456789abcdef}}
origin:
  endpoint_url: {endpoint}
  addressing_style: path
  credentials: {{access_key_id: any, secret_access_key: any}}
mounts: [{{path: /, bucket: archives}}]
cache: {{dir: {folder}/cache, max_size: {size}, min_free: 0}}
access_log: {{path: {folder}/access.log}}
"""
OBJECTS = {f"o{number}": os.urandom(3 << 20) for number in range(8)} | {"small": b"data"}


@dataclass(frozen=True, slots=True)
class Host:
    """A proxy, and the commands for it."""

    running: Running
    folder: Path

    def start(self, *arguments: str | Path, **options: Any) -> "subprocess.Popen[bytes]":
        name, *others = (str(argument) for argument in arguments)
        port = self.running.admin_url.rpartition(":")[2]
        return subprocess.Popen(
            [*MODULE, name, "-c", str(self.folder / "proxy.yaml"), *others], cwd=ROOT,
            env=environment_of_process(BUCKETFRONT_ADMIN__PORT=port), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            **options,
        )  # fmt: skip

    def run(self, *arguments: str | Path) -> tuple[int, str]:
        """Return the exit status of a command, and all that it has printed."""
        return ended(self.start(*arguments, stdin=subprocess.DEVNULL))

    def get(self, path: str) -> tuple[bytes, str]:
        """Return a body, and its Cache-Status."""
        with urlopen(f"{self.running.url}{path}", timeout=HANG_S) as response:
            return response.read(), response.headers["Cache-Status"]

    def fill(self) -> None:
        for name in OBJECTS:
            self.get(f"/{name}")

    def assert_all_right(self) -> None:
        assert {name: self.get(f"/{name}")[0] for name in OBJECTS} == OBJECTS

    @property
    def received(self) -> int:
        """Return the bytes of objects that came from S3."""
        status, printed = self.run("stats", "--json")
        assert status == 0, printed
        return int(json.loads(printed)["summary"]["total"]["origin_bytes"])


def ended(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    output, errors = process.communicate(timeout=HANG_S)
    return process.returncode, (output + errors).decode(errors="replace")


StartHost = Callable[..., Host]


@pytest.fixture(scope="module")
def endpoint(moto_s3: OriginSettings, client_of: Callable[[OriginSettings], Any]) -> str:
    client = client_of(moto_s3)
    client.create_bucket(Bucket="archives")
    for name, body in OBJECTS.items():
        client.put_object(Bucket="archives", Key=name, Body=body, CacheControl="max-age=99999")
    return str(moto_s3.endpoint_url)


@pytest.fixture(scope="module")
def old(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A proxy that holds all objects."""
    folder = tmp_path_factory.mktemp("old")
    with bucketfront(CONFIG.format(endpoint=endpoint, folder=folder, size="256MiB"), folder) as running:
        host = Host(running, folder)
        host.fill()
        yield host


@pytest.fixture
def new_config(endpoint: str, tmp_path: Path) -> str:
    return CONFIG.format(endpoint=endpoint, folder=tmp_path, size="256MiB")


@pytest.fixture
def new(new_config: str, tmp_path: Path) -> Iterator[Host]:
    """A proxy with an empty cache."""
    with bucketfront(new_config, tmp_path) as running:
        yield Host(running, tmp_path)


def test_by_a_file_and_by_a_pipe(old: Host, new: Host, tmp_path: Path) -> None:
    """The new host is warm after an import, and S3 has sent it no byte of an object. A repetition costs nothing."""
    file = tmp_path / "hot.tar"
    status, printed = old.run("export", file, "--with-bytes")
    assert (status, f"{len(OBJECTS)} objects" in printed) == (0, True), printed
    assert subprocess.run(["tar", "-tf", file], capture_output=True, check=True).stdout.endswith(b"end.json\n")
    status, printed = new.run("import", file)
    assert (status, f"{len(OBJECTS)} imported" in printed) == (0, True), printed
    new.assert_all_right()
    assert all("; hit" in new.get(f"/{name}")[1] for name in OBJECTS)
    assert new.received == 0
    exporting = old.start("export", "-", "--with-bytes", "--limit", "10MiB", "--json")
    status, printed = ended(new.start("import", "-", "--json", stdin=exporting.stdout))
    assert (status, json.loads(printed)["present"]) == (0, 4), printed
    assert ended(exporting)[0] == 0
    assert new.received == 0


def test_a_kill_of_the_old_host(endpoint: str, tmp_path: Path) -> None:
    """An export that a kill -9 ends fails, says so, and leaves no file. What it sent before is right (I1, I14)."""
    with bucketfront(CONFIG.format(endpoint=endpoint, folder=tmp_path, size="256MiB"), tmp_path) as running:
        host = Host(running, tmp_path)
        host.fill()
        process = host.start("export", "-", "--with-bytes")
        assert process.stdout is not None
        begin = process.stdout.read(1 << 20)  # the pipe holds the rest up, so that the export runs still
        os.kill(running.pid, signal.SIGKILL)
        status, printed = ended(process)
    assert status == 1
    assert "broke off" in printed
    assert archive.is_archive(begin)


def test_a_kill_of_the_new_host(old: Host, new_config: str, tmp_path: Path) -> None:
    """After a kill -9 in an import, the command fails, and a repetition brings the rest (I1, I14)."""
    file = tmp_path / "hot.tar"
    assert old.run("export", file, "--with-bytes")[0] == 0
    content = file.read_bytes()
    with bucketfront(new_config, tmp_path) as running:
        host = Host(running, tmp_path)
        process = host.start("import", "-", stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(content[: len(content) // 2])
        process.stdin.flush()
        deadline = time.monotonic() + HANG_S
        while not list((tmp_path / "cache/objects").glob("*/*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(running.pid, signal.SIGKILL)
        with contextlib.suppress(BrokenPipeError):  # the command may have ended already
            process.stdin.write(content[len(content) // 2 :])
        status, printed = ended(process)
        assert (status, "again" in printed) == (1, True), printed
    with bucketfront(new_config, tmp_path) as running:
        host = Host(running, tmp_path)
        status, printed = host.run("import", file, "--json")
        report = json.loads(printed)
        assert (status, report["imported"] + report["present"]) == (0, len(OBJECTS)), printed
        host.assert_all_right()
        assert host.received == 0


def test_a_small_cache(old: Host, endpoint: str, tmp_path: Path) -> None:
    """An archive that does not fit is imported as far as it fits, and the command fails with the reason."""
    file = tmp_path / "hot.tar"
    assert old.run("export", file, "--with-bytes")[0] == 0
    with bucketfront(CONFIG.format(endpoint=endpoint, folder=tmp_path, size="14MiB"), tmp_path) as running:
        host = Host(running, tmp_path)
        status, printed = host.run("import", file)
        assert (status, "the cache is full" in printed) == (1, True), printed
        host.assert_all_right()


def test_wrong_uses(old: Host, tmp_path: Path) -> None:
    """A cut or damaged file, and options of the other kind of file, fail with the reason. No file is left behind."""
    file = tmp_path / "hot.tar"
    assert old.run("export", file, "--with-bytes", "--limit", "1MiB")[0] == 0
    file.write_bytes(file.read_bytes()[:-2048])
    for arguments, status, reason in (
        (("import", file), 1, "cut off"),
        (("import", file, "--detach"), 2, "--detach is for manifests"),
        (("import", file, "--rate", "1MB"), 2, "--rate is for manifests"),
        (("import", tmp_path), 2, "directory"),
        (("export", tmp_path / "x", "--limit", "1MiB"), 2, "--limit is for --with-bytes"),
        (("export", tmp_path / "no/x", "--with-bytes"), 1, "cannot write"),
    ):
        found, printed = old.run(*arguments)
        assert (found, reason in printed) == (status, True), (arguments, printed)
    assert not (tmp_path / "x").exists()
